"""A sign of life on a terminal while a verb computes and prints nothing."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from rich.console import Console


@contextlib.contextmanager
def waiting(what: str, is_still: bool = False) -> Iterator[None]:
    """Say what is being done, with a moving sign, until it is done; nothing where standard error is no terminal.

    Args:
        what: As in `reading runs`.
        is_still: The words stand alone: the work is timed, or shows progress of its own. Else nothing inside may.
    """
    console = Console(stderr=True)
    if console.is_terminal and is_still:
        console.print(f"{what} ...", markup=False)
        yield
    elif console.is_terminal:
        with console.status(what):
            yield
    else:
        yield
