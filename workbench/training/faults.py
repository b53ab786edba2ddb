"""What can go wrong in a fit from outside, told in words; and what a fit can mend itself by going back a little."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from workbench.specs.errors import UserError
from workbench.training import out_of_memory, ranks, run_folder
from workbench.training.interrupts import Stop
from workbench.training.nan_capture import NotFinite

log = logging.getLogger("workbench")
Outcome = TypeVar("Outcome")
_WORKER_GONE = re.compile(r"DataLoader worker \(pid.*?(killed by signal: [^.]*|exited unexpectedly)", re.DOTALL)


def with_second_tries(
    attempt: Callable[[bool, int | None], Outcome], folder: Path, stop: Stop, batch_size: int | None
) -> Outcome:
    """Return what a fit returns; where that helps, go back to its last checkpoint and try again.

    - Numbers that are not finite somewhere in an interval: once more, looking at every micro-batch.
    - Out of memory in a step: once more with half the micro-batch, if the fit chose that itself.

    Of several processes none can go back alone: there it ends with the error.

    Args:
        attempt: Does the fit, given whether that is a second try, and the step that an earlier one failed by, if every
            micro-batch up to it is to be looked at.
        folder: The run folder.
        stop: Knows in which step the fit failed.
        batch_size: Effective, if the micro-batch is the fit's own choice; None if it is not to be lowered.

    Raises:
        UserError: What only the user can mend.
    """
    is_again, through = False, None
    try:
        while True:
            try:
                return attempt(is_again, through)
            except NotFinite as error:
                if error.is_exact or through is not None or ranks.size() > 1:
                    raise
                through = error.step
                log.warning("train/loss is %s: going back to find the step", error.problems[0].given)
            except (RuntimeError, MemoryError) as error:
                if not _can_mend(error, folder, stop, batch_size):
                    raise
            is_again = True
            out_of_memory.release()  # the error is gone by here, and with it what it held
    except (UserError, OSError) as error:
        if not isinstance(error, NotFinite) and (folder / run_folder.RECIPE).is_file():
            log.info("what is done is kept; once this is mended: python -m workbench fit --resume %s", folder)
        raise


def _can_mend(error: BaseException, folder: Path, stop: Stop, batch_size: int | None) -> bool:
    """Whether a second try may go well; raises what the user can mend."""
    if gone := _WORKER_GONE.search(str(error)):
        raise UserError.of(
            "a loader process",
            gone[1].strip(),
            "processes that live as long as the fit",
            "most often the system was out of memory and ended it: lower data.num_workers or data.batch_size, or in a "
            "container give it more shared memory (docker run --shm-size); then go on with fit --resume",
        ) from error
    if not out_of_memory.is_out_of_memory(error):
        return False
    if stop.failed_step is None:
        raise out_of_memory.what_to_lower(error, "while evaluating", is_training=False) from error
    if batch_size is None or ranks.size() > 1:
        raise out_of_memory.what_to_lower(error) from error
    out_of_memory.lower_micro_batch(folder, batch_size, stop.failed_step, error)
    return True
