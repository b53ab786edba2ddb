"""Score a finished run or model again: same images, same preprocessing, and test openings counted."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from workbench import recipe_files
from workbench.atomic import disk_errors
from workbench.data import splits
from workbench.data.doctor import leaked_rows
from workbench.data.image_datamodule import ImageDataModule
from workbench.models.portable import read_description
from workbench.specs.errors import UserError
from workbench.training import building, results, run_folder
from workbench.training.classifier import EfficientNetClassifier
from workbench.training.interrupts import interruptible

_OTHER_SETS = ("data.path=", "data.card=", "data.hub")


def evaluate(
    path: str | Path, split: str = splits.TEST, overrides: Sequence[str] = (), without_leaks: bool = False
) -> dict[str, Any]:
    """Score a finished run or portable model on one split of its dataset, or of another that `overrides` names.

    Args:
        path: A run folder or a model folder.
        split: `test` or `selection`.
        overrides: Changes to the model's own recipe, such as `data.root=DIR`.
        without_leaks: Also score without the images that a training image of this set is a copy of, or nearly.

    Returns:
        `{"model", "dataset", "split", "metric", "scores": {..., "n", "interval95"}, "test_openings", "stamps",
        "ids_sha256"}`, the last of the images and labels that were scored;
        with `without_leaks` also `"leaked"` (ids) and `"scores_without_leaks"`.

    Raises:
        UserError: No model there, no such images, or classes that are not the model's.
    """
    folder, description = read_description(path)
    stored = description["provenance"].get("recipe")
    if stored is None:
        raise UserError.of(
            folder,
            "a model without its recipe",
            "a model that `fit` wrote",
            "evaluate it from Python with a datamodule",
        )
    is_own_set = not any(text.removeprefix("--").startswith(_OTHER_SETS) for text in overrides)
    if without_leaks and not is_own_set:
        _refuse_leaks("another set than the run's own")
    loaded = recipe_files.load_layers([(str(folder / "model.json"), stored)], overrides, "unnamed")
    classifier = EfficientNetClassifier.load(folder)
    data = building.build_data(loaded.recipe, loaded.card, classifier.preprocessing)
    if data.classes != classifier.classes:
        odd = sorted(set(data.classes) ^ set(classifier.classes)) or ["the order"]
        raise UserError.of(
            f"dataset {data.card.name}",
            f"{data.num_classes} classes that are not the model's ({', '.join(odd[:5])})",
            f"the model's {len(classifier.classes)} classes",
            "evaluate on the set that the model was trained for",
        )
    if is_own_set:
        results.check_splits(folder, data)
    if without_leaks and not data.facts:
        _refuse_leaks("a rendered set")
    rows = data.rows(split)
    if not len(rows):
        raise UserError.of("evaluate", f"--split {split}", "a split that holds images", "choose the other split")
    openings = None
    if split == splits.TEST:
        with disk_errors(folder):
            openings = run_folder.record_test_opening(folder, "evaluate", len(rows))
    trainer = building.build_trainer(loaded.recipe, None, folder)
    with interruptible():
        result = results.run_split(trainer, classifier, data, split)
    evaluation = {
        "model": str(folder),
        "dataset": data.card.name,
        "split": split,
        "metric": data.metric,
        "scores": result.scores(),
        "test_openings": openings,
        "stamps": list(data.table.stamps),
        "ids_sha256": _images_digest(data, rows),
    }
    if without_leaks:
        leaked = leaked_rows(data.facts, data.rows(splits.TRAIN), rows)
        evaluation["leaked"] = [data.table.ids[row] for row in leaked]
        evaluation["scores_without_leaks"] = result.without(leaked).scores() if len(leaked) < len(rows) else None
    return evaluation


def _images_digest(data: ImageDataModule, rows: np.ndarray) -> str:
    """Return a hash of some rows' ids and labels, and of their files where the card does not count the set's images."""
    files = data.facts.get("sha256") if data.card.sizes.test is None else None
    told = [f"{data.table.ids[i]}\0{data.table.labels[i].tolist()}\0{files[i] if files else ''}\n" for i in rows]
    return hashlib.sha256("".join(sorted(told)).encode()).hexdigest()


def _refuse_leaks(given: str) -> None:
    allowed = "the set of files that the run trained on"
    raise UserError.of("evaluate", f"--without-leaks with {given}", allowed, "leave --without-leaks out")
