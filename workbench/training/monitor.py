"""What watches a fit step by step: rows of metrics, images/s, the stop on NaN, and checkpoints of the whole state."""

from __future__ import annotations

import functools
import math
import os
import time
from pathlib import Path
from typing import Any

import lightning
import torch

from workbench.atomic import replacing, sync
from workbench.training import ranks, run_folder
from workbench.training.continuing import place_loops
from workbench.training.nan_capture import NotFinite


class StepMonitor(lightning.Callback):
    """Logs the mean loss and the rate every few optimizer steps, and stops the fit when the loss is not finite.

    Args:
        every: Optimizer steps between rows.
        micro_batch_size: Images per micro-batch, for images/s.
    """

    def __init__(self, every: int, micro_batch_size: int):
        self.every, self.micro_batch_size = every, micro_batch_size
        self.images, self.seconds = 0, 0.0
        self._earlier, self._began = 0.0, time.perf_counter()
        self.last_loss = float("nan")
        self._sum: torch.Tensor | float = 0.0
        self._from_step, self._clock = 0, 0.0

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Start the clock: a fit that goes on within an epoch does not start that epoch."""
        self._clock = time.perf_counter()

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Start the clock before the first batch is loaded: loading is counted, validation is not."""
        self._clock = time.perf_counter()

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Add a micro-batch, and write a row when an interval is full."""
        self._sum = self._sum + outputs["loss"].detach()  # Lightning has divided it by the micro-batches of a step
        done = trainer.global_step - self._from_step
        if done >= self.every or (done and trainer.global_step >= trainer.max_steps > 0):
            self._close_interval(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Write a row for what an epoch leaves over."""
        if trainer.global_step > self._from_step:
            self._close_interval(trainer, pl_module)
        self._stop_clock()

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        """Stop the clock: validation is not training."""
        self._stop_clock()

    @property
    def elapsed(self) -> float:
        """Seconds since the fit began, over all its restarts."""
        return self._earlier + time.perf_counter() - self._began

    def _stop_clock(self) -> None:
        if self._clock:
            self.seconds += time.perf_counter() - self._clock
        self._clock = 0.0

    def _close_interval(self, trainer: Any, pl_module: Any) -> None:
        first, last = self._from_step + 1, trainer.global_step
        steps = last - self._from_step
        self.last_loss = float(ranks.averaged(self._sum)) / steps
        if not math.isfinite(self.last_loss):
            raise NotFinite.within(self.last_loss, first, last)
        self.images += steps * trainer.accumulate_grad_batches * self.micro_batch_size * trainer.world_size
        self._stop_clock()
        self._clock = time.perf_counter()
        row = {
            "phase": pl_module.phase_number(last - 1),
            "train/loss": self.last_loss,
            "train/lr": pl_module.lr_factor(last - 1) * pl_module.base_lr,
        }
        for logger in trainer.loggers:
            logger.log_metrics(row, step=last)
        self._sum, self._from_step = 0.0, last

    @property
    def images_per_second(self) -> float:
        """Training images per second so far, without validation."""
        return self.images / self.seconds if self.seconds else 0.0

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        told = {"images": self.images, "seconds": self.seconds, "elapsed": self.elapsed, "last_loss": self.last_loss}
        return {**told, "sum": float(ranks.averaged(self._sum)), "from_step": self._from_step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore from a checkpoint."""
        self.images, self.seconds = state_dict["images"], state_dict["seconds"]
        self._earlier, self._began = state_dict["elapsed"], time.perf_counter()
        self._sum, self._from_step = state_dict["sum"], state_dict["from_step"]
        self.last_loss = state_dict["last_loss"]


class LastCheckpoint(lightning.Callback):
    """Writes the whole state at ends of epochs and, by time, within them: a stopped fit goes on from there.

    Set `stop_requested`, from a signal handler too, and the fit writes at its next step boundary and is interrupted.

    Args:
        path: Where to. The checkpoint before it stands beside it as previous.ckpt until `forget_previous`.
        epoch_steps: Optimizer steps of an epoch.
        minutes: Most minutes between checkpoints, but for a validation.
    """

    def __init__(self, path: Path, epoch_steps: int, minutes: float = 10.0):
        self.path, self.epoch_steps, self.minutes = path, epoch_steps, minutes
        self.previous = path.with_name(run_folder.PREVIOUS)
        self.stop_requested = False
        self._written, self._written_step, self._cost = time.monotonic(), 0, 0.0
        self._step, self._validating, self._validation = 0, 0.0, 0.0

    def on_load_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Put Lightning's loops where the checkpoint's step is."""
        self._step = self._written_step = checkpoint["global_step"]
        loops = trainer.fit_loop.state_dict()
        placed = place_loops(loops, self._step, self.epoch_steps, trainer.accumulate_grad_batches)
        checkpoint["loops"]["fit_loop"] = placed

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Write within an epoch if the time has come; what is left of a step is not repeated, so only between steps."""
        step = trainer.global_step
        if step == self._step:
            return
        self._step = step
        left = -step % self.epoch_steps
        if left and step < trainer.max_steps:  # else the end of the epoch follows, after its validation
            ahead = self._validation if left == 1 else 0.0  # a validation cannot be gone on with
            self._write_if(trainer, self._since() + ahead >= 60 * self.minutes)

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        """Measure how long a validation takes."""
        self._validating = time.monotonic()

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Measure how long a validation takes."""
        self._validation = time.monotonic() - self._validating

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Write if that takes at most a fiftieth of the time, or a minute has passed."""
        self._write_if(trainer, self._since() >= min(60 * self.minutes, 60.0, 50 * self._cost))

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Write the finished state, if the end of an epoch has not done so."""
        if self._written_step != trainer.global_step:
            self.write(trainer)

    def _since(self) -> float:
        return time.monotonic() - self._written

    def _write_if(self, trainer: Any, is_due: bool) -> None:
        """Write, on all ranks or none, and end the fit if that was asked for."""
        any_rank = functools.partial(trainer.strategy.reduce_boolean_decision, all=False)
        if any_rank(is_due or self.stop_requested):
            self.write(trainer)
            if any_rank(self.stop_requested):
                raise KeyboardInterrupt

    def write(self, trainer: Any) -> None:
        """Write now; safe between two optimizer steps, and after the validation that follows one."""
        began, step = time.monotonic(), trainer.global_step
        weights = [parameter.detach().isfinite().all() for parameter in trainer.lightning_module.parameters()]
        is_broken = not bool(torch.stack(weights).all())
        if trainer.strategy.reduce_boolean_decision(is_broken, all=False):  # what can be gone on with stays
            raise NotFinite.within(math.nan, self._written_step + 1, step)
        for logger in trainer.loggers:
            logger.save()  # rows up to this step are on the disk before the checkpoint that takes them for granted
        if trainer.is_global_zero:
            with replacing(self.path) as beside:
                trainer.save_checkpoint(beside)
                sync(beside)
                if self.path.is_file():
                    os.replace(self.path, self.previous)
        else:
            trainer.save_checkpoint(self.path)  # takes part in gathering; the first rank alone writes
        self._written, self._written_step = time.monotonic(), step
        self._cost = self._written - began

    def forget_previous(self) -> None:
        """Remove the checkpoint before the last one."""
        self.previous.unlink(missing_ok=True)
