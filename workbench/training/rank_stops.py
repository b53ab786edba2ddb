"""A stop that any of several processes was asked for ends all of them, and rank 0 tells it: SLURM asks in any order.

Which process was asked first, or at all, is chance. Only rank 0 has the job queued again, so it has to learn of it.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

from torch import distributed

from workbench.training.interrupts import Interrupted

WAIT_SECONDS = 5.0
"""How long rank 0 waits to hear why the others stop; they end at the same step, or have ended before."""


def leave_word(store: distributed.Store, rank: int, error: BaseException) -> None:
    """Let rank 0 know that this process ends, and if by a stop, by which; if rank 0 is still there."""
    told = None
    if isinstance(error, Interrupted):
        told = {"how": error.how, "folder": error.folder and str(error.folder), "by": error.by}
    try:
        store.set(_key(rank), json.dumps(told))
    except RuntimeError:
        return


def of_others(store: distributed.Store, size: int) -> Interrupted | None:
    """Return the stop that another process was asked for, None if none was; for rank 0.

    Args:
        store: What all processes can write to.
        size: How many there are.
    """
    until, waiting, found = time.monotonic() + WAIT_SECONDS, set(range(1, size)), None
    while waiting and time.monotonic() < until:
        for rank in sorted(waiting):
            if store.check([_key(rank)]):
                waiting.remove(rank)
                if told := json.loads(store.get(_key(rank))):
                    found = Interrupted(told["how"], told["folder"] and Path(told["folder"]), told["by"])
                if found is not None and found.by is not None:
                    return found
        time.sleep(0.02)
    return found


def _key(rank: int) -> str:
    return f"stopped/{rank}"
