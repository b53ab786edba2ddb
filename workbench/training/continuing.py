"""Going on with a stopped fit: which checkpoint is whole, and where Lightning's loops stand after so many steps.

The number of optimizer steps done says it all: epoch, place within it, phase, rate and every random number follow from
it. Lightning's own counts do not: after an epoch without a validation its loops train one batch too many (2.6.6), and
within an epoch they count batches that an iterator begins anew.
"""

from __future__ import annotations

import logging
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch

from workbench.specs.errors import UserError
from workbench.training import run_folder

log = logging.getLogger("workbench")


def last_step(folder: Path) -> int | None:
    """Return the optimizer steps that the newest whole checkpoint holds, None if there is no checkpoint.

    If last.ckpt is damaged or missing, previous.ckpt takes its place.

    Args:
        folder: The checkpoints of a run folder.

    Raises:
        UserError: All that is there is damaged.
    """
    last, previous = folder / run_folder.LAST, folder / run_folder.PREVIOUS
    found = [path for path in (last, previous) if path.is_file()]
    damage: list[str] = []
    for path in found:
        step, wrong = _read_step(path)
        if step is None:
            damage.append(f"{path.name}: {wrong}")
            continue
        if path == previous:
            state = f"is damaged ({damage[0]})" if damage else "is missing"
            log.warning("%s %s: going on from the one before it, of step %d", last, state, step)
            os.replace(previous, last)
        return step
    if found:
        raise UserError.of(
            folder, "; ".join(damage), "a whole checkpoint", f"remove {found[0]} to begin again from step 0 in this run"
        )
    return None


def _read_step(path: Path) -> tuple[int | None, str]:
    """Return (steps, "") of a whole checkpoint, else (None, what is wrong with it); all checksums are checked."""
    try:
        with zipfile.ZipFile(path) as archive:
            if wrong := archive.testzip():
                return None, f"{wrong} is not as it was written"
        content = torch.load(path, weights_only=True, map_location="cpu", mmap=True)
        return int(content["global_step"]), ""
    except (OSError, EOFError, ValueError, RuntimeError, LookupError, TypeError) as error:
        return None, str(error).strip().splitlines()[0]
    except (zipfile.BadZipFile, pickle.UnpicklingError) as error:
        return None, str(error).strip().splitlines()[0]


def place_loops(loops: dict[str, Any], step: int, epoch_steps: int, accumulate: int) -> dict[str, Any]:
    """Return the state of Lightning's fit loop at a step boundary, whatever a checkpoint says of it.

    Args:
        loops: `trainer.fit_loop.state_dict()` of a fit that has not begun.
        step: Optimizer steps done; at the end of an epoch its validation is done too.
        epoch_steps: Optimizer steps of an epoch.
        accumulate: Micro-batches per optimizer step of the fit that goes on, which may differ from the earlier one's.
    """
    epoch, within = divmod(step, epoch_steps)
    optimizer = loops["epoch_loop.automatic_optimization.optim_progress"]["optimizer"]
    for progress, total, current in (
        (loops["epoch_progress"], epoch, epoch),
        (loops["epoch_loop.batch_progress"], step * accumulate, within * accumulate),
        (loops["epoch_loop.scheduler_progress"], step, within),
        (optimizer["step"], step, within),
        (optimizer["zero_grad"], step, within),
    ):
        progress["total"] = dict.fromkeys(progress["total"], total)
        progress["current"] = dict.fromkeys(progress["current"], current)
    if within:
        for count in loops["epoch_progress"]["total"], loops["epoch_progress"]["current"]:
            count["ready"] = count["started"] = epoch + 1
    loops["epoch_loop.state_dict"]["_batches_that_stepped"] = step
    return loops
