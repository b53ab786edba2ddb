"""Rows of files that the `datasets` library reads: which class each label cell means, by name."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench.data.class_names import match_classes
from workbench.data.found import Found, Row, Unit
from workbench.data.md5_recovery import Recovered
from workbench.data.pieces import Piece, image_of, pieces_in, undecoded
from workbench.data.splits import SELECTION, TEST, TRAIN
from workbench.specs.card import DatasetCard, Source
from workbench.specs.errors import UserError


@dataclass(frozen=True)
class Labels:
    """How the label column of a copy becomes the numbers of the card's classes.

    Args:
        classes: Class names of the set.
        number_of: What a cell holds -> class number.
        is_multi_label: A cell holds a list.
    """

    classes: tuple[str, ...]
    number_of: Mapping[Any, int]
    is_multi_label: bool

    def of(self, cell: Any) -> int | list[int]:
        """Return the class, or the sorted classes, of one cell."""
        return sorted(self.number_of[one] for one in cell) if self.is_multi_label else self.number_of[cell]


def find_in_files(path: Path, source: Source, card: DatasetCard) -> Found:
    """Read dataset files on a disk.

    Args:
        path: A parquet or Arrow file, a folder of parquet files, or a folder that `save_to_disk` wrote.
        source: Names of columns and splits.
        card: The set; its classes give the labels.

    Raises:
        UserError: Files that do not read, a column or the training split missing, or labels that are not the card's.
    """
    try:
        pieces = list(pieces_in(path, source))
    except (OSError, ValueError) as error:  # pyarrow's errors are ValueErrors
        raise unreadable(path, error) from error
    return found_in_pieces(pieces, source, card, f"files in {path}")


def found_in_pieces(
    pieces: Sequence[Piece], source: Source, card: DatasetCard, where: str, recovered: Recovered | None = None
) -> Found:
    """Read the labels of all files, and return the set without having read a picture.

    Raises:
        UserError: As `find_in_files`.
    """
    if not any(piece.split == TRAIN for piece in pieces):
        raise UserError.of(where, f"no split {source.splits.train}", "a training split", "name it in `splits`")
    columns = list(pieces[0].rows.features or next(iter(pieces[0].rows)))
    for wanted in [name for name in (source.image, source.label, source.id_column) if name]:
        if wanted not in columns:
            remedy = "name the columns: data.hub.image, data.hub.label, or in the card's source"
            raise UserError.of(where, f"no column {wanted}", ", ".join(columns), remedy)
    try:
        cells = [[row[source.label] for row in piece.rows.select_columns([source.label])] for piece in pieces]
    except (OSError, ValueError) as error:
        raise unreadable(where, error) from error
    labels = _read_labels((pieces[0].rows.features or {}).get(source.label), cells, card, where)
    recovered = recovered or Recovered()
    units, counted = [], dict.fromkeys((TRAIN, SELECTION, TEST), 0)
    for piece, column in zip(pieces, cells, strict=True):
        told = f"{piece.key} {piece.split} {source.image} {source.label} {source.id_column} {recovered.stamp}"
        rows = _piece_rows(piece, source, labels, counted[piece.split], recovered)
        units.append(Unit(hashlib.sha256(told.encode()).hexdigest(), len(column), rows))
        counted[piece.split] += len(column)
    size = sum(piece.num_bytes for piece in pieces)
    stamps = (recovered.stamp,) if recovered.stamp else ()
    return Found(where, labels.classes, units, size, labels.is_multi_label, stamps)


def _read_labels(feature: Any, cells: list[list[Any]], card: DatasetCard, where: str) -> Labels:
    """Find out what the label column holds: numbers that have names, names, or lists of either."""
    inner = getattr(feature, "feature", feature)
    is_multi_label = inner is not feature or any(isinstance(cell, list) for column in cells for cell in column[:1])
    seen: set[Any] = set()
    for column in cells:
        seen.update(one for cell in column for one in (cell if is_multi_label else [cell]))
    names = list(getattr(inner, "names", None) or [])
    if not names and seen and all(isinstance(one, int) and not isinstance(one, bool) for one in seen):
        if card.classes:
            remedy = "take a copy that names its classes, or one with a column of names (data.hub.label)"
            raise UserError.of(where, "labels that are numbers without names", "class names", remedy)
        names = [str(number) for number in range(max(seen) + 1)]
    odd = [one for one in seen if not isinstance(one, str)] if not names else seen - set(range(len(names)))
    if odd:
        allowed = f"0 to {len(names) - 1}" if names else "class names"
        raise UserError.of(where, f"the label {next(iter(odd))!r}", allowed, "choose another split, copy or column")
    found = names or sorted(seen)
    wanted = tuple(card.classes or found)
    numbers = match_classes(found, wanted, where).tolist() if card.classes else range(len(found))
    keys: Iterable[Any] = range(len(names)) if names else found
    return Labels(wanted, dict(zip(keys, numbers, strict=True)), is_multi_label)


def _piece_rows(
    piece: Piece, source: Source, labels: Labels, start: int, recovered: Recovered
) -> Callable[[], Iterator[Row]]:
    def rows() -> Iterator[Row]:
        for number, row in enumerate(undecoded(piece.rows, source.image), start):
            path = recovered.paths.get((piece.split, number))
            name = path or (str(row[source.id_column]) if source.id_column else f"{piece.split}/{number:07d}")
            split = TEST if path in recovered.tested else piece.split
            yield Row(name, split, labels.of(row[source.label]), image_of(row[source.image]))

    return rows


def unreadable(where: object, error: Exception) -> UserError:
    """Return the message of files that `datasets` cannot read."""
    text = str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__
    return UserError.of(where, f"files that do not read: {text}", "parquet or Arrow files", "fetch them again")
