"""The run folder of a probe: the files that a fit leaves, and the probe's own findings under `probe`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from workbench.data.image_datamodule import ImageDataModule
from workbench.specs.metric_names import LOGGED, logged_name
from workbench.specs.published import published_for
from workbench.training import machine, results, run_folder, run_page
from workbench.training.classifier import EfficientNetClassifier
from workbench.training.metrics_csv import MetricsCsv
from workbench.training.results import SplitResult


def write_metrics(folder: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write metrics.csv: a row per strength, the strongest first; its number stands as the step.

    Args:
        folder: The run folder.
        rows: As in result.json's `probe.grid`.
    """
    table = MetricsCsv(folder / run_folder.METRICS, epoch_steps=1)
    for step, row in enumerate(sorted(rows, key=lambda row: -row["strength"]), 1):
        known = {logged_name("val", name): value for name, value in row.items() if f"val/{name}" in LOGGED}
        table.log_metrics({"phase": 0, **known}, step)


def write_result(
    folder: Path,
    data: ImageDataModule,
    classifier: EfficientNetClassifier,
    scored: tuple[SplitResult | None, SplitResult | None],
    told: Mapping[str, Any],
    *,
    device: str,
    has_model: bool,
) -> dict[str, Any]:
    """Write model, predictions, logits, page and, last, result.json.

    Args:
        folder: The run folder, with its first files and metrics.csv.
        data: The set.
        classifier: The model with the solved head.
        scored: Results on selection and on test, None where there is none.
        told: `recipe` (nested values), `environment`, `steps`, `seconds`, `openings` and `probe`.
        device: `gpu` or `cpu`.
        has_model: Whether the head belongs to the network's own last features, so that they make a model.

    Returns:
        The content of result.json: the keys of a fit's, and `probe`.
    """
    selection, test = scored
    recipe, arch = told["recipe"], classifier.net.scaling.name
    published = published_for(data.card.name, arch)
    embedding, solving = (told["probe"]["seconds"][name] for name in ("embedding", "solving"))
    images = sum(len(data.rows(split)) for split in ("train", "selection") + ("test",) * bool(test))
    result = {
        "recipe": recipe["about"]["name"],
        "arch": arch,
        "weights": recipe["model"]["weights"],
        "dataset": data.card.name,
        "metric": data.metric,
        "selection": selection and {**selection.scores(), "step": told["steps"]},
        "test": test and {**test.scores(), "openings": told["openings"]},
        "published": published and dataclasses.asdict(published),
        "stamps": list(data.table.stamps),
        "dropped": len(data.dropped),
        "source": data.source,
        "steps": told["steps"],
        "epochs": told["steps"],  # each looks at every embedding
        "images_per_second": round(images / max(embedding, 1e-3), 2),
        "train_seconds": round(solving, 1),
        "seconds": round(told["seconds"], 1),
        "peak_memory_bytes": machine.peak_memory_bytes(device),
        "seed": recipe["train"]["seed"],
        "probe": told["probe"],
    }
    if test is not None:
        results.write_predictions(folder / run_folder.PREDICTIONS, test, data)
    results.write_logits(folder / run_folder.LOGITS, selection, test)
    if has_model:
        parts = {"recipe": recipe, "result": dict(result), "environment": told["environment"]}
        classifier.provenance = parts
        classifier.save(folder)
    run_page.write_page(folder, result, test or selection, data, classifier if has_model else None)
    reason = "a probe is not tracked"
    result["tracking"] = {"mode": "off", "reason": reason, **dict.fromkeys(_OF_TRACKING)}
    run_folder.write_json(folder / run_folder.RESULT, result)
    return result


_OF_TRACKING = ("run_id", "url", "group", "job_type", "failed")
