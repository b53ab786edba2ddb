"""Prepare a set: every picture looked at once and written to Arrow, whole or not at all.

Work goes on in a hidden folder beside the result: `fetched/` is what was downloaded, `part-*.arrow` are units that are
done. A kill at any moment leaves only that; the next run goes on with it. One process works, others wait for it.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import logging
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from filelock import FileLock, Timeout
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from workbench import __version__
from workbench.atomic import disk_errors, replacing
from workbench.data import arrow_files, sources
from workbench.data.found import Found
from workbench.data.prepared import FORMAT, MANIFEST, Manifest, card_digest, needs_no_look, place_name, read_manifest
from workbench.specs.card import DatasetCard
from workbench.specs.errors import UserError

log = logging.getLogger("workbench")
SPARE_BYTES = 200 * 2**20
"""Left free on the disk, beyond the pictures; a guess."""
PLAN = "plan.json"
"""What a work folder is becoming; in a finished set, a sign that it was not tidied."""
REMEDY = "write elsewhere with data.prepared_root=DIR"


def prepare(
    card: DatasetCard,
    root: Path,
    path: Path | None = None,
    *,
    prepared_root: Path | None = None,
    download: bool = True,
    again: bool = False,
) -> Path:
    """Return the folder of a prepared set; make it first if it is not there, or not what the source has now.

    The pictures' bytes are held, but for picture files under a `path`, which are listed and stay where they are.

    Args:
        card: The set.
        root: Folder of all sets.
        path: The user's own folder, list or dataset files.
        prepared_root: Where prepared sets live; `root/prepared` if None.
        download: Whether sources on the net may be tried.
        again: Make it anew, whatever is there.

    Raises:
        UserError: Found nowhere (each source with its reason), not as its card says, no space, or no permission.
    """
    base, path = prepared_root or root / "prepared", path and path.resolve()
    place = base / place_name(card, path)
    work = base / f".{place.name}.work"
    manifest = None if again else _usable(place, card)
    if manifest and needs_no_look(manifest, card, root, path) and not (place / PLAN).exists():
        return place
    found = None
    try:
        found = sources.find(card, root, path, False, work)  # before any folder is made
    except sources.FoundNowhere:
        if manifest and manifest.holds_bytes:
            return place  # the originals are gone, or were never here
        if not (download and card.downloadable):
            raise
    if found and _is_current(manifest, found) and not (place / PLAN).exists():
        return place
    with disk_errors(place, REMEDY), _made(base), alone(base / f".{place.name}.lock", card.name):
        manifest = None if again else _usable(place, card)
        if manifest and (found is None or _is_current(manifest, found)):
            _tidy(place)
            return place  # another process made it while this one waited
        try:
            work.mkdir(exist_ok=True)
            found = found or sources.find(card, root, path, download, work)
            _write(card, found, work, holds_bytes=path is None or not found.has_files)
            _put_in_place(work, place)
        finally:
            _remove_empty(work / sources.FETCHED, work)
    return place


def _usable(place: Path, card: DatasetCard) -> Manifest | None:
    """Return the manifest of a prepared set if it was made by what the card says now."""
    manifest = read_manifest(place)
    return manifest if manifest and manifest.card_digest == card_digest(card) else None


def _is_current(manifest: Manifest | None, found: Found) -> bool:
    return manifest is not None and manifest.fingerprint == found.fingerprint


@contextlib.contextmanager
def _made(folder: Path) -> Iterator[None]:
    """Make a folder; take it back, with the folders above that had to be made, if it stays empty."""
    new = [place for place in (folder, *folder.parents) if not place.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        _remove_empty(*new)


@contextlib.contextmanager
def alone(path: Path, name: str) -> Iterator[None]:
    """Hold a lock that ends with the process, and say so if another process has it; a failure leaves no lock behind."""
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0.1)
    except Timeout:
        log.info("another process is preparing %s; waiting for it", name)
        lock.acquire()
    try:
        yield
    except BaseException:
        path.unlink(missing_ok=True)  # while it is held: who waits for it then finds that nothing is done
        raise
    finally:
        lock.release()


def _remove_empty(*folders: Path) -> None:
    for folder in folders:
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def _write(card: DatasetCard, found: Found, work: Path, holds_bytes: bool) -> None:
    """Write every unit that is not written yet, then what makes the folder a set."""
    plan = json.dumps({"format": FORMAT, "fingerprint": found.fingerprint, "holds_bytes": holds_bytes})
    plan_file = work / PLAN
    if not plan_file.is_file() or plan_file.read_text(encoding="utf-8") != plan:
        for stale in work.glob("part-*.arrow"):
            stale.unlink()
        with replacing(plan_file) as beside:
            beside.write_text(plan, encoding="utf-8")
    parts = [work / f"part-{number:05d}.arrow" for number in range(len(found.units))]
    _check_space(work, found, sum(part.stat().st_size for part in parts if part.is_file()), holds_bytes)
    log.info("preparing %s: %d images from %s", card.name, found.num_rows, found.where)
    with progress_bar() as progress, ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        task = progress.add_task(card.name, total=found.num_rows)
        for part, unit in zip(parts, found.units, strict=True):
            if not part.is_file():
                with replacing(part) as beside:
                    arrow_files.write_part(beside, unit.rows(), found, pool, holds_bytes)
            progress.advance(task, unit.num_rows)
    counts, num_bad = arrow_files.finish(found, work, parts)
    manifest = Manifest(
        format=FORMAT,
        card=card.name,
        card_digest=card_digest(card),
        source=found.where,
        fingerprint=found.fingerprint,
        holds_bytes=holds_bytes,
        classes=list(found.classes),
        is_multi_label=found.is_multi_label,
        counts=counts,
        num_bad=num_bad,
        num_bytes=found.num_bytes,
        stamps=list(found.stamps),
        parts=[part.name for part in parts],
        made=f"{datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds')} by workbench {__version__}",
    )
    with replacing(work / MANIFEST) as beside:
        beside.write_text(manifest.to_json(), encoding="utf-8")


def progress_bar() -> Progress:
    """Return a bar on standard error that counts pictures, shown on a terminal only."""
    console = Console(stderr=True)
    columns = TextColumn("preparing {task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def _check_space(work: Path, found: Found, done: int, holds_bytes: bool) -> None:
    needed = max(0, (found.num_bytes if holds_bytes else 1000 * found.num_rows) - done) + SPARE_BYTES
    free = shutil.disk_usage(work).free
    if free < needed:
        raise UserError.of(
            work.parent,
            f"{free / 1e9:.1f} GB free",
            f"{needed / 1e9:.1f} GB for {found.num_rows} images",
            f"free some space, or {REMEDY}",
        )


def _put_in_place(work: Path, place: Path) -> None:
    """Turn the work folder into the prepared set; an older one makes way."""
    old = place.with_name(f".{place.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if place.exists():
        place.rename(old)
    work.rename(place)
    _tidy(place)
    shutil.rmtree(old, ignore_errors=True)


def _tidy(place: Path) -> None:
    """Remove what only the work needed; after a kill in here the set is whole, and the next look removes the rest."""
    if (place / PLAN).is_file():
        shutil.rmtree(place / sources.FETCHED, ignore_errors=True)
        (place / PLAN).unlink()
