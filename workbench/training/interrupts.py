"""Ctrl-C, SIGTERM and SIGUSR1: each ends a fit as `Interrupted`, saved at the end of the step that it is in.

Lightning answers Ctrl-C with exit code 1 and deafness to the next one, looks at SIGTERM only between batches without
saving, and answers SIGUSR1 with a checkpoint of its own in the middle of a batch. `stopping.py` is where a training
loop looks at what was asked here.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

PATIENCE_SECONDS = 12.0
"""How long a step may take to end once a stop is asked for; W&B's agents and SLURM (KillWait) kill 30 s after it."""
_HOW = {
    signal.SIGINT: "interrupted",
    signal.SIGTERM: "stopped by SIGTERM",
    signal.SIGUSR1: "stopped by SIGUSR1",
}
_SAVING = b"\nsaving at the end of this step; ask once more to stop at once\n"


class Interrupted(KeyboardInterrupt):
    """A stop that was asked for.

    Args:
        how: What happened, as in "stopped by SIGTERM".
        folder: The run folder that can be resumed, if there is one.
        by: The signal's number, if it was one.
    """

    def __init__(self, how: str, folder: Path | None, by: int | None = None):
        super().__init__(how)
        self.how, self.folder, self.by = how, folder, by


class Stop:
    """What signals have asked for, and whether a training loop is there to do it in order.

    Outside a training loop the first signal raises KeyboardInterrupt; within one it waits for the step to end, the
    second one raises. After that only Ctrl-C does.
    """

    def __init__(self) -> None:
        self.asked: int | None = None
        self.is_training = False
        self.failed_step: int | None = None
        self._raised = False
        self._owner = os.getpid()
        self._before: dict[int, Any] = {}

    def listen(self) -> None:
        """Answer the signals from now on, in place of whoever else did; only the main thread can."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in (*_HOW, signal.SIGALRM):
            before = signal.getsignal(number)
            if number == signal.SIGINT and before == signal.SIG_IGN:
                continue  # as nohup and shells in the background want it
            if before != self._answer:
                self._before.setdefault(number, before)
                signal.signal(number, self._answer)

    def leave(self) -> None:
        """Give the signals back."""
        self.calm()
        for number, before in self._before.items():
            signal.signal(number, before)
        self._before = {}

    def calm(self) -> None:
        """Wait as long as it takes, from now on: what was asked for is being done."""
        if self._before:
            signal.setitimer(signal.ITIMER_REAL, 0)

    def _answer(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._owner:  # a process that inherited this: it just ends
            os._exit(128 + number)
        if self._raised and number != signal.SIGINT:  # it would interrupt the tidying up
            return
        is_first = self.asked is None
        if is_first:
            self.asked = number
        if is_first and self.is_training:
            os.write(2, _SAVING)  # print is not safe in here
            signal.setitimer(signal.ITIMER_REAL, PATIENCE_SECONDS)
            return
        self._raised = True
        raise KeyboardInterrupt


def deaf() -> None:
    """Let a loader process ignore the signals: whoever sends them to a whole job would end it before the fit has saved.

    It still ends when the process that it loads for tells it to, or is gone.
    """
    for number in _HOW:
        signal.signal(number, signal.SIG_IGN)


@contextlib.contextmanager
def interruptible(folder: Path | None = None) -> Iterator[Stop]:
    """Raise `Interrupted` for Ctrl-C, SIGTERM and SIGUSR1, and let Ctrl-C work again afterwards.

    Args:
        folder: The run folder that can be resumed, if there is one; who removes it has left nothing to resume.
    """
    stop = Stop()
    stop.listen()
    try:
        yield stop
    except (SystemExit, KeyboardInterrupt) as error:
        kept = folder if folder is not None and folder.is_dir() else None
        raise Interrupted(_HOW.get(stop.asked, "interrupted"), kept, stop.asked) from error
    finally:
        stop.leave()
