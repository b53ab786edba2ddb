"""Find what makes a set's figures wrong: unreadable images, copies, leaks between splits, conflicting labels."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from workbench.data.looking import Columns, alike, prints_of
from workbench.data.prepared import read_facts, read_table
from workbench.data.splits import SELECTION, TEST, TRAIN, ImageTable, check_table, complete_splits
from workbench.specs.card import DatasetCard

WRONG, NOTE = "wrong", "note"
_NAMED = 5


@dataclass(frozen=True)
class Finding:
    """One kind of thing that was found.

    Args:
        kind: Its name, such as `near_across`.
        severity: `wrong` if it can make a figure wrong, else `note`.
        count: How many images, or classes, are concerned.
        text: What was found, in a sentence.
        ids: Ids of the images: a group for each set of copies or colour mode, else each image on its own.
        classes: Names of the classes concerned, if it is about classes.
    """

    kind: str
    severity: str
    count: int
    text: str
    ids: tuple[tuple[str, ...], ...] = ()
    classes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Report:
    """What is in a set.

    Args:
        counts: Images of each split.
        findings: What was found, nothing if there is nothing to say.
    """

    counts: dict[str, int]
    findings: tuple[Finding, ...]

    @property
    def is_clean(self) -> bool:
        """Whether nothing was found that can make a figure wrong."""
        return all(finding.severity != WRONG for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain lists and dictionaries."""
        return {"is_clean": self.is_clean, **asdict(self)}


def examine(table: ImageTable, facts: Columns, resolution: int) -> Report:
    """Look for everything that a set's figures could suffer from.

    Args:
        table: All images, also those that do not decode. Labels are (N,) int, or (N, classes) bool.
        facts: The facts of each image.
        resolution: Side of the training crops, in pixels.
    """
    sound = _sound(facts)
    found = [*_unreadable(table, facts), *_copies(table, facts), *_classes(table, sound)]
    found += _pictures(table, facts, sound, resolution)
    counts = Counter(table.splits)
    return Report({split: counts[split] for split in (TRAIN, SELECTION, TEST)}, tuple(found))


def examine_prepared(
    folder: Path, card: DatasetCard, holdout_fraction: float, resolution: int
) -> tuple[ImageTable, Report]:
    """Examine a prepared set, with the splits that a fit on it would have.

    Args:
        folder: What `prepare` returned.
        card: The set.
        holdout_fraction: Share of train that is held out for selection where the creators made no split.
        resolution: Side of the training crops, in pixels.

    Raises:
        UserError: It is not a set at all, such as one class.
    """
    table, _ = read_table(folder)
    table = complete_splits(check_table(table, card, allow_partial=True), holdout_fraction, card.test_share)
    return table, examine(table, read_facts(folder), resolution)


def duplicate_pairs(facts: Columns) -> tuple[np.ndarray, np.ndarray]:
    """Return the copies in a set, as row numbers. Images that do not decode take no part.

    Args:
        facts: The facts of each image.

    Returns:
        Exact: (E, 2) int64, each later copy with the first image of the same bytes.
        Near: (M, 2) int64, all pairs of alike images of different bytes; of exact copies, the first stands for all.
    """
    exact, firsts = [], {}
    for row in _sound(facts).tolist():
        first = firsts.setdefault(facts["sha256"][row], row)
        if first != row:
            exact.append((first, row))
    prints = prints_of(facts, np.array(list(firsts.values()), dtype=np.int64))
    near = [np.empty((0, 2), np.int64), *alike(prints, prints)]
    return np.array(exact, dtype=np.int64).reshape(-1, 2), np.concatenate(near)


def leaked_rows(facts: Columns, trained: np.ndarray, tested: np.ndarray) -> np.ndarray:
    """Return the rows of `tested` that are an exact or near copy of a row of `trained`, in the order of `tested`.

    Args:
        facts: The facts of each image.
        trained: Row numbers of the images that were trained on.
        tested: Row numbers of the images to be tested on.
    """
    sound = _sound(facts)
    trained, tested = np.asarray(trained), np.asarray(tested)
    left, right = tested[np.isin(tested, sound)], trained[np.isin(trained, sound)]
    known = {facts["sha256"][row] for row in right.tolist()}
    leaked = {row for row in left.tolist() if facts["sha256"][row] in known}
    for pairs in alike(prints_of(facts, left), prints_of(facts, right)):
        leaked.update(pairs[:, 0].tolist())
    return tested[np.isin(tested, list(leaked))]


def _sound(facts: Columns) -> np.ndarray:
    return np.flatnonzero([not problem for problem in facts["problem"]])


def _groups(size: int, pairs: np.ndarray) -> list[np.ndarray]:
    """Return the connected components of two rows or more, by their first row."""
    links = coo_array((np.ones(len(pairs), dtype=bool), (pairs[:, 0], pairs[:, 1])), shape=(size, size))
    members = defaultdict(list)
    labels = connected_components(links, directed=False)[1]
    for row in np.unique(pairs).tolist():
        members[int(labels[row])].append(row)
    return [np.array(rows) for rows in members.values()]


def _copies(table: ImageTable, facts: Columns) -> Iterator[Finding]:
    exact, near = duplicate_pairs(facts)
    size = len(table.ids)
    marks = np.unique(table.labels, axis=0, return_inverse=True)[1].reshape(-1)  # equal where the labels are
    similar = [g for g in _groups(size, np.concatenate([exact, near])) if len({facts["sha256"][row] for row in g}) > 1]
    for kind, what, groups in (("exact", "the same bytes", _groups(size, exact)), ("near", "near-duplicates", similar)):
        within, across = [], []
        for group in groups:
            (within if len(_splits_of(table, group)) == 1 else across).append(group)
        conflicts = [group for group in groups if len(set(marks[group].tolist())) > 1]
        places = Counter(" and ".join(_splits_of(table, group)) for group in across)
        where = ", ".join(f"{count} in {place}" for place, count in places.most_common())
        yield from _grouped(table, f"{kind}_within", NOTE, within, f"{what} more than once within a split")
        yield from _grouped(table, f"{kind}_across", WRONG, across, f"{what} in more than one split ({where})")
        yield from _grouped(table, f"conflict_{kind}", WRONG, conflicts, f"{what} with different labels")


def _splits_of(table: ImageTable, group: np.ndarray) -> list[str]:
    found = {table.splits[row] for row in group}
    return [split for split in (TRAIN, SELECTION, TEST) if split in found]


def _grouped(table: ImageTable, kind: str, severity: str, groups: list[np.ndarray], text: str) -> Iterator[Finding]:
    if groups:
        count = sum(map(len, groups))
        ids = tuple(tuple(table.ids[row] for row in group) for group in groups)
        found = f"{_number(count, 'image')} in {_number(len(groups), 'group')}: {text}"
        yield Finding(kind, severity, count, found, ids)


def _single(table: ImageTable, kind: str, severity: str, rows: Iterable[int], text: str) -> Iterator[Finding]:
    ids = tuple((table.ids[row],) for row in rows)
    if ids:
        share = 100 * len(ids) / len(table.ids)
        yield Finding(
            kind,
            severity,
            len(ids),
            f"{_number(len(ids), 'image')} ({share:.{0 if share >= 10 else 1}f} %) {text}",
            ids,
        )


def _number(count: int, one: str, many: str = "") -> str:
    return f"{count} {one if count == 1 else many or one + 's'}"


def _unreadable(table: ImageTable, facts: Columns) -> Iterator[Finding]:
    rows = [row for row, problem in enumerate(facts["problem"]) if problem]
    first = "; ".join(f"{table.ids[row]}: {facts['problem'][row]}" for row in rows[:_NAMED])
    yield from _single(table, "undecodable", WRONG, rows, f"that cannot be decoded, such as {first}")


def _classes(table: ImageTable, sound: np.ndarray) -> Iterator[Finding]:
    labels, splits = np.asarray(table.labels), np.asarray(table.splits)
    counts = {}
    for split in (TRAIN, TEST):
        chosen = labels[sound[splits[sound] == split]]
        counts[split] = chosen.sum(0) if labels.ndim == 2 else np.bincount(chosen, minlength=len(table.classes))
    for kind, severity, split in (("untrained_classes", WRONG, TRAIN), ("untested_classes", NOTE, TEST)):
        names = tuple(table.classes[label] for label in np.flatnonzero(counts[split] == 0))
        if names:
            shown = ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")
            text = f"{_number(len(names), 'class', 'classes')} without {split} images: {shown}"
            yield Finding(kind, severity, len(names), text, classes=names)
    present = np.flatnonzero(counts[TRAIN])
    if len(present) and counts[TRAIN][present].min() < counts[TRAIN].max():
        few, many = present[counts[TRAIN][present].argmin()], counts[TRAIN].argmax()
        low, high, names = int(counts[TRAIN][few]), int(counts[TRAIN][many]), (table.classes[few], table.classes[many])
        text = f"train images of a class: {low} ({names[0]}) to {high} ({names[1]}), {high / low:.1f} times as many"
        yield Finding("balance", NOTE, len(present), text, classes=names)


def _pictures(table: ImageTable, facts: Columns, sound: np.ndarray, resolution: int) -> Iterator[Finding]:
    small = [row for row in sound if min(facts["width"][row], facts["height"][row]) < resolution]
    yield from _single(table, "small", NOTE, small, f"with a side under {resolution} pixels: they are enlarged")
    modes = defaultdict(list)
    for row in sound:
        modes[facts["mode"][row]].append(row)
    if set(modes) - {"RGB"}:
        listed = ", ".join(f"{mode} {len(rows)}" for mode, rows in sorted(modes.items()))
        odd = [np.array(rows) for mode, rows in sorted(modes.items()) if mode != "RGB"]
        yield from _grouped(table, "modes", NOTE, odd, f"modes other than RGB, which they are turned into ({listed})")
    turned = [row for row in sound if facts["orientation"][row] != 1]
    yield from _single(table, "rotated", NOTE, turned, "turned upright by their EXIF orientation")
    yield from _single(table, "grey", NOTE, [row for row in sound if facts["grey"][row]], "without colour")
