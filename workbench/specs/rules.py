"""Settings for a set that nobody has tuned, from the number of its images and classes and from their size. Pure.

A recipe asks for a rule by `train.rule`. What a layer as late as that one states itself, the rule leaves alone
(`train.rule_keeps`); the rest it fills in once the images are known. Sources: BiT's HyperRule (google-research/
big_transfer `bit_hyperrule.py` @140de6e), Kornblith et al. 2019, and where neither speaks a choice of this project.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from workbench.specs.duration import to_steps
from workbench.specs.recipe import EXCLUSIVE, Recipe

SMALL, LARGE = 20_000, 500_000
"""Images at which BiT's HyperRule changes its schedule."""
TINY_PIXELS = 96
"""Side below which it takes a smaller input."""


@dataclass(frozen=True)
class Setting:
    """One value that a rule sets.

    Args:
        key: Recipe key, `section.name`.
        value: Its value.
        reason: Why, with the source.
    """

    key: str
    value: Any
    reason: str


def rule_any(
    num_images: int,
    num_classes: int,
    native_size: int | None,
    batch_size: int | None = None,
    steps: int | None = None,
) -> list[Setting]:
    """Return settings around the AdamW recipe that was measured on Flowers (`recipes/flowers_b0_cpu.yaml`).

    Args:
        num_images: Training images.
        num_classes: Classes.
        native_size: Typical shorter side of the pictures, pixels; None: not known, taken for large.
        batch_size: Images per step where that is settled already; None: the rule chooses.
        steps: Length where that is settled already.
    """
    batch = batch_size or _fitting(32, num_images // 4)
    seen = {"small": 256_000, "middle": 5_120_000, "large": 10_240_000}[_size(num_images)]
    capped = min(seen, 100 * num_images)
    steps = steps or max(1, round(capped / batch))
    told = f"{num_images:,} images: BiT's {seen // 512:,} steps of 512 images"
    if capped < seen:
        told = f"{num_images:,} images: 100 epochs, a choice of this project, where BiT would take more"
    epoch_steps = max(1, num_images // batch)
    momentum = f"min(10 / {epoch_steps} steps per epoch, 0.1) = {min(10 / epoch_steps, 0.1):.3g} (Kornblith)"
    per_class = num_images / num_classes
    few, smooth = per_class < 20, steps >= 100
    return [
        Setting(
            "data.batch_size",
            batch,
            "32, where the recipe was measured; for fewer than 128 images about a quarter of them, 2 at least",
        ),
        Setting("train.total_steps", steps, f"{told}; {capped / num_images:.3g} epochs"),
        Setting("schedule.warmup_steps", steps // 20, "a twentieth of the steps, as in the recipe that was measured"),
        _resolution(native_size),
        _mixup(num_images),
        Setting(
            "train.ema_half_life_fraction",
            0.05 if smooth else None,
            "the share that was measured on Flowers" if smooth else f"{steps} steps are too few to average over",
        ),
        Setting(
            "model.dropout",
            0.5 if few else None,
            f"{per_class:.3g} images per class: "
            + ("fewer than 20, the most that the paper uses" if few else "the architecture's own")
            + "; a choice of this project",
        ),
        Setting("model.bn_momentum_by_epoch", True, momentum),
    ]


def rule_bit(
    num_images: int,
    num_classes: int,
    native_size: int | None,
    batch_size: int | None = None,
    steps: int | None = None,
) -> list[Setting]:
    """Return BiT's HyperRule; `recipes/protocols/bit_hyperrule.yaml` has what does not depend on the set.

    Args:
        num_images: Training images.
        num_classes: Classes; not used.
        native_size: Typical shorter side of the pictures, pixels; None: not known, taken for large.
        batch_size: Images per step where that is settled already; None: the rule chooses.
        steps: Length where that is settled already.
    """
    batch = batch_size or _fitting(512, num_images)
    warmup, *ends = {
        "small": (100, 200, 300, 400, 500),
        "middle": (500, 3000, 6000, 9000, 10_000),
        "large": (500, 6000, 12_000, 18_000, 20_000),
    }[_size(num_images)]
    steps, milestones = steps or ends[-1], [end / ends[-1] for end in ends[:-1]]
    micro = next((size for size in range(min(32, batch), 7, -1) if batch % size == 0), batch)  # BatchNorm needs some
    bounds = f"BiT's lengths change at {SMALL:,} and {LARGE:,}"
    is_tiny = native_size is not None and native_size < TINY_PIXELS
    resize, crop = (160, 128) if is_tiny else (512, 480)
    size = _told_size(native_size)
    listed = ", ".join(map(str, ends[:-1]))
    return [
        Setting("data.batch_size", batch, "BiT's 512" if batch == 512 else f"no more than {num_images:,} images"),
        Setting("train.micro_batch_size", micro, "accumulated to the batch: a choice of this project, for one GPU"),
        Setting("train.total_steps", steps, f"{num_images:,} images: {bounds}"),
        Setting(
            "schedule.warmup_steps", warmup * steps // ends[-1], f"{num_images:,} images: {warmup} of {ends[-1]:,}"
        ),
        Setting("schedule.milestones", milestones, f"a tenth after steps {listed} of {ends[-1]:,}"),
        _mixup(num_images),
        Setting(
            "data.resolution",
            crop,
            f"{size}: BiT takes {crop} of {resize} px, and the smaller input below {TINY_PIXELS} px",
        ),
        Setting("data.eval_crop_share", 1.0, "evaluated without a margin"),
        Setting(
            "augment.min_crop_area",
            round((crop / resize) ** 2, 4),
            f"{crop} of {resize} px, squared: BiT's crop as an area",
        ),
    ]


RULES: Mapping[str, Callable[..., list[Setting]]] = {"any": rule_any, "bit_hyperrule": rule_bit}


def _size(num_images: int) -> str:
    return "small" if num_images < SMALL else "middle" if num_images < LARGE else "large"


def _fitting(wanted: int, most: int) -> int:
    """Return `wanted`, or the greatest power of two up to `most`, but 2 at least: BatchNorm needs two."""
    return min(wanted, 2 ** max(1, most.bit_length() - 1))


def _told_size(native_size: int | None) -> str:
    if native_size is None:
        return f"pictures of unknown size, taken for {TINY_PIXELS} px or more"
    return f"pictures of {native_size} px"


def _resolution(native_size: int | None) -> Setting:
    if native_size is not None and native_size < TINY_PIXELS:
        reason = f"{_told_size(native_size)}: BiT's input for sides below {TINY_PIXELS}"
        return Setting("data.resolution", 128, reason)
    return Setting("data.resolution", None, f"{_told_size(native_size)}: the model's own input size (Kornblith)")


def _mixup(num_images: int) -> Setting:
    many = num_images >= SMALL
    reason = f"{num_images:,} images: BiT mixes from {SMALL:,} on"
    return Setting("augment.mixup_alpha", 0.1 if many else 0.0, reason)


def _partner(key: str) -> str | None:
    """Return the key that excludes this one."""
    section, name = key.split(".")
    for where, *pair in EXCLUSIVE:
        if where == section and name in pair:
            return f"{section}.{pair[1 - pair.index(name)]}"
    return None


def keep_stated(recipe: Recipe, stated: Mapping[str, int]) -> None:
    """Note in a recipe what its rule must leave alone.

    Args:
        recipe: Changed in place.
        stated: Dotted key -> number of the last layer that states it.
    """
    train = recipe.train
    if train.rule == "none":
        train.rule_keeps = None
        return
    if train.rule_keeps is None:
        kept = {key for key, layer in stated.items() if layer >= stated["train.rule"]}
    else:
        kept = {key for key, layer in stated.items() if layer > stated["train.rule_keeps"]} | set(train.rule_keeps)
    train.rule_keeps = sorted(key for key in filled_keys(train.rule) if {key, _partner(key)} & kept)


def filled_keys(rule: str) -> list[str]:
    """Return the keys that a rule sets; they do not depend on the set."""
    return [setting.key for setting in RULES[rule](1000, 10, 500)]


def open_keys(recipe: Recipe) -> list[str]:
    """Return the keys that are still to be filled in."""
    if recipe.train.rule == "none":
        return []
    return [key for key in filled_keys(recipe.train.rule) if key not in (recipe.train.rule_keeps or ())]


def _stated_steps(recipe: Recipe, epoch_steps: int) -> int | None:
    epochs, steps = recipe.train.total_epochs, recipe.train.total_steps
    return None if epochs is not None and steps is not None else to_steps(epochs, steps, epoch_steps)


def apply_rule(
    recipe: Recipe, num_images: int, num_classes: int, native_size: int | None
) -> tuple[Recipe, list[Setting]]:
    """Fill a recipe in.

    Args:
        recipe: Not changed.
        num_images: Training images.
        num_classes: Classes.
        native_size: Typical shorter side of the pictures, pixels, or None.

    Returns:
        A recipe without a rule, and what was set; the same recipe and nothing if it has no rule.
    """
    if recipe.train.rule == "none":
        return recipe, []
    filled, to_fill = copy.deepcopy(recipe), open_keys(recipe)
    batch = None if "data.batch_size" in to_fill else recipe.data.batch_size
    facts, rule = (num_images, num_classes, native_size), RULES[recipe.train.rule]
    batch = batch or next(s.value for s in rule(*facts) if s.key == "data.batch_size")
    steps = None if "train.total_steps" in to_fill else _stated_steps(recipe, max(1, num_images // batch))
    settings = [s for s in rule(*facts, batch, steps) if s.key in to_fill]
    for setting in settings:
        section, name = setting.key.split(".")
        part = getattr(filled, section)
        setattr(part, name, setting.value)
        if partner := _partner(setting.key):  # stated by a layer before the rule's: back to its default
            other = partner.split(".")[1]
            setattr(part, other, getattr(type(part), other))
    filled.train.rule, filled.train.rule_keeps = "none", None
    return filled, settings
