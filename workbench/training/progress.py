"""One progress line for a whole fit: phase, loss, images/s, time left. Off a terminal, one line per validation."""

from __future__ import annotations

from typing import Any

import lightning
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from workbench.training.monitor import StepMonitor


class FitProgress(lightning.Callback):
    """Shows a fit's progress.

    Args:
        console: Where to.
        monitor: Gives loss and images/s.
        total_steps: Steps of the whole fit.
        metric: Selection score to show.
    """

    def __init__(self, console: Console, monitor: StepMonitor, total_steps: int, metric: str):
        self.console, self.monitor, self.total_steps, self.metric = console, monitor, total_steps, metric
        self._bar: Progress | None = None
        self._score = ""

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Show the bar, if there is a terminal."""
        if self.console.is_terminal:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.completed}/{task.total} steps"),
            )
            times = (TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
            self._bar = Progress(*columns, *times, console=self.console, transient=True)
            self._bar.start()
            self._task = self._bar.add_task("fit", total=self.total_steps, completed=trainer.global_step)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Move the bar."""
        if self._bar:
            phase, speed = pl_module.phase_number(trainer.global_step), self.monitor.images_per_second
            text = f"phase {phase}  loss {self._loss()}  {speed:.0f} images/s"
            self._bar.update(self._task, completed=trainer.global_step, description=text + self._score)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Say the selection score."""
        score = trainer.callback_metrics.get(f"val/{self.metric}")
        if score is None or trainer.sanity_checking or trainer.state.fn != "fit":
            return
        self._score = f"  val/{self.metric} {float(score):.4f}"
        if not self._bar:
            step, speed = trainer.global_step, self.monitor.images_per_second
            self.console.print(
                f"step {step}/{self.total_steps}  loss {self._loss()}{self._score}  {speed:.0f} images/s",
                highlight=False,
            )

    def _loss(self) -> str:
        loss = self.monitor.last_loss
        return f"{loss:.3f}" if loss == loss else "..."  # not a number until the first row is full

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Take the bar away."""
        if self._bar:
            self._bar.stop()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Take the bar away."""
        if self._bar:
            self._bar.stop()
