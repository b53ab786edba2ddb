"""Weights & Biases, through Lightning's logger: mode, config, tables and the model at the end."""

from __future__ import annotations

import netrc
import os
import time
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import WandbLogger

from workbench.data.image_datamodule import ImageDataModule
from workbench.data.images import load_image
from workbench.data.splits import TEST
from workbench.specs.errors import UserError
from workbench.specs.recipe import Track
from workbench.training.cam_pictures import map_sheet
from workbench.training.classifier import EfficientNetClassifier
from workbench.training.results import SplitResult

MOST_MISTAKES = 25
MOST_MAPS = 8


def choose_mode(wandb: str) -> tuple[str, str]:
    """Return (`online`, `offline` or `off`, the reason) for a recipe's `track.wandb`.

    `auto` follows WANDB_MODE if it is set, else goes online where a key is found.
    """
    if wandb != "auto":
        return wandb, "as the recipe says"
    mode = os.environ.get("WANDB_MODE")
    if mode:
        known = {"online": "online", "offline": "offline", "dryrun": "offline", "disabled": "off"}
        if mode not in known:
            raise UserError.of("WANDB_MODE", mode, ", ".join(known), "set one of these, or track.wandb")
        return known[mode], f"WANDB_MODE={mode}"
    if os.environ.get("WANDB_API_KEY"):
        return "online", "WANDB_API_KEY is set"
    try:
        if netrc.netrc().authenticators("api.wandb.ai"):
            return "online", "a key is in .netrc"
    except (OSError, netrc.NetrcParseError):
        pass  # no such file, or an unreadable one: then there is no key
    return "offline", "no API key; `wandb sync` sends it later"


def wandb_logger(track: Track, mode: str, folder: Path, recipe_name: str, config: dict[str, Any]) -> WandbLogger:
    """Open a W&B run.

    Args:
        track: The recipe's section.
        mode: `online` or `offline`.
        folder: Run folder; W&B's files go to `wandb/` in it.
        recipe_name: Default group.
        config: The resolved recipe, plain nested values.
    """
    import wandb

    settings = wandb.Settings(silent=True, console="off")
    logger = WandbLogger(
        name=folder.name,
        save_dir=folder,
        offline=mode == "offline",
        project=track.project,
        group=track.group or recipe_name,
        tags=track.tags or None,
        notes=track.notes,
        settings=settings,
    )
    # Lightning always passes this retired setting on, and W&B then warns on every run.
    getattr(logger, "_wandb_init", {}).pop("anonymous", None)
    try:
        logger.experiment.config.update(config, allow_val_change=True)
    except wandb.Error as error:
        raise UserError.of(
            "track.wandb", f"{mode}: {error}", "a W&B that answers", "run `wandb login`, or set track.wandb=offline"
        ) from error
    return logger


def log_result(
    logger: WandbLogger,
    scores: dict[str, dict[str, Any] | None],
    shown: SplitResult,
    data: ImageDataModule,
    classifier: EfficientNetClassifier,
) -> None:
    """Log the final scores, the confusion table, the most confident mistakes and what the classifier looks at.

    Args:
        logger: The open run.
        scores: Scores by split (`val`, `test`), or None for a split that was not evaluated.
        shown: The split that the tables are of.
        data: Gives names and pictures.
        classifier: As it was scored.
    """
    final = {
        f"{split}/{name}": value
        for split, found in scores.items()
        for name, value in (found or {}).items()
        if isinstance(value, float)
    }
    split = "test" if shown.split == TEST else "val"
    logger.experiment.summary.update(final)
    tables = {} if shown.is_multi_label else _tables(split, shown, data)
    logger.experiment.log({**final, **tables, f"{split}/maps": _maps(shown, data, classifier)})


def _maps(shown: SplitResult, data: ImageDataModule, classifier: EfficientNetClassifier) -> Any:
    """Return a sheet of class activation maps of pictures from all over the split."""
    import wandb

    step = max(1, len(shown.rows) // MOST_MAPS)
    pictures = [data.table.images[row] for row in shown.rows[::step][:MOST_MAPS].tolist()]
    return wandb.Image(map_sheet(classifier, pictures))


def _tables(split: str, shown: SplitResult, data: ImageDataModule) -> dict[str, Any]:
    """Return the confusion table and the most confident mistakes with their pictures."""
    import wandb

    counts, names = shown.confusion(), data.classes
    # W&B's own confusion plot writes a row per cell and cuts off beyond 100 classes: only cells that occur are sent.
    confusion = wandb.Table(columns=["actual", "predicted", "count"])
    for actual, predicted in zip(*counts.nonzero(), strict=True):
        confusion.add_data(names[actual], names[predicted], int(counts[actual, predicted]))
    mistakes = wandb.Table(columns=["image", "id", "actual", "predicted", "confidence"])
    for row, actual, predicted, confidence in shown.mistakes(MOST_MISTAKES):
        picture = load_image(data.table.images[row]).permute(1, 2, 0).numpy()
        mistakes.add_data(wandb.Image(picture), data.table.ids[row], names[actual], names[predicted], confidence)
    return {f"{split}/confusion": confusion, f"{split}/mistakes": mistakes}


def log_model(logger: WandbLogger, folder: Path) -> None:
    """Send the portable model as an artifact; for online runs."""
    import wandb

    artifact = wandb.Artifact(f"model-{logger.experiment.id}", type="model")
    for name in ("model.safetensors", "model.json", "recipe.yaml", "result.json"):
        artifact.add_file(str(folder / name))
    logger.experiment.log_artifact(artifact)


def finish(logger: WandbLogger | None, failed: bool) -> float:
    """Close the run, whatever happened; return the seconds it took."""
    began = time.perf_counter()
    if logger is not None and logger._experiment is not None:
        logger.experiment.finish(exit_code=int(failed))
    return time.perf_counter() - began
