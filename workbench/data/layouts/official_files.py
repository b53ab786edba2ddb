"""What the readers of the creators' files share: which files are needed, lists of text, labels in the card's order."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from workbench.data.class_names import match_classes
from workbench.data.splits import ImageTable
from workbench.specs.card import DatasetCard
from workbench.specs.errors import UserError

FETCH_AGAIN = "fetch this file again, or take it from another copy of the set"


class NotThere(UserError):  # noqa: N818 - a state that another source may mend
    """The set, or a file that its layout needs, is not where it is looked for; another source may have it."""


def require(card: DatasetCard, folder: Path, names: Sequence[str]) -> None:
    """Check that files or folders of a set are there.

    Args:
        card: The set.
        folder: Its folder.
        names: Paths inside it; `this or that` where one of them is enough.

    Raises:
        NotThere: Some are missing; all of these are named.
    """
    missing = [name for name in names if not any((folder / choice).exists() for choice in name.split(" or "))]
    if missing:
        raise NotThere.of(
            f"dataset {card.name}",
            f"{folder}: {', '.join(missing)} not there",
            ", ".join(names),
            card.what_to_put_where or f"put the original files into {folder}, or set data.root",
        )


def in_card_order(card: DatasetCard, names: Sequence[str], where: object) -> tuple[dict[str, int], tuple[str, ...]]:
    """Number the classes of some files as the card does, or in the order given where the card has no names.

    Args:
        card: The set.
        names: Class names as the files write them; some of the card's may be missing.
        where: The file, for the message.

    Returns:
        Label of each of the names, and the names that the table should have.

    Raises:
        UserError: A name that is not the card's.
    """
    if not card.classes:
        return {name: label for label, name in enumerate(names)}, tuple(names)
    labels = match_classes(names, card.classes, where).tolist()
    return dict(zip(names, labels, strict=True)), tuple(card.classes)


def labels_of(place_of: Mapping[str, str], classes: Sequence[str]) -> dict[str, int]:
    """Return the label of every class name of a list.

    Args:
        place_of: Name -> where it stands, for the message.
        classes: The names in the order of the labels.

    Raises:
        UserError: A name that is none of the classes.
    """
    return {name: int(match_classes([name], classes, place)[0]) for name, place in place_of.items()}


def listed(folder: Path, rows: Sequence[tuple[str, int, str]], classes: tuple[str, ...]) -> ImageTable:
    """Return the table of (id, label, split) rows, an id being the path of a picture inside `folder`."""
    ids, labels, splits = ([row[column] for row in rows] for column in range(3))
    return ImageTable(ids, [folder / name for name in ids], np.array(labels, dtype=np.int64), splits, classes)


def only_there(table: ImageTable) -> ImageTable:
    """Return the rows whose files exist, at one listing a folder. What is missing is counted by `check_table`."""
    by_folder: dict[Path, list[int]] = defaultdict(list)
    for position, path in enumerate(table.images):
        by_folder[path.parent].append(position)
    kept = []
    for folder, positions in by_folder.items():
        there = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
        kept += [position for position in positions if table.images[position].name in there]
    return table.kept(np.array(sorted(kept), dtype=np.int64))


def read_lines(path: Path, pattern: str, allowed: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield the place (`file:line`) and the groups of `pattern` for every line that is not empty.

    Args:
        path: A UTF-8 text file.
        pattern: Regular expression that whole lines match.
        allowed: The same in words, for the message.

    Raises:
        UserError: A line that does not match, or bytes that are no text.
    """
    for number, line in enumerate(_text(path).splitlines(), 1):
        if line.strip():
            if not (found := re.fullmatch(pattern, line.rstrip())):
                raise UserError.of(f"{path}:{number}", repr(line[:80]), allowed, FETCH_AGAIN)
            yield f"{path}:{number}", found.groups()


def read_columns(path: Path, *names: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield the place (`file:line`) and some columns of every row of a tab-separated table with a header.

    Raises:
        UserError: No such columns, a row with fewer fields than the header, or bytes that are no text.
    """
    lines = _text(path).splitlines() or [""]
    header = lines[0].rstrip().split("\t")
    if not set(names) <= set(header):
        allowed = f"a tab-separated header with {', '.join(names)}"
        raise UserError.of(f"{path}:1", repr(lines[0][:80]), allowed, FETCH_AGAIN)
    places = [header.index(name) for name in names]
    for number, line in enumerate(lines[1:], 2):
        if line.strip():
            fields = line.split("\t")
            if len(fields) <= max(places):
                allowed = f"{len(header)} fields with tabs between them"
                raise UserError.of(f"{path}:{number}", repr(line[:80]), allowed, FETCH_AGAIN)
            yield f"{path}:{number}", tuple(fields[place].strip() for place in places)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError.of(path, f"bytes that are no text: {error}", "the creators' text file", FETCH_AGAIN) from error
