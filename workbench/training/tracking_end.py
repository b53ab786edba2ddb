"""What W&B is sent at the end of a run that is complete on disk already."""

from __future__ import annotations

from typing import Any

from workbench.data.image_datamodule import ImageDataModule
from workbench.training import tracking_artifacts, tracking_tables
from workbench.training.classifier import EfficientNetClassifier
from workbench.training.results import SplitResult
from workbench.training.tracking import TRIAL, Tracking


def tell(
    tracking: Tracking,
    result: dict[str, Any],
    epoch_steps: int,
    shown: tuple[SplitResult | None, ImageDataModule, EfficientNetClassifier],
    pick: str,
) -> None:
    """Send scores, tables and, unless it is a trial, the model.

    Args:
        tracking: The run.
        result: The content of result.json.
        epoch_steps: Optimizer steps of one epoch.
        shown: What the tables are made of: outputs on a split, its set, the model.
        pick: `best` or `last`, an alias of the model.
    """
    split, data, _ = shown
    tracking.attempt("the scores", tracking_tables.log_scores, result, epoch_steps)
    if split is not None:
        seconds = tracking_tables.MOST_SECONDS
        if not tracking.attempt("the final tables", tracking_tables.log_tables, *shown, seconds=seconds):
            return
    if tracking.mode == "online" and tracking.job_type != TRIAL:
        aliases = [pick, data.card.name] + (["final"] if tracking.job_type == "final" else [])
        seconds = tracking_artifacts.UPLOAD_SECONDS
        tracking.attempt("the model", tracking_artifacts.log_model, tracking.folder, result, aliases, seconds=seconds)
