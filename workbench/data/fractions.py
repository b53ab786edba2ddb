"""A part of a training split: nested, stratified, chosen by a hash of each image's id; and how it is stamped."""

from __future__ import annotations

import dataclasses
import hashlib
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from workbench.data.splits import HOLDOUT_SALT, ImageTable
from workbench.specs.card import images_of_part


def part_of_train(
    ids: Sequence[str], labels: np.ndarray, strata: np.ndarray, fraction: float, salt: str = ""
) -> np.ndarray:
    """Choose a part of some training images: always the same, whatever the seed.

    All images stand in one order, of which a part is the beginning: so a smaller part is inside each greater one. First
    comes one image of every class; then classes advance together, each by the share of its own images, equals by hash.

    Args:
        ids: Unique names.
        labels: (N,) int64 class of each; (N, classes) bool in a multi-label set.
        strata: (N,) int64, as `ImageTable.strata` has it.
        fraction: Share to keep, in (0, 1].
        salt: Names another draw; the recipe's own part has none.

    Returns:
        (N,) bool, True where kept: `images_of_part` images.
    """
    digests = [hashlib.sha256(f"{HOLDOUT_SALT}/train_fraction{salt}/{name}".encode()).hexdigest() for name in ids]
    by_stratum: dict[int, list[int]] = defaultdict(list)
    order = sorted(range(len(ids)), key=digests.__getitem__)
    for position in order:
        by_stratum[int(strata[position])].append(position)
    places = np.zeros(len(ids))
    for members in by_stratum.values():
        places[members] = (np.arange(len(members)) + 0.5) / len(members)
    first = _one_of_each(labels, order)
    places[first] = -1
    kept = np.zeros(len(ids), dtype=bool)
    count = images_of_part(len(ids), len(first), fraction)
    kept[sorted(order, key=places.__getitem__)[:count]] = True
    return kept


def _one_of_each(labels: np.ndarray, order: Sequence[int]) -> list[int]:
    """Return positions, in an order's sense the first ones, that hold every class which occurs."""
    found: set[int] = set()
    chosen = []
    for position in order:
        own = np.flatnonzero(labels[position]).tolist() if labels.ndim == 2 else [int(labels[position])]
        if not found.issuperset(own):
            found.update(own)
            chosen.append(position)
    return chosen


def rows_of_part(table: ImageTable, rows: np.ndarray, fraction: float, salt: str = "") -> np.ndarray:
    """Return the rows of a table that `part_of_train` keeps of some rows, in their order."""
    if fraction >= 1:
        return rows
    strata = table.strata()[rows]
    return rows[part_of_train([table.ids[row] for row in rows], table.labels[rows], strata, fraction, salt)]


def stamped(table: ImageTable, fraction: float) -> ImageTable:
    """Return the table with the stamp of what is trained on a part: no figure on it is one of the whole set."""
    if fraction >= 1:
        return table
    return dataclasses.replace(table, stamps=(*table.stamps, part_stamp(fraction)))


def part_stamp(fraction: float) -> str:
    """Return what stamps a run that was trained on a part; a report takes it for a part of a set by its first word."""
    return f"partial: trained on {100 * fraction:g} % of train"
