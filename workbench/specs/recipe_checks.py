"""Checks across a recipe's keys, and against its dataset card: what no single key can know. No torch, no I/O."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Iterator

from workbench.specs.card import DatasetCard
from workbench.specs.compared import FAMILIES, ComparedArch, option_problems, resolve_backbone, stage_names
from workbench.specs.compared_weights import backbone_facts
from workbench.specs.confidential import without_secrets
from workbench.specs.duration import steps_per_epoch, to_steps
from workbench.specs.errors import Problem, UserError
from workbench.specs.process_checks import process_problems
from workbench.specs.recipe import Recipe
from workbench.specs.rules import apply_rule, open_keys
from workbench.specs.weights import is_file


def check_recipe(recipe: Recipe, card: DatasetCard | None, source: str) -> list[Problem]:
    """Return every contradiction in a recipe.

    Args:
        recipe: Values already of the right type and range.
        card: Its dataset card, or None if that could not be read (then reported elsewhere).
        source: Name of the recipe, for the messages.
    """
    data = recipe.data
    shares = data.holdout_fraction, data.train_fraction
    num_images = card.training_images(data.train_on, *shares) if card else None
    if num_images is not None and card.num_classes is not None:
        recipe, _ = apply_rule(recipe, num_images, card.num_classes, card.native_pixels)
    lengths = list(_lengths(recipe))
    found = [*_model(recipe), *lengths, *_numbers(recipe), *_credentials(recipe)]
    if card is not None:
        found += [*_source(recipe, card), *_classes(recipe, card)]
        if num_images is not None and not recipe.data.allow_partial and not lengths:
            found += _against_size(recipe, num_images)
    return [Problem(f"{source}: {where}", *parts) for where, *parts in found]


def check_data(recipe: Recipe, card: DatasetCard, source: str) -> list[Problem]:
    """Return every contradiction between a recipe's `data` and its card."""
    return [Problem(f"{source}: {where}", *parts) for where, *parts in (*_source(recipe, card), *_credentials(recipe))]


_Found = Iterator[tuple[str, str, str, str]]


def _from_error(error: UserError | list[Problem]) -> _Found:
    for problem in error.problems if isinstance(error, UserError) else error:
        yield problem.where, problem.given, problem.allowed, problem.remedy


def _model(recipe: Recipe) -> _Found:
    try:
        backbone = resolve_backbone(recipe.model.arch)
    except UserError as error:
        yield from _from_error(error)
        return
    weights = recipe.model.weights
    if weights is not None and not is_file(weights):
        try:
            backbone_facts(weights, backbone)
        except UserError as error:
            yield from _from_error(error)
    if isinstance(backbone, ComparedArch):
        yield from _compared(recipe, backbone)
    if recipe.model.bn_momentum is not None and recipe.model.bn_momentum_by_epoch:
        yield (
            "model.bn_momentum",
            f"{recipe.model.bn_momentum} together with bn_momentum_by_epoch=true",
            "one of the two",
            "set model.bn_momentum=null or model.bn_momentum_by_epoch=false",
        )


def _compared(recipe: Recipe, backbone: ComparedArch) -> _Found:
    yield from _from_error(option_problems(backbone.name, recipe.model.drop_path, recipe.model.padding))
    if recipe.model.recompute:
        given = f"true with model.arch={backbone.name}"
        yield "model.recompute", given, "false: only EfficientNets have it", "set model.recompute=false"
    smallest = FAMILIES[backbone.family].smallest
    for key in ("resolution", "eval_resolution"):
        if (getattr(recipe.data, key) or smallest) < smallest:
            given = f"{getattr(recipe.data, key)} with model.arch={backbone.name}"
            yield f"data.{key}", given, f"{smallest} or more", f"raise data.{key}, or take another model.arch"


def _lengths(recipe: Recipe) -> _Found:
    train, schedule = recipe.train, recipe.schedule
    given = f"total_epochs={train.total_epochs}, total_steps={train.total_steps}"
    if "train.total_steps" in open_keys(recipe):
        pass  # a rule gives the length, once the images are known
    elif (train.total_epochs is None) == (train.total_steps is None):
        yield (
            "train.total_epochs",
            given,
            "exactly one of train.total_epochs and train.total_steps",
            "set one and leave the other null",
        )
    elif not (train.total_epochs or train.total_steps):
        yield "train.total_epochs", given, "more than 0", "give the fit a length"
    yield from _milestones(recipe)
    if schedule.warmup_epochs is not None and schedule.warmup_steps is not None:
        yield (
            "schedule.warmup_epochs",
            f"warmup_epochs={schedule.warmup_epochs}, warmup_steps={schedule.warmup_steps}",
            "at most one of the two",
            "set one of them to null",
        )
    if train.ema_decay is not None and train.ema_half_life_fraction is not None:
        yield (
            "train.ema_decay",
            f"ema_decay={train.ema_decay}, ema_half_life_fraction={train.ema_half_life_fraction}",
            "at most one of the two",
            "set one of them to null",
        )
    stages: tuple[str, ...] = ()
    with contextlib.suppress(UserError):  # then the architecture is reported already
        stages = stage_names(resolve_backbone(recipe.model.arch))
    for number, phase in enumerate(train.phases):
        last = number == len(train.phases) - 1
        where = f"train.phases[{number}]"
        if stages and phase.train not in ("all", *stages):
            yield (
                f"{where}.train",
                phase.train,
                "all, " + ", ".join(stages),
                "name the first stage to train",
            )
        if phase.epochs is not None and phase.steps is not None:
            yield where, f"epochs={phase.epochs}, steps={phase.steps}", "one of the two", "remove one"
        if not last and phase.epochs is None and phase.steps is None:
            yield (
                where,
                "no length",
                "epochs or steps for every phase but the last",
                "give this phase a length",
            )


def _milestones(recipe: Recipe) -> _Found:
    shares = recipe.schedule.milestones
    is_missing = recipe.schedule.name == "steps" and not shares and "schedule.milestones" not in open_keys(recipe)
    if is_missing or sorted(set(shares)) != shares or (shares and not 0 < shares[0] <= shares[-1] < 1):
        allowed = "rising shares of the phase, between 0 and 1"
        yield "schedule.milestones", str(shares), allowed, "write them as in [0.4, 0.6, 0.8]"


def _numbers(recipe: Recipe) -> _Found:
    batch, micro = recipe.data.batch_size, recipe.train.micro_batch_size
    if isinstance(micro, int) and batch % micro:
        divisors = ", ".join(str(n) for n in range(1, min(batch, 512) + 1) if batch % n == 0)
        yield (
            "train.micro_batch_size",
            str(micro),
            f"a divisor of data.batch_size={batch}: {divisors}",
            "choose a divisor, so that every step sees the whole effective batch",
        )
    yield from process_problems(recipe)
    if not re.fullmatch(r"[\w.-]*", recipe.about.name) or recipe.about.name in (".", ".."):
        yield "about.name", recipe.about.name, "letters, digits, . _ -", "choose a name that can be a folder's"
    for kind in recipe.optim.decay_exclude:
        if kind not in ("norm", "bias"):
            yield "optim.decay_exclude", kind, "norm, bias", "name parameter kinds"
    crop, resize = recipe.data.eval_resolution or recipe.data.resolution, recipe.data.eval_resize
    if crop is None:
        with contextlib.suppress(UserError):  # then the architecture or the weights are reported already
            crop = backbone_facts(recipe.model.weights, resolve_backbone(recipe.model.arch)).preprocessing.crop
    if resize is not None and recipe.data.eval_crop_share is not None:
        yield (
            "data.eval_crop_share",
            f"{recipe.data.eval_crop_share} together with eval_resize={resize}",
            "one of the two",
            "set data.eval_crop_share=null or data.eval_resize=null",
        )
    if crop and resize and resize < crop:
        yield (
            "data.eval_resize",
            f"{resize}, smaller than the evaluation crop of {crop}",
            f"{crop} or more",
            "raise data.eval_resize or lower data.eval_resolution",
        )
    if recipe.optim.weight_decay and recipe.optim.weight_decay_times_lr is not None:
        yield (
            "optim.weight_decay_times_lr",
            f"{recipe.optim.weight_decay_times_lr} together with weight_decay={recipe.optim.weight_decay}",
            "one of the two",
            "set optim.weight_decay_times_lr=null or optim.weight_decay=0",
        )
    side = recipe.data.prepare_side
    if side is not None and recipe.data.prepare == "off":
        yield "data.prepare_side", f"{side} with data.prepare=off", "null: nothing is kept", "remove one of the two"
    elif side is not None and crop and side < (recipe.data.resolution or crop):
        smallest = recipe.data.resolution or crop
        given = f"{side}, smaller than the training crops of {smallest}"
        remedy = "raise data.prepare_side or leave it out: every crop would be enlarged"
        yield "data.prepare_side", given, f"{smallest} or more", remedy
    if recipe.optim.lr == 0:
        yield "optim.lr", "0", "more than 0", "give the fit a learning rate"


def _source(recipe: Recipe, card: DatasetCard) -> _Found:
    data = recipe.data
    if (data.path is not None or data.hub is not None) and card.layout == "blossoms":
        key = "data.path" if data.path is not None else "data.hub"
        yield key, str(data.path or data.hub.id), f"null: {card.name} is rendered", f"remove {key}, or change data.card"
    if data.path is not None and data.hub is not None:
        yield "data.hub", "together with data.path", "one of the two", "remove one"
    if any(source.kind == "hub" and not source.id for source in card.sources) and data.path is None:
        yield "data.hub.id", "nothing", "owner/name of a dataset", "add data.hub.id=OWNER/NAME, or data.path=FILES"
    if data.label_separator and card.layout != "csv" and not (data.path or "").endswith(".csv"):
        yield (
            "data.label_separator",
            data.label_separator,
            "empty: it is for .csv lists",
            "remove it, or give data.path=LIST.csv",
        )


def _credentials(recipe: Recipe) -> _Found:
    told = dataclasses.asdict(recipe)
    whole = "\n".join(str(value) for values in told.values() for value in values.values())
    if without_secrets(whole) == whole:  # as nearly always: one look instead of a hundred
        return
    for section, values in told.items():
        for name, value in values.items():
            if (shown := without_secrets(str(value))) != str(value):
                allowed = "no passwords, keys or tokens: a recipe is written into run folders and sent to W&B"
                remedy = "take it out; give it by ~/.netrc, HF_TOKEN or WANDB_API_KEY"
                yield f"{section}.{name}", shown, allowed, remedy


def _classes(recipe: Recipe, card: DatasetCard) -> _Found:
    stated = recipe.model.num_classes
    if stated is not None and card.num_classes is not None and stated != card.num_classes:
        yield (
            "model.num_classes",
            str(stated),
            f"{card.num_classes}, as the card {card.name} says",
            "remove model.num_classes: the card decides",
        )


def _against_size(recipe: Recipe, num_images: int) -> _Found:
    try:
        epoch_steps = steps_per_epoch(num_images, recipe.data.batch_size)
    except UserError as error:
        yield from _from_error(error)
        return
    total = to_steps(recipe.train.total_epochs, recipe.train.total_steps, epoch_steps)
    warmup = to_steps(recipe.schedule.warmup_epochs, recipe.schedule.warmup_steps, epoch_steps)
    try:
        shortest = min(phase_lengths(recipe, total, epoch_steps))
    except UserError as error:
        yield from _from_error(error)
        return
    if warmup >= shortest:
        yield (
            "schedule.warmup_epochs",
            f"{warmup} steps of warm-up in a phase of {shortest}",
            "a warm-up shorter than every phase",
            "shorten schedule.warmup_epochs or warmup_steps, or lengthen the fit",
        )


def phase_lengths(recipe: Recipe, total: int, epoch_steps: int) -> list[int]:
    """Return the steps of each phase; the last takes what remains.

    Args:
        recipe: The recipe; with no phases, the whole fit is one.
        total: Steps of the fit.
        epoch_steps: Steps of one epoch.

    Raises:
        UserError: The phases are longer than the fit, or leave it unfilled.
    """
    phases = recipe.train.phases
    if not phases:
        return [total]
    lengths = [to_steps(phase.epochs, phase.steps, epoch_steps) for phase in phases]
    last = phases[-1]
    if last.epochs is None and last.steps is None:
        lengths[-1] = total - sum(lengths)
    if sum(lengths) != total or min(lengths) <= 0:
        raise UserError.of(
            "train.phases",
            f"phases of {', '.join(map(str, lengths))} steps in a fit of {total}",
            f"lengths above 0 that add up to {total} steps",
            "lengthen train.total_epochs, shorten a phase, or leave the last phase's length out",
        )
    return lengths
