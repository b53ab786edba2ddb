"""Where a training loop looks whether a signal asked it to stop: at the end of each optimizer step."""

from __future__ import annotations

from typing import Any

import lightning

from workbench.training.interrupts import Stop
from workbench.training.monitor import LastCheckpoint


class StopAtStep(lightning.Callback):
    """Hands a signal's wish to `LastCheckpoint`, before which it stands, and says when there is a training loop.

    Args:
        stop: What signals have asked for.
        last: Writes and stops when its `stop_requested` is set.
    """

    def __init__(self, stop: Stop, last: LastCheckpoint):
        self.stop, self.last = stop, last

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Answer signals in order from here on, in place of Lightning's own handlers."""
        self.stop.listen()
        self.stop.is_training, self.stop.failed_step = True, None

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Hand on what was asked."""
        self.last.stop_requested |= self.stop.asked is not None

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Hand on what was asked, during a validation too."""
        self.last.stop_requested |= self.stop.asked is not None

    def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Let the writing take as long as it takes."""
        self.stop.calm()

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """No step comes any more: the next signal stops at once."""
        self.stop.is_training = False

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        """Stop now, if that was asked during the last validation: the finished state is written."""
        if self.stop.asked is not None:
            raise KeyboardInterrupt

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Note the training step that it happened in."""
        self.stop.is_training, self.stop.failed_step = False, trainer.global_step + 1 if trainer.training else None
