"""The table of a set's images, and how the selection split is held out where the creators made none."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from workbench.specs.card import TEST_SHARE, DatasetCard
from workbench.specs.errors import UserError
from workbench.specs.printable import MOST_LETTERS, odd_name

TRAIN, SELECTION, TEST = "train", "selection", "test"
HOLDOUT_SALT = "workbench"
"""Part of every hold-out hash. Fixed, so that all seeds of a recipe choose on the same images."""


@dataclass(frozen=True)
class ImageTable:
    """All images of a set.

    Args:
        ids: Unique name of each image: its path inside the set, or one made from split and number.
        images: A file per image, or an (N, H, W, 3) uint8 array.
        labels: (N,) int64 class of each image; or, in a multi-label set, (N, classes) bool.
        splits: `train`, `selection` or `test` of each image.
        classes: Class names; the index is the label.
        stamps: What a reader of any figure on this set must know, such as a missing part.
    """

    ids: Sequence[str]
    images: Sequence[Path] | np.ndarray
    labels: np.ndarray
    splits: Sequence[str]
    classes: tuple[str, ...]
    stamps: tuple[str, ...] = field(default=())

    @property
    def is_multi_label(self) -> bool:
        """Whether an image can have several classes, or none."""
        return self.labels.ndim == 2

    def strata(self) -> np.ndarray:
        """Return (N,) int64 by which hold-outs are stratified: the class; of several, the rarest; -1 for none."""
        if not self.is_multi_label:
            return self.labels
        counts = self.labels.sum(0)
        rarity = np.where(self.labels, counts, len(self.labels) + 1)
        return np.where(self.labels.any(1), rarity.argmin(1), -1)

    def kept(self, rows: np.ndarray, *stamps: str) -> ImageTable:
        """Return the table of some rows, with further stamps."""
        images = self.images[rows] if isinstance(self.images, np.ndarray) else _take(self.images, rows)
        ids, splits = ([column[i] for i in rows] for column in (self.ids, self.splits))
        return ImageTable(ids, images, self.labels[rows], splits, self.classes, (*self.stamps, *stamps))

    def indices(self, *splits: str) -> np.ndarray:
        """Return the positions of the images of some splits, in table order."""
        return np.flatnonzero(np.isin(np.asarray(self.splits), splits))


def marks(labels: Sequence[Sequence[int]], num_classes: int) -> np.ndarray:
    """Return lists of class numbers as an (N, num_classes) bool array."""
    marked = np.zeros((len(labels), num_classes), dtype=bool)
    for row, several in enumerate(labels):
        marked[row, several] = True
    return marked


def hold_out(ids: Sequence[str], labels: np.ndarray, fraction: float, salt: str) -> np.ndarray:
    """Choose a stratified hold-out by a hash of each id.

    The choice depends on the ids alone: not on their order, and an added image moves no other across but at the rim.

    Args:
        ids: Unique names.
        labels: (N,) class of each.
        fraction: Share to hold out of every class, in (0, 1); at least one image of a class that has two.
        salt: Names the purpose, so that two hold-outs of one set differ.

    Returns:
        (N,) bool, True where held out.
    """
    by_class: dict[int, list[tuple[str, int]]] = defaultdict(list)
    for position, (name, label) in enumerate(zip(ids, labels, strict=True)):
        digest = hashlib.sha256(f"{HOLDOUT_SALT}/{salt}/{name}".encode()).hexdigest()
        by_class[int(label)].append((digest, position))
    chosen = np.zeros(len(ids), dtype=bool)
    for members in by_class.values():
        if len(members) > 1:
            count = min(max(1, round(fraction * len(members))), len(members) - 1)
            chosen[[position for _, position in sorted(members)[:count]]] = True
    return chosen


def complete_splits(table: ImageTable, fraction: float, test_share: float = TEST_SHARE) -> ImageTable:
    """Return the table with a selection split, and a test split, held out of train where it has none.

    Args:
        table: Images with their official splits.
        fraction: Share of train to hold out for selection.
        test_share: Share of train to hold out for test.
    """
    strata = table.strata()
    splits = np.asarray(table.splits, dtype=object)
    stamps = list(table.stamps)
    for split, share in ((TEST, test_share), (SELECTION, fraction)):
        if not (splits == split).any():
            train = np.flatnonzero(splits == TRAIN)
            held = hold_out([table.ids[i] for i in train], strata[train], share, split)
            splits[train[held]] = split
            if split == TEST:  # no figure on it compares with a published one
                stamps.append(f"{split} held out of train by hash: {int(held.sum())} images")
    return ImageTable(table.ids, table.images, table.labels, splits.tolist(), table.classes, tuple(stamps))


def check_table(table: ImageTable, card: DatasetCard, allow_partial: bool) -> ImageTable:
    """Compare a set as found with its card, before any hold-out.

    Args:
        table: What was found.
        card: What should be there.
        allow_partial: Accept fewer images than the card says, and stamp it.

    Returns:
        The table, with a stamp for every part that is missing.

    Raises:
        UserError: One class, an empty train split, a wrong number of classes or images, or an id twice.
    """
    where, found = f"dataset {card.name}", Counter(table.splits)
    if len(table.classes) < 2:
        raise UserError.of(where, f"one class: {table.classes}", "2 or more classes", "add a folder per class")
    if card.num_classes is not None and len(table.classes) != card.num_classes:
        raise UserError.of(where, f"{len(table.classes)} classes", card.num_classes, "restore the missing classes")
    check_ids(table.ids, where)
    check_classes(table.classes, where)
    check_training(table, where, allow_partial)
    stamps = list(table.stamps)
    for split in (TRAIN, SELECTION, TEST):
        expected = getattr(card.sizes, split)
        if expected is not None and found[split] != expected:
            if not allow_partial or found[split] > expected:
                raise UserError.of(
                    where,
                    f"{found[split]} images in {split}",
                    f"{expected}, as the card says",
                    "restore the missing files, or accept a part with data.allow_partial=true",
                )
            stamps.append(f"partial: {found[split]} of {expected} {split} images")
    return ImageTable(table.ids, table.images, table.labels, table.splits, table.classes, tuple(stamps))


def check_ids(ids: Sequence[str], where: str) -> None:
    """Check that every id is there once and that a text file can hold it.

    Raises:
        UserError: It is not so.
    """
    odd = [name for name in ids if not name.isprintable()]
    if odd:
        raise UserError.of(where, f"the name {odd[0]!r}", "printable file names", "rename the file")
    twice = [name for name, count in Counter(ids).items() if count > 1]
    if twice:
        raise UserError.of(where, f"{twice[0]} twice", "every image once", "take the copy out")


def check_classes(classes: Sequence[str], where: str) -> None:
    """Check that every class has a name that can be shown: pages, tables and terminals print them as they are.

    Raises:
        UserError: It is not so.
    """
    for name in classes:
        if odd := odd_name(name):
            allowed = f"names in one line, without control characters, at most {MOST_LETTERS} letters"
            raise UserError.of(where, f"the class {name!r:.80}, {odd}", allowed, "rename the class where it is named")


def check_training(table: ImageTable, where: str, allow_partial: bool) -> None:
    """Check that there is something to train on.

    Raises:
        UserError: An empty train split; or, unless `allow_partial`, a class without training images.
    """
    of_train = table.labels[table.indices(TRAIN)]
    if not len(of_train):
        raise UserError.of(where, "no training images", "at least 2 per class", "check data.root or data.path")
    trained = set((np.flatnonzero(of_train.any(0)) if table.is_multi_label else of_train).tolist())
    untrained = [name for label, name in enumerate(table.classes) if label not in trained]
    if untrained and not allow_partial:
        raise UserError.of(
            where,
            f"{len(untrained)} classes without training images: {', '.join(untrained[:5])}",
            "training images for every class",
            "restore them, or accept this with data.allow_partial=true",
        )


def drop_bad(table: ImageTable, problems: Sequence[str], policy: str, where: str) -> tuple[ImageTable, list[int]]:
    """Refuse a set with images that do not decode, or leave them out.

    Args:
        table: The set.
        problems: What is wrong with each image; empty if nothing is.
        policy: `fail` or `drop`.
        where: The set, for messages.

    Returns:
        The table, stamped if images were left out, and the rows that were.

    Raises:
        UserError: There are such images and the policy is `fail`.
    """
    bad = [row for row, problem in enumerate(problems) if problem]
    if not bad:
        return table, []
    if policy == "fail":
        listed = "".join(f"\n            {table.ids[row]}: {problems[row]}" for row in bad[:5])
        raise UserError.of(
            where,
            f"{len(bad)} of {len(table.ids)} images that cannot be used{listed}",
            "images that decode",
            "restore them, or leave them out and have them counted with data.on_bad_image=drop",
        )
    counts = Counter(table.splits[row] for row in bad)
    listed = ", ".join(f"{counts[split]} {split}" for split in (TRAIN, SELECTION, TEST) if counts[split])
    kept = np.setdiff1d(np.arange(len(table.ids)), bad)
    return table.kept(kept, f"dropped: {listed} images that do not decode"), bad


def _take(images: Sequence, rows: np.ndarray) -> Sequence:
    """Return some of a sequence; one that can do it without reading does it itself."""
    return images.kept(rows) if hasattr(images, "kept") else [images[i] for i in rows]
