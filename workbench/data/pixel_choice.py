"""Whether a fit keeps its pictures decoded and scaled, in which form, and where: `data.prepare`."""

from __future__ import annotations

import logging
import os
import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from workbench.atomic import disk_errors
from workbench.data.images import load_image
from workbench.data.pixels import Kept, PixelStore, file_name
from workbench.data.prepared import PreparedImages
from workbench.data.preparing import REMEDY, alone, progress_bar
from workbench.specs.errors import UserError

log = logging.getLogger("workbench")
OFF, AUTO, RAW, JPEG = "off", "auto", "raw", "jpeg"
FEWEST_EPOCHS = 5
"""Fewer do not pay: for flowers_b0_cpu, keeping 3,060 pictures took 4.2 s of a core, and saved 1.0 of the 3.0 s of each
pass over 1,020, whose originals are no larger than what is kept; larger ones save more."""
SPARE_BYTES = 2**30
"""Left free on the disk; a guess."""
MEMORY_SHARE = 0.5
"""Of the memory that is available, what raw pictures may take of the file cache; a guess that leaves room for a fit."""
_SAMPLED = 24
"""Pictures that are encoded to tell the size of a JPEG store."""


@dataclass(frozen=True)
class Choice:
    """What was decided.

    Args:
        kind: `off`, `raw` or `jpeg`.
        side: Shorter side of kept training pictures, pixels.
        reason: Why.
    """

    kind: str
    side: int
    reason: str


@dataclass(frozen=True)
class Wanted:
    """What a fit reads again and again.

    Args:
        place: The prepared set.
        images: Its pictures, by table row.
        sizes: (N, 2) int64 height and width of each.
        training: What is kept of training pictures, as `raw`.
        training_rows: Table rows of these.
        evaluation: What is kept of the others.
        evaluation_rows: Table rows of these.
    """

    place: Path
    images: PreparedImages
    sizes: np.ndarray
    training: Kept
    training_rows: np.ndarray
    evaluation: Kept
    evaluation_rows: np.ndarray

    def parts(self, kind: str) -> list[tuple[Kept, np.ndarray]]:
        """Return what is kept of which rows, training first. Evaluation pictures are never encoded anew."""
        training, rows = self.training, self.training_rows
        if kind == JPEG and training.crop is None:
            training = replace(training, form=JPEG)
            rows = np.array([row for row in rows if training.scales(*self.sizes[row])], dtype=np.int64)
        return [(training, rows), (self.evaluation, self.evaluation_rows)]

    def num_bytes(self, kind: str) -> int:
        """Return the size of the stores, that of JPEGs from a sample."""
        total = 0
        for kept, rows in self.parts(kind):
            raw = sum(3 * int(np.prod(kept.shape(*self.sizes[row]))) for row in rows)
            if kept.form == JPEG and raw:
                sampled = rows[:: max(1, len(rows) // _SAMPLED)]
                packed = sum(len(kept.pack(load_image(self.images[row]))) for row in sampled)
                raw = round(raw * packed / sum(3 * int(np.prod(kept.shape(*self.sizes[row]))) for row in sampled))
            total += raw
        return total

    def path(self, kept: Kept, rows: np.ndarray) -> Path:
        """Return where a part's file is."""
        return self.place.with_name(file_name(self.place, self.images.fingerprint, kept, self.images.rows[rows]))

    def stores(self, kind: str) -> list[PixelStore | None]:
        """Return the stores of training and evaluation pictures, opened where they are there."""
        stores = []
        for kept, rows in self.parts(kind):
            store = PixelStore(self.images, kept, self.path(kept, rows)) if len(rows) else None
            stores.append(store)
        return stores


def choose(wanted: Wanted, asked: str, epochs: float, memory: int | None = None) -> Choice:
    """Decide for `auto`, and check what was asked for.

    Args:
        wanted: What would be kept.
        asked: `off`, `auto`, `jpeg` or `raw`.
        epochs: How often each picture will be seen.
        memory: Bytes available; measured if None.

    Raises:
        UserError: No room on the disk for what was asked for.
    """
    side = wanted.training.side
    if asked == OFF:
        return Choice(OFF, side, "as data.prepare says")
    if asked == AUTO and epochs < FEWEST_EPOCHS:
        return Choice(OFF, side, f"{epochs:.3g} epochs, and it pays from {FEWEST_EPOCHS}")
    free = shutil.disk_usage(wanted.place).free - SPARE_BYTES
    memory = available_memory() if memory is None else memory
    refused = []
    for kind in (RAW, JPEG) if asked == AUTO else (asked,):
        if kind == JPEG and wanted.training.crop is not None:
            refused.append("centre crops are never kept as JPEGs")
            if asked == AUTO:
                continue
            kind = RAW
        size = wanted.num_bytes(kind)
        if kind == JPEG and asked == AUTO and not len(wanted.parts(JPEG)[0][1]):
            refused.append("JPEGs would be no smaller than the set's own")
            continue
        missing = 0 if all(store is None or store.open() for store in wanted.stores(kind)) else size
        told = f"{kind}, {_gb(size)}"
        if missing > free:
            refused.append(f"{told}, does not fit the {_gb(max(0, free))} to spare on the disk")
        elif asked == AUTO and kind == RAW and size > MEMORY_SHARE * memory:
            refused.append(f"{told}, is over half of the {_gb(memory)} of memory available")
        else:
            return Choice(kind, side, "; ".join([*refused, f"{_gb(size)} for {epochs:.3g} epochs"]))
    if asked != AUTO:
        raise UserError.of(
            "data.prepare", refused[-1], "room for it", f"free some space, set data.prepare=off, or {REMEDY}"
        )
    return Choice(OFF, side, "; ".join(refused))


def keep(
    wanted: Wanted, choice: Choice, asked: str, is_resumed: bool = False
) -> tuple[Choice, list[PixelStore | None]]:
    """Make what was decided, unless it is there.

    Args:
        wanted: What is kept.
        choice: What was decided.
        asked: What the recipe says; under `auto` a disk that refuses means `off`.
        is_resumed: The fit began with this choice, and needs its pixels with or without a file.

    Returns:
        What came of it, and the stores of training and evaluation pictures; None: read the set itself.

    Raises:
        UserError: The disk refuses and it was not `auto`; or a picture does not decode.
    """
    if choice.kind == OFF:
        return choice, [None, None]
    stores = wanted.stores(choice.kind)
    try:
        with disk_errors(wanted.place, f"set data.prepare=off, or {REMEDY}"):
            for store, (_, rows) in zip(stores, wanted.parts(choice.kind), strict=True):
                if store is not None and not store.open():
                    _make(store, rows, wanted)
    except UserError as error:
        if not isinstance(error.__cause__, OSError) or not (is_resumed or asked == AUTO):
            raise
        told = f"could not be written: {error.problems[0].given}"
        if is_resumed:
            log.warning("prepared pixels: %s; they are made anew for each step, as the run began with them", told)
            return choice, [store and PixelStore(store.images, store.kept, None) for store in stores]
        return replace(choice, kind=OFF, reason=f"{choice.kind} {told}"), [None, None]
    return choice, stores


def _make(store: PixelStore, rows: np.ndarray, wanted: Wanted) -> None:
    place = wanted.place
    with alone(place.with_name(f".{place.name}.pixels.lock"), f"the pixels of {place.name}"):
        if store.open():
            return  # another process made it while this one waited
        _remove_stale(place, store.path.name)
        with progress_bar() as progress:
            task = progress.add_task(f"{place.name}: pixels", total=len(rows))
            store.write(rows, lambda count: progress.advance(task, count))
        store.open()


def _remove_stale(place: Path, name: str) -> None:
    """Remove stores that can never be used again, and what a killed process left; only their maker may call this."""
    made_by = name[: name.rindex("-")]
    for file in place.parent.iterdir():
        is_stale = file.name.startswith(f"{place.name}.pixels-") and not file.name.startswith(made_by)
        if is_stale or (file.name.startswith(f".{place.name}.pixels-") and file.suffix == ".part"):
            file.unlink(missing_ok=True)


def available_memory() -> int:
    """Return the bytes of memory that could be had now, within this process's control group."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = 1024 * int(next(line.split()[1] for line in lines if line.startswith("MemAvailable")))
    except (OSError, StopIteration):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    return min(free, group_memory())


def group_memory() -> int:
    """Return the bytes that this process's control group may have, or more than any machine has where there is none."""
    try:
        return int(Path("/sys/fs/cgroup/memory.max").read_text())
    except (OSError, ValueError):  # no control group, or `max`
        return sys.maxsize


def _gb(size: float) -> str:
    return f"{size / 1e9:.2f} GB"
