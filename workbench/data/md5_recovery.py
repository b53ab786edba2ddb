"""Recover the official split of a copy that has lost its file names, by the md5 of each picture's bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from workbench.data.pieces import Piece, image_of, undecoded
from workbench.data.splits import SELECTION, TEST, TRAIN
from workbench.specs.card import Source


@dataclass(frozen=True)
class Recovered:
    """Which rows are original pictures, by their md5.

    Args:
        paths: (split, row number in it) -> path in the original set.
        tested: Paths of the official test split that is used; empty if too few of it are left.
        stamp: What was found.
    """

    paths: Mapping[tuple[str, int], str] = field(default_factory=dict)
    tested: frozenset[str] = frozenset()
    stamp: str = ""


def recover(pieces: Sequence[Piece], source: Source, md5_list: Path, test_list: Path) -> Recovered:
    """Find the original path of each picture by the md5 of its bytes (Birdsnap: columns md5 and path of images.txt).

    The official test split is used if at least half of it is left.

    Args:
        pieces: All files.
        source: Names of columns.
        md5_list: Tab-separated with a header.
        test_list: A header, then a path a line.
    """
    header, *lines = [line.split("\t") for line in md5_list.read_text(encoding="utf-8").splitlines()]
    md5, path = header.index("md5"), header.index("path")
    path_of = {line[md5]: line[path] for line in lines if len(line) > max(md5, path)}
    official = {line.strip() for line in islice(test_list.read_text(encoding="utf-8").splitlines(), 1, None)}
    paths: dict[tuple[str, int], str] = {}
    counted = dict.fromkeys((TRAIN, SELECTION, TEST), 0)
    for piece in pieces:
        for row in undecoded(piece.rows, source.image):
            image = image_of(row[source.image], piece.inside)
            data = image if isinstance(image, bytes) else image.read_bytes()
            original = path_of.pop(hashlib.md5(data, usedforsecurity=False).hexdigest(), None)
            if original:
                paths[piece.split, counted[piece.split]] = original
            counted[piece.split] += 1
    tested = frozenset(paths.values()) & official
    told = f"{len(tested)} of {len(official)} official test images recovered by md5"
    if len(tested) < len(official) / 2:
        return Recovered(paths, frozenset(), f"{told}, too few: test is held out of train instead")
    return Recovered(paths, tested, told)
