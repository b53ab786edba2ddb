"""Out of memory while training: what to lower; and where the recipe leaves the micro-batch open, lower it once."""

from __future__ import annotations

import dataclasses
import gc
import logging
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities.memory import is_oom_error

from workbench.specs.errors import UserError
from workbench.training import run_folder
from workbench.training.runtime import Runtime, divisors

log = logging.getLogger("workbench")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a GPU's or this machine's memory is out."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or is_oom_error(error)


def release() -> None:
    """Give back what nobody holds any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def what_to_lower(error: BaseException, more: str = "", is_training: bool = True) -> UserError:
    """Return the error for a user.

    Args:
        error: What PyTorch or Python said.
        more: What else is to be said of it.
        is_training: It happened in a training step.
    """
    said = next(iter(str(error).splitlines()), "") or type(error).__name__
    given = "; ".join(filter(None, ["out of memory", more, said[:200]]))
    training = "lower train.micro_batch_size (the effective batch stays), set model.recompute=true, or lower "
    remedy = training + "data.resolution" if is_training else "lower data.eval_resolution"
    return UserError.of("fit", given, "a step that fits in memory", remedy)


def lower_micro_batch(folder: Path, batch_size: int, step: int, error: BaseException) -> None:
    """Halve the micro-batch that a fit chose itself, in runtime.json, so that it can go on; once in a run.

    Args:
        folder: The run folder.
        batch_size: Effective.
        step: Where it failed, from 1.
        error: What was raised.

    Raises:
        UserError: It was lowered before, or cannot be.
    """
    kept: dict[str, Any] = run_folder.read_json(folder / run_folder.RUNTIME)
    chosen = Runtime(**kept["runtime"])
    if "lowered" in kept:
        earlier = kept["lowered"]
        more = f"the micro-batch was lowered before, from {earlier['from']} to {earlier['to']}"
        raise what_to_lower(error, more) from error
    size = next((size for size in divisors(batch_size) if size <= chosen.micro_batch_size // 2), None)
    if size is None:
        raise what_to_lower(error, "with one image at a time") from error
    kept["runtime"] = dataclasses.asdict(dataclasses.replace(chosen, micro_batch_size=size))
    kept["lowered"] = {"from": chosen.micro_batch_size, "to": size, "failed_step": step}
    kept["line"] += f"; out of memory in step {step}: {size} from the last checkpoint before it on"
    log.warning(
        "out of memory in step %d with %d images at a time: going on from the last checkpoint with %d. BatchNorm takes "
        "its statistics from %d images at a time from there on, which changes results a little",
        *(step, chosen.micro_batch_size, size, size),
    )
    run_folder.write_json(folder / run_folder.RUNTIME, kept)
