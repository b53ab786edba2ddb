"""What a W&B run used and made, as artifacts with lineage: the dataset's splits, and the portable model."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from workbench.data.image_datamodule import ImageDataModule
from workbench.training import run_folder

UPLOAD_SECONDS = 600.0
"""How long the model may take: B7's 256 MB need 205 s at 10 Mbit/s."""


def artifact_name(kind: str, name: str) -> str:
    """Return a name of the letters that W&B allows."""
    return f"{kind}-{re.sub(r'[^A-Za-z0-9_.-]', '-', name)}"[:128]


def log_dataset(run: Any, folder: Path, data: ImageDataModule) -> None:
    """Say which images the run uses: the card and the ids of every split. The same content is the same version.

    Args:
        run: The open run. Online the dataset becomes its input; offline W&B can only note it as logged.
        folder: The run folder.
        data: Gives the card.
    """
    import wandb

    splits = run_folder.read_json(folder / run_folder.SPLITS)
    facts = {name: splits[name] for name in ("dataset", "train_on", "counts", "labels_sha256", "source", "stamps")}
    card = dataclasses.asdict(data.card)
    artifact = wandb.Artifact(
        artifact_name("dataset", data.card.name),
        type="dataset",
        description=data.card.title or None,
        metadata={**facts, "classes": data.num_classes, "dropped": len(splits["dropped"])},
    )
    artifact.add_file(str(folder / run_folder.SPLITS))
    with artifact.new_file("card.json", encoding="utf-8") as file:
        json.dump(card, file, indent=1, default=str)
    if run.offline:
        run.log_artifact(artifact)
    else:
        run.use_artifact(artifact)


def log_model(run: Any, folder: Path, result: dict[str, Any], aliases: Sequence[str]) -> None:
    """Send the portable model, and wait until it is there.

    Args:
        run: The open run.
        folder: The run folder.
        result: Its scores become the artifact's metadata.
        aliases: Beside W&B's own `latest`.
    """
    import wandb

    kept = ("recipe", "arch", "weights", "dataset", "metric", "selection", "test", "steps", "seed")
    artifact = wandb.Artifact(
        artifact_name("model", run.id), type="model", metadata={name: result[name] for name in kept}
    )
    for name in ("model.safetensors", "model.json", run_folder.RECIPE, run_folder.RESULT):
        artifact.add_file(str(folder / name))
    names = [re.sub(r"[^A-Za-z0-9_.-]", "-", alias) for alias in aliases]
    run.log_artifact(artifact, aliases=["latest", *names]).wait()
