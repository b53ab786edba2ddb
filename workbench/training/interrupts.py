"""Ctrl-C and SIGTERM: both end a fit as `Interrupted`, with what it has written left in order.

Lightning answers Ctrl-C with exit code 1 and deafness to the next one, and looks at SIGTERM only between batches.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType


class Interrupted(KeyboardInterrupt):
    """A stop that was asked for.

    Args:
        how: What happened, as in "stopped by SIGTERM".
        folder: The run folder that can be resumed, if there is one.
    """

    def __init__(self, how: str, folder: Path | None):
        super().__init__(how)
        self.how, self.folder = how, folder


@contextlib.contextmanager
def interruptible(folder: Path | None = None) -> Iterator[None]:
    """Raise `Interrupted` for Ctrl-C and SIGTERM, and let Ctrl-C work again afterwards.

    W&B's agents and sweeps stop a run by SIGTERM, and kill it 30 s later.

    Args:
        folder: The run folder that can be resumed, if there is one; who removes it has left nothing to resume.
    """
    is_main = threading.current_thread() is threading.main_thread()
    terminated = []

    def stop(number: int, frame: FrameType | None) -> None:
        if os.getpid() != owner:  # a loader process that inherited this: it just ends
            os._exit(128 + number)
        if not terminated:  # the second one would interrupt the tidying up
            terminated.append(number)
            raise KeyboardInterrupt

    owner = os.getpid()
    before = signal.signal(signal.SIGTERM, stop) if is_main else None
    try:
        yield
    except (SystemExit, KeyboardInterrupt) as error:
        if is_main:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        kept = folder if folder is not None and folder.is_dir() else None
        raise Interrupted("stopped by SIGTERM" if terminated else "interrupted", kept) from error
    finally:
        if is_main:
            signal.signal(signal.SIGTERM, before)
