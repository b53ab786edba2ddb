"""How rows reach W&B, and how a run folder remembers which W&B run it is."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from workbench.specs.confidential import without_secrets
from workbench.training import run_folder


@dataclasses.dataclass(frozen=True)
class RowPositions:
    """What a step is in epochs and images, the axes that runs of other batch sizes can be compared on."""

    epoch_steps: int
    batch_size: int

    def of(self, step: int) -> dict[str, float]:
        """Return the position of a row, `step` optimizer steps after the start."""
        return {"epoch": step / self.epoch_steps, "images_seen": step * self.batch_size}


class QuietWandbLogger(WandbLogger):
    """Lightning's logger, with each row's epoch and images, and deaf to W&B's failures.

    Args:
        rows: Turns a step into the axes.
        failed: Called with the error when rows cannot be handed over; no more are after that.
        options: Passed on to `WandbLogger`.
    """

    def __init__(self, rows: RowPositions, failed: Callable[[Exception], None], **options: Any):
        super().__init__(**options)
        self._rows, self._failed, self._deaf = rows, failed, False
        # Lightning always passes this retired setting on, and W&B then warns on every run.
        self._wandb_init.pop("anonymous", None)

    @rank_zero_only
    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing: the config is the recipe."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Hand a row over."""
        if self._deaf:
            return
        try:
            super().log_metrics({**metrics, **(self._rows.of(step) if step is not None else {})}, step)
        except Exception as error:  # whatever a remote service can do
            self._deaf = True
            self._failed(error)


@contextlib.contextmanager
def arguments_without_secrets() -> Iterator[None]:
    """Hide secrets among this process's arguments: W&B copies them into its files when a run opens."""
    given = sys.argv[1:]
    sys.argv[1:] = map(without_secrets, given)
    try:
        yield
    finally:
        sys.argv[1:] = given


class WandbIdentity(lightning.Callback):
    """Keeps the W&B run's identity in checkpoints, beside the wandb.json of the run folder."""

    def __init__(self) -> None:
        self.identity: dict[str, Any] = {}

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return self.identity


def known_identity(folder: Path) -> dict[str, Any]:
    """Return the identity that a run has had so far: from wandb.json, else from the last checkpoint, else nothing."""
    found = run_folder.read_own(folder / run_folder.WANDB, dict)
    last = folder / run_folder.CHECKPOINTS / run_folder.LAST
    if found is None and last.is_file():
        kept = torch.load(last, weights_only=True, map_location="cpu", mmap=True)["callbacks"]
        found = kept.get(WandbIdentity.__name__)
    return found or {}
