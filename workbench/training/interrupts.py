"""Ctrl-C: Lightning answers it with exit code 1 and deafness to the next one; here it stays a KeyboardInterrupt."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Turn Lightning's exit after Ctrl-C back into a KeyboardInterrupt, and let Ctrl-C work again afterwards."""
    try:
        yield
    except SystemExit as error:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, signal.default_int_handler)
        raise KeyboardInterrupt from error
