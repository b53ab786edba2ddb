"""What watches a fit step by step: rows of metrics, images/s, the stop on NaN, and checkpoints of the whole state."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import lightning
import torch

from workbench.atomic import replacing
from workbench.specs.errors import UserError


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
        self._micro_batches, self._from_step, self._clock = 0, 0, 0.0

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Begin an interval at the current step, which is not 0 after a restart."""
        self._begin(trainer.global_step)

    def _begin(self, step: int) -> None:
        self._sum, self._micro_batches, self._from_step = 0.0, 0, step

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Start the clock before the first batch is loaded: loading is counted, validation is not."""
        self._clock = time.perf_counter()

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Add a micro-batch, and write a row when an interval is full."""
        self._sum = self._sum + outputs["loss"].detach() * trainer.accumulate_grad_batches
        self._micro_batches += 1
        done = trainer.global_step - self._from_step
        complete = self._micro_batches == done * trainer.accumulate_grad_batches
        if complete and (done >= self.every or trainer.global_step >= trainer.max_steps > 0):
            self._close_interval(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Write a row for what an epoch leaves over."""
        if self._micro_batches:
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
        self.last_loss = float(self._sum) / self._micro_batches
        first, last = self._from_step + 1, trainer.global_step
        if not math.isfinite(self.last_loss):
            raise UserError.of(
                "train/loss",
                f"{self.last_loss} somewhere within steps {first} to {last}",
                "a finite number",
                "lower optim.lr, lengthen the warm-up, or set optim.clip_norm=1",
            )
        self.images += self._micro_batches * self.micro_batch_size * trainer.world_size
        self._stop_clock()
        self._clock = time.perf_counter()
        row = {
            "phase": pl_module.phase_number(last - 1),
            "train/loss": self.last_loss,
            "train/lr": pl_module.lr_factor(last - 1) * pl_module.base_lr,
        }
        for logger in trainer.loggers:
            logger.log_metrics(row, step=last)
        self._begin(last)

    @property
    def images_per_second(self) -> float:
        """Training images per second so far, without validation."""
        return self.images / self.seconds if self.seconds else 0.0

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {"images": self.images, "seconds": self.seconds, "elapsed": self.elapsed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore from a checkpoint."""
        self.images, self.seconds = state_dict["images"], state_dict["seconds"]
        self._earlier, self._began = state_dict["elapsed"], time.perf_counter()


class LastCheckpoint(lightning.Callback):
    """Writes the whole state at ends of epochs, the first one's too: a stopped fit goes on from there.

    Args:
        path: Where to.
        minutes: An epoch that ends so long after the last writing is followed by one in any case; so is the fit.
    """

    def __init__(self, path: Path, minutes: float = 1.0):
        self.path, self.minutes = path, minutes
        self._written, self._cost = time.monotonic(), 0.0

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Write if that takes at most a fiftieth of the time, or the interval has passed."""
        if time.monotonic() - self._written >= min(60 * self.minutes, 50 * self._cost):
            self.write(trainer)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Write the finished state."""
        self.write(trainer)

    def write(self, trainer: Any) -> None:
        """Write now."""
        began = time.monotonic()
        with replacing(self.path) as beside:
            trainer.save_checkpoint(beside)
        self._written = time.monotonic()
        self._cost = self._written - began
