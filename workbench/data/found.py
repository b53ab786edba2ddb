"""A set as some source has it, before it is prepared: rows in units that can be written, and skipped, one by one."""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from workbench.data.splits import ImageTable, check_ids, marks
from workbench.specs.errors import UserError

UNIT_ROWS = 256
"""Files a unit: what is done again at most after a kill."""


class Row(NamedTuple):
    """One picture.

    Args:
        id: Its unique name in the set.
        split: `train`, `selection` or `test`.
        label: Its class, or the list of its classes in a multi-label set.
        image: Its encoded bytes, or the file that holds them.
    """

    id: str
    split: str
    label: int | list[int]
    image: bytes | Path


@dataclass(frozen=True)
class Unit:
    """Rows that are written together.

    Args:
        key: Names the unit and its content; the same key means the same rows.
        num_rows: How many.
        rows: Yields them.
    """

    key: str
    num_rows: int
    rows: Callable[[], Iterator[Row]]


@dataclass(frozen=True)
class Found:
    """A set as a source has it.

    Args:
        where: The source, for people.
        classes: Class names; the index is the label.
        units: All rows, in order.
        num_bytes: Size of the pictures.
        is_multi_label: Rows have lists of labels.
        stamps: What a reader of any figure on this set must know.
        has_files: Every picture is a file of its own, that can stay where it is.
    """

    where: str
    classes: tuple[str, ...]
    units: Sequence[Unit]
    num_bytes: int
    is_multi_label: bool = False
    stamps: tuple[str, ...] = ()
    has_files: bool = False

    @property
    def num_rows(self) -> int:
        """Pictures in all units."""
        return sum(unit.num_rows for unit in self.units)

    @property
    def fingerprint(self) -> str:
        """Changes when a picture, a label, a split or a class does."""
        told = [*self.classes, "", *(unit.key for unit in self.units)]
        return hashlib.sha256("\n".join(told).encode()).hexdigest()


def found_in_table(table: ImageTable, where: str) -> Found:
    """Cut a table of files, or of pixels in memory, into units.

    Pixels become PPM files, which hold them as they are.

    Raises:
        UserError: An id twice or that no text file can hold, or a picture that is no file, or cannot be reached.
    """
    check_ids(table.ids, where)
    is_pixels = isinstance(table.images, np.ndarray)
    try:
        stats = None if is_pixels else [path.stat() for path in table.images]
    except OSError as error:
        remedy = "check the file and its permissions"
        raise UserError.of(error.filename or where, error.strerror, "a readable file", remedy) from error
    for path, found in zip(table.images, stats or (), strict=False):
        if not stat.S_ISREG(found.st_mode):
            raise UserError.of(path, "not a file", "image files", "take it out of the set")
    units = []
    for start in range(0, len(table.ids), UNIT_ROWS):
        places = range(start, min(start + UNIT_ROWS, len(table.ids)))
        digest = hashlib.sha256()
        for i in places:
            content = table.images[i].tobytes() if is_pixels else f"{stats[i].st_size}/{stats[i].st_mtime_ns}".encode()
            digest.update(f"{table.ids[i]}\0{table.splits[i]}\0{table.labels[i].tolist()}\0".encode() + content)
        units.append(Unit(digest.hexdigest(), len(places), _table_rows(table, places)))
    size = table.images.nbytes if is_pixels else sum(found.st_size for found in stats)
    return Found(where, table.classes, units, size, table.is_multi_label, table.stamps, has_files=not is_pixels)


def listed(found: Found) -> ImageTable:
    """Return the table of a set as it was found; a picture that is no file stands for its id."""
    every = (row for unit in found.units for row in unit.rows())
    rows = [(r.id, r.image if isinstance(r.image, Path) else r.id, r.split, r.label) for r in every]
    ids, images, splits, labels = zip(*rows, strict=True) if rows else ((), (), (), ())
    labels = marks(labels, len(found.classes)) if found.is_multi_label else np.array(labels, dtype=np.int64)
    return ImageTable(ids, images, labels, splits, found.classes, found.stamps)


def _table_rows(table: ImageTable, places: Sequence[int]) -> Callable[[], Iterator[Row]]:
    def rows() -> Iterator[Row]:
        for i in places:
            image = table.images[i]
            label = np.flatnonzero(table.labels[i]).tolist() if table.is_multi_label else int(table.labels[i])
            encoded = _ppm(image) if isinstance(image, np.ndarray) else image
            yield Row(table.ids[i], table.splits[i], label, encoded)

    return rows


def _ppm(pixels: np.ndarray) -> bytes:
    """Return (H, W, 3) uint8 as a PPM file: a header and the pixels."""
    return b"P6\n%d %d\n255\n" % (pixels.shape[1], pixels.shape[0]) + pixels.tobytes()
