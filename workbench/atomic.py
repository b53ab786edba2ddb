"""Write a file whole or not at all: beside its place first, then synced and renamed. Standard library only."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a path to write to; on success it takes the place of `path`, on any failure it is removed.

    Args:
        path: The file to make or replace; its folder must exist.
    """
    beside = path.with_name(f".{path.name}.part")
    try:
        yield beside
        with beside.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(beside, path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
