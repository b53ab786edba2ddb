"""Rows of files that the `datasets` library reads: which class each label cell means, by name."""

from __future__ import annotations

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from workbench.data.found import Found, Row, Unit
from workbench.data.label_columns import names_in, number_labels
from workbench.data.md5_recovery import Recovered
from workbench.data.pieces import Piece, image_of, pieces_in, undecoded
from workbench.data.splits import SELECTION, TEST, TRAIN
from workbench.specs.card import DatasetCard, Source
from workbench.specs.errors import UserError


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
        pieces, unused = pieces_in(path, source)
        found = found_in_pieces(pieces, source, card, f"files in {path}")
    except (OSError, ValueError) as error:  # pyarrow's errors are ValueErrors
        raise unreadable(path, error) from error
    return with_unused(found, unused)


def with_unused(found: Found, unused: Sequence[str]) -> Found:
    """Return the set with a stamp for splits of the copy that are not asked for."""
    if not unused:
        return found
    stamp = f"not used: the copy's split {', '.join(unused)} (see data.hub.splits)"
    return dataclasses.replace(found, stamps=(*found.stamps, stamp))


def found_in_pieces(
    pieces: Sequence[Piece], source: Source, card: DatasetCard, where: str, recovered: Recovered | None = None
) -> Found:
    """Read the labels of all files, and return the set without having read a picture.

    Raises:
        UserError: As `find_in_files`.
    """
    if not any(piece.split == TRAIN for piece in pieces):
        remedy = "name it in data.hub.splits.train, or in the card's source"
        raise UserError.of(where, f"no split {source.splits.train}", "a training split", remedy)
    names, stated = [], []
    for piece in pieces:
        _check_columns(piece, source, where)
        feature = (piece.rows.features or {}).get(source.label)
        stated += getattr(getattr(feature, "feature", feature), "names", None) or []
        place = piece.file or where
        names.append(names_in(piece.column(source.label), feature, place, may_be_numbers=not card.classes))
    classes, numbers, is_multi_label = number_labels(names, list(dict.fromkeys(stated)), card.classes, where)
    recovered = recovered or Recovered()
    ids = _ids(pieces, source, [len(column) for column in numbers], recovered, where)
    units = []
    for piece, labels, named in zip(pieces, numbers, ids, strict=True):
        told = f"{piece.key} {piece.split} {source.image} {source.label} {source.id_column} {recovered.stamp}"
        rows = _piece_rows(piece, source.image, labels, named, recovered.tested)
        units.append(Unit(hashlib.sha256(told.encode()).hexdigest(), len(labels), rows))
    size = sum(piece.num_bytes for piece in pieces)
    stamps = (recovered.stamp,) if recovered.stamp else ()
    return Found(where, classes, units, size, is_multi_label, stamps)


def _check_columns(piece: Piece, source: Source, where: str) -> None:
    columns = piece.columns
    for wanted in [name for name in (source.image, source.label, source.id_column) if name]:
        if wanted not in columns:
            remedy = "name the columns: data.hub.image, data.hub.label, or in the card's source"
            raise UserError.of(piece.file or where, f"no column {wanted}", ", ".join(columns), remedy)


def _ids(
    pieces: Sequence[Piece], source: Source, lengths: Sequence[int], recovered: Recovered, where: str
) -> list[list[str]]:
    """Return the ids of each file's rows: recovered paths, the id column, or split and row number."""
    ids, counted = [], dict.fromkeys((TRAIN, SELECTION, TEST), 0)
    for piece, length in zip(pieces, lengths, strict=True):
        first = counted[piece.split]
        numbers = range(first, first + length)
        own = (
            map(str, piece.column(source.id_column))
            if source.id_column
            else (f"{piece.split}/{n:07d}" for n in numbers)
        )
        ids.append([recovered.paths.get((piece.split, n), name) for n, name in zip(numbers, own, strict=True)])
        counted[piece.split] += length
    twice = [name for name, count in Counter(name for column in ids for name in column).items() if count > 1]
    if twice:
        remedy = "name a column that tells every picture apart, or none"
        raise UserError.of(where, f"{twice[0]} twice in the column {source.id_column}", "every image once", remedy)
    return ids


def _piece_rows(
    piece: Piece, column: str, labels: Sequence[Any], ids: Sequence[str], tested: frozenset[str]
) -> Callable[[], Iterator[Row]]:
    def rows() -> Iterator[Row]:
        for row, label, name in zip(undecoded(piece.rows, column), labels, ids, strict=True):
            yield Row(name, TEST if name in tested else piece.split, label, image_of(row[column], piece.inside))

    return rows


def unreadable(where: object, error: Exception) -> UserError:
    """Return the message of files that `datasets` cannot read."""
    text = str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__
    return UserError.of(where, f"files that do not read: {text}", "parquet or Arrow files", "fetch them again")
