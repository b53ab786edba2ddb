"""Turn a recipe's values into a datamodule, a classifier and a Trainer. Only here and in `run.py` is a recipe read."""

from __future__ import annotations

import dataclasses
import json
import logging
import math
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
from workbench.specs.duration import steps_per_epoch, to_steps
from workbench.specs.errors import UserError
from workbench.specs.recipe import Recipe
from workbench.specs.recipe_checks import check_recipe, phase_lengths
from workbench.specs.rules import apply_rule
from workbench.specs.weights import Preprocessing
from workbench.training import interrupts, machine, rank_steps
from workbench.training.averaging import half_life_decay
from workbench.training.checkpoint_files import StraightToPlace
from workbench.training.classifier import EfficientNetClassifier
from workbench.training.schedules import PhasePlan

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


@dataclasses.dataclass(frozen=True)
class Lengths:
    """A fit in steps.

    Args:
        epoch_steps: Steps of one epoch.
        total_steps: Steps of the fit.
        phases: Its parts.
        validate_every_epochs: Epochs between evaluations on the selection split.
    """

    epoch_steps: int
    total_steps: int
    phases: tuple[PhasePlan, ...]
    validate_every_epochs: int


def lengths_of(recipe: Recipe, num_images: int) -> Lengths:
    """Convert a recipe's durations for a training split of `num_images`.

    Raises:
        UserError: Less than one batch, or phases that do not add up.
    """
    epoch_steps = steps_per_epoch(num_images, recipe.data.batch_size)
    total = max(1, to_steps(recipe.train.total_epochs, recipe.train.total_steps, epoch_steps))
    steps = phase_lengths(recipe, total, epoch_steps)
    stated = [(phase.train, phase.lr) for phase in recipe.train.phases] or [("all", None)]
    phases = tuple(
        PhasePlan(train, count, recipe.optim.lr if lr is None else lr)
        for (train, lr), count in zip(stated, steps, strict=True)
    )
    epochs = math.ceil(total / epoch_steps)
    return Lengths(epoch_steps, total, phases, math.ceil(epochs / recipe.train.num_validations))


def processes_of(recipe: Recipe) -> int:
    """Return how many processes train together."""
    return recipe.train.devices * recipe.train.num_nodes


def micro_batch_of(recipe: Recipe) -> int:
    """Return the images per forward pass of a process: as stated, or its share of the batch where that is open."""
    stated = recipe.train.micro_batch_size
    return stated if isinstance(stated, int) else max(1, recipe.data.batch_size // processes_of(recipe))


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
        micro_batch_size=micro_batch_of(recipe),
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


def build_classifier(recipe: Recipe, data: ImageDataModule, lengths: Lengths) -> EfficientNetClassifier:
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
        network=network_options(recipe, lengths.epoch_steps),
        optim={"name": recipe.optim.name, "momentum": recipe.optim.momentum, **group_options(recipe)},
        schedule=schedule_options(recipe, lengths.epoch_steps),
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


def group_options(recipe: Recipe) -> dict[str, Any]:
    """Return the arguments of `parameter_groups` that a recipe states."""
    optim = recipe.optim
    stated = {key: getattr(optim, key) for key in ("lr", "decay_exclude", "layer_decay", "head_lr_scale")}
    over_lr = optim.weight_decay_times_lr
    return {**stated, "weight_decay": optim.weight_decay if over_lr is None else over_lr / optim.lr}


def network_options(recipe: Recipe, epoch_steps: int) -> dict[str, Any]:
    """Return the arguments of `EfficientNet` that a recipe states."""
    options: dict[str, Any] = {"dropout": recipe.model.dropout}
    for key in ("drop_path", "bn_momentum", "bn_eps", "padding"):
        if getattr(recipe.model, key) is not None:
            options[key] = getattr(recipe.model, key)
    if recipe.model.bn_momentum_by_epoch:
        # The rule is per optimizer step; micro-batches update the statistics several times a step, each by less.
        share = micro_batch_of(recipe) * processes_of(recipe) / recipe.data.batch_size
        options["bn_momentum"] = 1 - (1 - min(10 / epoch_steps, 0.1)) ** share
    return options


def schedule_options(recipe: Recipe, epoch_steps: int) -> dict[str, Any]:
    """Return the arguments of `rate_factor` that a recipe states."""
    schedule = recipe.schedule
    return {
        "name": schedule.name,
        "warmup_steps": to_steps(schedule.warmup_epochs, schedule.warmup_steps, epoch_steps),
        "final_lr_fraction": schedule.final_lr_fraction,
        "decay_rate": schedule.decay_rate,
        "decay_steps": schedule.decay_epochs * epoch_steps,
        "milestones": schedule.milestones,
    }


def ema_decay(recipe: Recipe, total_steps: int) -> float | None:
    """Return the average's decay per step, or None if it is off."""
    if recipe.train.ema_half_life_fraction is not None:
        return half_life_decay(recipe.train.ema_half_life_fraction * total_steps)
    return recipe.train.ema_decay


def build_trainer(
    recipe: Recipe,
    lengths: Lengths | None,
    folder: Path,
    callbacks: Sequence[Any] = (),
    loggers: Sequence[Any] = (),
) -> lightning.Trainer:
    """Build the Trainer of a fit, or, without lengths, one that only evaluates."""
    device = machine.accelerator(recipe.train.device)
    fitting: dict[str, Any] = {}
    if lengths is not None:
        fitting = {
            "max_steps": lengths.total_steps,
            "max_epochs": -1,
            "accumulate_grad_batches": recipe.data.batch_size // micro_batch_of(recipe) // processes_of(recipe),
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
