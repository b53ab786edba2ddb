"""What `predict` writes: answers as a table, CSV or JSON lines, a batch after the other."""

from __future__ import annotations

import csv
import io
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from workbench.atomic import disk_errors, replacing
from workbench.specs.printable import printable
from workbench.training.csv_cells import defused
from workbench.training.picture_paths import Wanted

if TYPE_CHECKING:
    from workbench.training.classifier import EfficientNetClassifier

Batches = Iterable[tuple[list[int], Tensor, Tensor]]
Lines = Iterator[tuple[int, str]]
"""Of each picture, or of a header with place -1: its place and its text."""
COLUMNS = ("path", "rank", "class", "probability", "calibrated")
_WIDEST_PATH = 60
"""Letters of a path that a table's column makes room for; longer ones are written whole, and stand out."""


def table_lines(pictures: Sequence[Wanted], classifier: EfficientNetClassifier, batches: Batches) -> Lines:
    """Yield a line per answer, for people: path, percent, class; the path only before the first."""
    width = min(_WIDEST_PATH, max(len(_shown(picture)) for picture in pictures))
    for place, answers in _answers(classifier, batches):
        paths = [_shown(pictures[place]), *[""] * (len(answers) - 1)]
        rows = zip(paths, answers, strict=True)
        lines = [f"{path:<{width}}  {100 * share:6.2f} %  {printable(name, keep='')}\n" for path, (name, share) in rows]
        yield place, "".join(lines)


def csv_lines(pictures: Sequence[Wanted], classifier: EfficientNetClassifier, batches: Batches) -> Lines:
    """Yield `COLUMNS` and the columns of the given lists, a row per answer.

    What a spreadsheet would compute is defused. A given column that is called as one of `COLUMNS` becomes `given_...`.
    """
    given = list(dict.fromkeys(name for picture in pictures for name in picture.given))
    yield -1, _csv_row([*COLUMNS, *(f"given_{name}" if name in COLUMNS else name for name in given)])
    calibrated = "yes" if classifier.calibration else "no"
    for place, answers in _answers(classifier, batches):
        picture = pictures[place]
        kept = [picture.given.get(name, "") for name in given]
        rows = [
            [_text(picture.name), rank, name, f"{share:.6f}", calibrated, *kept]
            for rank, (name, share) in enumerate(answers, 1)
        ]
        yield place, "".join(map(_csv_row, rows))


def json_lines(pictures: Sequence[Wanted], classifier: EfficientNetClassifier, batches: Batches) -> Lines:
    """Yield an object a picture: `path`, `answers`, `calibrated`, and `given` where a list gave more than a path."""
    for place, answers in _answers(classifier, batches):
        picture = pictures[place]
        told = [{"class": name, "probability": round(share, 6)} for name, share in answers]
        line = {"path": _text(picture.name), "answers": told, "calibrated": classifier.calibration is not None}
        yield place, json.dumps(line | ({"given": dict(picture.given)} if picture.given else {})) + "\n"


LINES = {"table": table_lines, "csv": csv_lines, "jsonl": json_lines}


def write_answers(lines: Lines, out: Path | None, count: int) -> None:
    """Print lines as they come, or write them to a file, whole or not at all; a bar shows how far on a terminal.

    Args:
        lines: From one of `LINES`.
        out: The file; standard output if None.
        count: Pictures in all.
    """
    console = Console(stderr=True)
    shown = console.is_terminal and (out is not None or not sys.stdout.isatty())
    with Progress(console=console, transient=True, disable=not shown) as bar:
        task = bar.add_task("pictures", total=count)
        if out is None:
            for place, text in lines:
                sys.stdout.write(printable(text, keep="\n\r"))
                bar.update(task, completed=place + 1)
            sys.stdout.flush()
            return
        with disk_errors(out), replacing(out) as beside, beside.open("w", encoding="utf-8", newline="") as file:
            for place, text in lines:
                file.write(text)
                bar.update(task, completed=place + 1)


def _answers(classifier: EfficientNetClassifier, batches: Batches) -> Iterator[tuple[int, list[tuple[str, float]]]]:
    for places, values, order in batches:
        for place, shares, numbers in zip(places, values.tolist(), order.tolist(), strict=True):
            yield place, [(classifier.classes[i], share) for i, share in zip(numbers, shares, strict=True)]


def _csv_row(cells: Sequence[object]) -> str:
    csv.writer(written := io.StringIO(), lineterminator="\n").writerow([defused(cell) for cell in cells])
    return written.getvalue()


def _text(name: str) -> str:
    """Return a file's name as text that can be encoded: bytes that are no UTF-8 as escapes."""
    return os.fsencode(name).decode(errors="backslashreplace")


def _shown(picture: Wanted) -> str:
    return printable(_text(picture.name), keep="")
