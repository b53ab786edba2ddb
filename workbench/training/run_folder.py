"""The run folder: its name and its files, each written whole or not at all.

What stands in which file is the contract in README.md; `results.py` makes the scores.
"""

from __future__ import annotations

import contextlib
import csv
import datetime
import json
import secrets
import shlex
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from workbench.atomic import disk_errors, replacing
from workbench.specs.confidential import without_secrets
from workbench.specs.errors import UserError
from workbench.training.csv_cells import defused

RECIPE, COMMAND, ENVIRONMENT, SPLITS = "recipe.yaml", "command.txt", "environment.json", "splits.json"
METRICS, RESULT, PREDICTIONS, LOG = "metrics.csv", "result.json", "predictions.csv", "log.txt"
TEST_OPENINGS, PAGE, LOGITS = "test_openings.json", "report.html", "logits.safetensors"
CHECKPOINTS, LAST, PREVIOUS, BEST = "checkpoints", "last.ckpt", "previous.ckpt", "best.safetensors"
WANDB, PIXELS = "wandb.json", "pixels.json"
RUNTIME = "runtime.json"


def create(runs_dir: str, recipe_name: str) -> Path:
    """Make `runs/<recipe>/<time>-<id>/`, never an existing one, whatever other processes do and the clock says.

    Raises:
        UserError: It cannot be made, or the name leads elsewhere.
    """
    if Path(recipe_name).name != recipe_name or recipe_name in ("", ".", ".."):
        raise UserError.of("about.name", recipe_name, "a name that can be a folder's", "choose one without slashes")
    runs, now = Path(runs_dir) / recipe_name, datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    with disk_errors(runs / now):
        runs.mkdir(parents=True, exist_ok=True)
        while True:
            folder = runs / f"{now}-{secrets.token_hex(3)}"
            with contextlib.suppress(FileExistsError):
                folder.mkdir()  # only one process can
                break
        (folder / CHECKPOINTS).mkdir()
    return folder


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keep other processes from fitting into this run; the lock ends with the process, however that ends.

    Raises:
        UserError: Another one does.
    """
    lock = FileLock(folder / CHECKPOINTS / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        given = f"{folder}: another process is fitting this run"
        raise UserError.of("run", given, "one process at a time", "wait for it, or stop it first") from error
    except OSError:  # nothing can be written there: the fit will say so
        yield
        return
    try:
        yield
    finally:
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


def existing(path: str | Path) -> Path:
    """Return a run folder that can be continued or evaluated.

    Raises:
        UserError: It is none.
    """
    folder = Path(path)
    if not (folder / RECIPE).is_file():
        raise UserError.of("run", f"{folder}: no {RECIPE} in it", "a run folder", "give runs/<recipe>/<time>-<id>")
    return folder


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    with replacing(path) as beside:
        beside.write_text(text, encoding="utf-8")


def write_json(path: Path, values: Any) -> None:
    """Write plain values as JSON, whole or not at all."""
    write_text(path, json.dumps(values, indent=1) + "\n")


def read_json(path: Path) -> Any:
    """Read JSON, or return None if the file is not there.

    Raises:
        ValueError: It is damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def read_own(path: Path, kind: type, keys: Iterable[str] = ()) -> Any:
    """Read JSON that a run wrote itself, or return None if the file is not there.

    Args:
        path: The file.
        kind: `dict` or `list`.
        keys: What a dict has to hold, and nothing else.

    Raises:
        UserError: It is damaged, or somebody else's.
    """
    try:
        values = read_json(path)
    except ValueError:
        values = ...
    if values is not None and (not isinstance(values, kind) or (keys and {*values} != {*keys})):
        allowed = f"the {kind.__name__} that the run wrote" + (f", with {', '.join(keys)}" if keys else "")
        raise UserError.of(path, "damaged, or not of this run", allowed, "put it back, or begin a new run")
    return values


def write_rows(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a CSV file whole or not at all; what a spreadsheet would compute is defused."""
    with replacing(path) as beside, beside.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerows([defused(cell) for cell in row] for row in (header, *rows))


def record_test_opening(folder: Path, purpose: str, num_images: int) -> int:
    """Add one opening of the test split to the run's record, before it is opened.

    A fit opens it once, with weights that are settled; if it says so again, it was stopped in between, and the opening
    is marked as the repetition that it is.

    Returns:
        How often it has been opened by now.
    """
    openings = read_own(folder / TEST_OPENINGS, list) or []
    time = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    opening = {"time": time, "purpose": purpose, "images": num_images}
    if purpose == "fit" and any(earlier.get("purpose") == "fit" for earlier in openings):
        opening["repeated"] = "the fit was stopped after it had opened test and before its result was written"
    openings.append(opening)
    write_json(folder / TEST_OPENINGS, openings)
    return len(openings)


def command_line() -> str:
    """Return the command that runs, as one could type it, but for a secret in it."""
    name = Path(sys.argv[0]).name
    program = ["python", "-m", "workbench"] if name in ("__main__.py", "workbench") else [name or "python"]
    return without_secrets(shlex.join([*program, *sys.argv[1:]]))
