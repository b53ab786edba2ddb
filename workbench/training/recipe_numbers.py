"""What a recipe's values come to: durations in steps, shares of a batch, the arguments of network and optimizer."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from workbench.specs.duration import steps_per_epoch, to_steps
from workbench.specs.recipe import Recipe
from workbench.specs.recipe_checks import phase_lengths
from workbench.training.averaging import half_life_decay
from workbench.training.schedules import PhasePlan


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
