"""Turn a recipe's values into a datamodule, a classifier and a Trainer.

Only here, in `recipe_numbers.py` and in `run.py`, `one_fit.py` is a recipe read.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning
import numpy as np

from workbench import card_files
from workbench.data import splits
from workbench.data.image_datamodule import ImageDataModule
from workbench.data.images import open_header, read_bytes
from workbench.models.weights import facts_of_weights
from workbench.specs.card import DatasetCard
from workbench.specs.compared import resolve_backbone
from workbench.specs.errors import UserError
from workbench.specs.recipe import Recipe
from workbench.specs.recipe_checks import check_recipe
from workbench.specs.rules import apply_rule
from workbench.specs.weights import Preprocessing
from workbench.training import interrupts, machine, rank_steps, recipe_numbers
from workbench.training.checkpoint_files import StraightToPlace
from workbench.training.classifier import EfficientNetClassifier

log = logging.getLogger("workbench")
_SAMPLED = 100
"""Pictures from whose headers `--plan` takes the size of a set that is not prepared yet."""

_AUGMENT_KEYS = (
    "crop",
    "min_crop_area",
    "max_crop_aspect",
    "flip",
    "policy",
    "num_ops",
    "magnitude",
    "cutout",
    "mixup_alpha",
    "cutmix_alpha",
    "mix_probability",
)


def preprocessing_for(recipe: Recipe) -> tuple[int, Preprocessing]:
    """Return (side of training crops, evaluation preprocessing) of a recipe."""
    base = facts_of_weights(recipe.model.weights, resolve_backbone(recipe.model.arch)).preprocessing
    resolution = recipe.data.resolution or base.crop
    crop, share = recipe.data.eval_resolution or resolution, recipe.data.eval_crop_share
    own = base.at(crop, recipe.data.eval_resize or (round(crop / share) if share else None))
    return own.crop if recipe.augment.crop == "center" else resolution, own


def settle(recipe: Recipe) -> Recipe:
    """Return a recipe without a rule: what `train.rule` leaves to the images is filled in, each value with its reason.

    Raises:
        UserError: The set cannot be had, or a value that was filled in contradicts another.
    """
    if recipe.train.rule == "none":
        return recipe
    card = card_files.card_for(recipe)
    data = build_data(recipe, card)
    settled, settings = apply_rule(recipe, len(data.rows(splits.TRAIN)), data.num_classes, native_size(data))
    for setting in settings:
        log.info("by rule %s: %s = %s: %s", recipe.train.rule, setting.key, json.dumps(setting.value), setting.reason)
    if problems := check_recipe(settled, card, f"{recipe.about.name}, by rule {recipe.train.rule}"):
        raise UserError(*problems)
    return settled


def native_size(data: ImageDataModule) -> int | None:
    """Return the median shorter side of the training pictures, pixels; of a rendered set, what its card says.

    Of a set that is only listed, it is that of `_SAMPLED` files, by their headers.
    """
    facts, rows = data.facts, data.rows(splits.TRAIN)
    if facts:
        return int(np.median(np.minimum(facts["width"], facts["height"])[rows]))
    sampled = [data.table.images[row] for row in rows[:: max(1, len(rows) // _SAMPLED)]]
    files = [path for path in sampled if isinstance(path, Path)]
    if not files:
        return data.card.native_pixels
    return int(np.median([min(open_header(read_bytes(path), path).size) for path in files]))


def build_data(recipe: Recipe, card: DatasetCard, preprocessing: Preprocessing | None = None) -> ImageDataModule:
    """Build the datamodule; a finished model brings its own preprocessing."""
    resolution, own = preprocessing_for(recipe)
    is_cheap = (card.native_pixels or 1000) <= 64  # small pictures decode faster than processes hand them over
    return ImageDataModule(
        recipe.data.root,
        card=card,
        path=recipe.data.path,
        preprocessing=preprocessing or own,
        resolution=resolution,
        batch_size=recipe.data.batch_size,
        micro_batch_size=recipe_numbers.micro_batch_of(recipe),
        augment={key: getattr(recipe.augment, key) for key in _AUGMENT_KEYS},
        train_on=recipe.data.train_on,
        holdout_fraction=recipe.data.holdout_fraction,
        train_fraction=recipe.data.train_fraction,
        allow_partial=recipe.data.allow_partial,
        on_bad_image=recipe.data.on_bad_image,
        download=recipe.data.download,
        prepared_root=recipe.data.prepared_root,
        num_workers=machine.choose_workers(recipe.data.num_workers, is_cheap),
        seed=recipe.train.seed,
        worker_init=_start_worker,
    )


def _start_worker(number: int) -> None:
    machine.keep_freed_memory()  # decoded pictures are such blocks
    interrupts.deaf()


def build_classifier(recipe: Recipe, data: ImageDataModule, lengths: recipe_numbers.Lengths) -> EfficientNetClassifier:
    """Build the classifier with its weights.

    Raises:
        UserError: Weights missing or of another architecture, or another number of classes than stated.
    """
    stated = recipe.model.num_classes
    if stated is not None and stated != data.num_classes:
        raise UserError.of(
            "model.num_classes",
            stated,
            f"{data.num_classes}, as found in the files",
            "remove model.num_classes",
        )
    classifier = EfficientNetClassifier(
        recipe.model.arch,
        data.num_classes,
        recipe.model.weights,
        recipe.model.head,
        task="multi_label" if data.is_multi_label else "single_label",
        classes=data.classes,
        preprocessing=dataclasses.asdict(data.preprocessing),
        label_smoothing=recipe.augment.label_smoothing,
        network=recipe_numbers.network_options(recipe, lengths.epoch_steps),
        optim={"name": recipe.optim.name, "momentum": recipe.optim.momentum, **recipe_numbers.group_options(recipe)},
        schedule=recipe_numbers.schedule_options(recipe, lengths.epoch_steps),
        phases=[dataclasses.asdict(phase) for phase in lengths.phases],
        frozen_bn=recipe.model.frozen_bn,
        channels_last=recipe.train.channels_last,
        seed=recipe.train.seed,
    )
    classifier.net.recompute = recipe.model.recompute
    if recipe.train.compile:
        machine.check_compiler(machine.accelerator(recipe.train.device))
        classifier.net.compile(dynamic=False)
    return classifier


def build_trainer(
    recipe: Recipe,
    lengths: recipe_numbers.Lengths | None,
    folder: Path,
    callbacks: Sequence[Any] = (),
    loggers: Sequence[Any] = (),
) -> lightning.Trainer:
    """Build the Trainer of a fit, or, without lengths, one that only evaluates."""
    device = machine.accelerator(recipe.train.device)
    fitting: dict[str, Any] = {}
    if lengths is not None:
        together = recipe_numbers.micro_batch_of(recipe) * recipe_numbers.processes_of(recipe)
        fitting = {
            "max_steps": lengths.total_steps,
            "max_epochs": -1,
            "accumulate_grad_batches": recipe.data.batch_size // together,
            "gradient_clip_val": recipe.optim.clip_norm,
            "check_val_every_n_epoch": lengths.validate_every_epochs,
            "log_every_n_steps": recipe.track.log_every_steps,
        }
    processes = rank_steps.trainer_options(recipe.train.strategy, recipe.train.num_nodes)
    return lightning.Trainer(
        accelerator=device,
        precision=machine.choose_precision(recipe.train.precision, device),
        default_root_dir=folder,
        callbacks=list(callbacks),
        logger=list(loggers) or False,
        plugins=[StraightToPlace(), *processes.pop("plugins", [])],
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **processes,
        **fitting,
    )
