"""Score a finished run or model again: same images, same preprocessing, and test openings counted."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning
import numpy as np

from workbench import recipe_files
from workbench.atomic import disk_errors
from workbench.data import splits
from workbench.data.doctor import leaked_rows
from workbench.data.image_datamodule import ImageDataModule
from workbench.models.portable import read_description
from workbench.overrides import SOURCE, recipe_keys
from workbench.recipe_files import LoadedRecipe
from workbench.specs.errors import Problem, UserError
from workbench.specs.recipe import Recipe
from workbench.specs.weights import Preprocessing
from workbench.training import building, machine, results, run_folder
from workbench.training.answers import set_to_answer
from workbench.training.classifier import EfficientNetClassifier
from workbench.training.interrupts import interruptible

_OTHER_SETS = ("data.path=", "data.card=", "data.hub")
_OF_PREPROCESSING = ("data.eval_resolution", "data.eval_resize", "data.eval_crop_share")
_ACTS_OF_TRAIN = ("device", "precision", "channels_last")
_IDLE_OF_DATA = ("batch_size", "resolution", "prepare", "prepare_side")
_ACTING = "data.root and other data keys, " + ", ".join(f"train.{name}" for name in _ACTS_OF_TRAIN)


def evaluate(
    path: str | Path, split: str = splits.TEST, overrides: Sequence[str] = (), without_leaks: bool = False
) -> dict[str, Any]:
    """Score a finished run or portable model on one split of its dataset, or of another that `overrides` names.

    Args:
        path: A run folder or a model folder.
        split: `test` or `selection`.
        overrides: Changes to the model's own recipe, such as `data.root=DIR`. Pictures are prepared as the model says,
            unless `data.eval_resolution`, `eval_resize` or `eval_crop_share` is among them.
        without_leaks: Also score without the images that a training image of this set is a copy of, or nearly.

    Returns:
        `{"model", "dataset", "split", "metric", "scores": {..., "n", "interval95"}, "test_openings", "stamps",
        "preprocessing", "own_preprocessing", "ids_sha256"}`: how pictures were prepared and how the model says, and a
        hash of the images and labels that were scored; with `without_leaks` also `"leaked"` (ids) and
        `"scores_without_leaks"`.

    Raises:
        UserError: No model there, no such images, classes that are not the model's, or a key that does nothing here.
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
    loaded = _loaded(str(folder / "model.json"), stored, overrides)
    classifier = EfficientNetClassifier.load(folder)
    own = classifier.preprocessing
    changed = [key for key in _OF_PREPROCESSING if loaded.sources.get(key) == SOURCE]
    preprocessing = _preprocessing(own, loaded.recipe) if changed else own
    data = building.build_data(loaded.recipe, loaded.card, preprocessing)
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
    trainer = _trainer_for(classifier, loaded.recipe, folder)
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
        "preprocessing": dataclasses.asdict(preprocessing),
        "own_preprocessing": dataclasses.asdict(own),
        "ids_sha256": _images_digest(data, rows),
    }
    if without_leaks:
        leaked = leaked_rows(data.facts, data.rows(splits.TRAIN), rows)
        evaluation["leaked"] = [data.table.ids[row] for row in leaked]
        evaluation["scores_without_leaks"] = result.without(leaked).scores() if len(leaked) < len(rows) else None
    return evaluation


def _loaded(where: str, stored: dict[str, Any], overrides: Sequence[str]) -> LoadedRecipe:
    """Return the model's recipe with changes, of which every one acts on an evaluation.

    Raises:
        UserError: Every mistake that was found.
    """
    idle, acting = [], []
    for text in overrides:
        section, _, name = (key := text.removeprefix("--").partition("=")[0]).partition(".")
        acts = name in _ACTS_OF_TRAIN if section == "train" else section == "data" and name not in _IDLE_OF_DATA
        if acts or key not in recipe_keys():
            acting.append(text)
        else:
            remedy = "say data.eval_resolution" if key == "data.resolution" else "leave it out"
            idle.append(Problem("evaluate", f"{key}, which only a fit acts on", _ACTING, remedy))
    try:
        loaded = recipe_files.load_layers([(where, stored)], acting, "unnamed")
    except UserError as error:
        raise UserError(*idle, *error.problems) from error
    is_stated = loaded.sources.get("train.channels_last") == SOURCE
    if is_stated and machine.accelerator(loaded.recipe.train.device) == "cpu":
        given = "train.channels_last, which only a GPU's answers depend on"
        idle.append(Problem("evaluate", given, _ACTING, "leave it out"))
    if idle:
        raise UserError(*idle)
    return loaded


def _preprocessing(own: Preprocessing, recipe: Recipe) -> Preprocessing:
    """Return the model's own preprocessing at the sizes that a recipe states; what it leaves open stays the model's."""
    crop, share = recipe.data.eval_resolution or recipe.data.resolution or own.crop, recipe.data.eval_crop_share
    made = own.at(crop, recipe.data.eval_resize or (round(crop / share) if share else None))
    if made.resize < made.crop:
        raise UserError.of(
            "data.eval_resize",
            f"{made.resize}, below the crop of {made.crop}",
            f"{made.crop} or more",
            "raise data.eval_resize or lower data.eval_resolution",
        )
    return made


def _trainer_for(classifier: EfficientNetClassifier, recipe: Recipe, folder: Path) -> lightning.Trainer:
    """Return the Trainer that scores a classifier, which is given its answering form."""
    device = machine.accelerator(recipe.train.device)
    precision = machine.choose_precision(recipe.train.precision, device)
    set_to_answer(classifier, device, precision, recipe.train.channels_last)
    return building.build_trainer(recipe, None, folder)


def _images_digest(data: ImageDataModule, rows: np.ndarray) -> str:
    """Return a hash of some rows' ids and labels, and of their files where the card does not count the set's images."""
    files = data.facts.get("sha256") if data.card.sizes.test is None else None
    told = [f"{data.table.ids[i]}\0{data.table.labels[i].tolist()}\0{files[i] if files else ''}\n" for i in rows]
    return hashlib.sha256("".join(sorted(told)).encode()).hexdigest()


def _refuse_leaks(given: str) -> None:
    allowed = "the set of files that the run trained on"
    raise UserError.of("evaluate", f"--without-leaks with {given}", allowed, "leave --without-leaks out")
