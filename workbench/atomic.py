"""Write a file whole or not at all: beside its place first, then synced and renamed; and say what a disk refuses."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from workbench.specs.errors import UserError

ELSEWHERE = "write elsewhere with track.runs_dir=DIR"


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a path to write to; on success it takes the place of `path`, on any failure it is removed.

    Args:
        path: The file to make or replace; its folder must exist.
    """
    beside = path.with_name(f".{path.name}.part")
    try:
        yield beside
        sync(beside)
        os.replace(beside, path)
        sync(path.parent)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def sync(path: Path) -> None:
    """Return when a file, or a folder's list of names, is on the disk and outlives a power failure."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system that has no such call for folders
            raise
    finally:
        os.close(number)


@contextlib.contextmanager
def disk_errors(where: Path, elsewhere: str = ELSEWHERE) -> Iterator[None]:
    """Turn what a disk refuses (no space, no permission) into a message that a user can act on.

    Args:
        where: The folder, for errors that name none.
        elsewhere: How to write to another place, as an instruction.

    Raises:
        UserError: In place of an OSError of these kinds.
    """
    try:
        yield
    except OSError as error:
        remedy = {
            28: f"free some space, or {elsewhere}",
            122: f"free some space within your quota, or {elsewhere}",
            13: f"get permission, or {elsewhere}",
            30: elsewhere,
            2: "make the folder first",
            21: "name a file",
            36: "choose a shorter name",
        }.get(error.errno or 0)
        if remedy is None and not isinstance(error, FileExistsError | NotADirectoryError):
            raise
        raise UserError.of(
            error.filename2 or error.filename or where,
            error.strerror or error,
            "a folder that can be written, with room",
            remedy or elsewhere,
        ) from error
