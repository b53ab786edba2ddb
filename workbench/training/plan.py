"""`fit --plan`: what a recipe would do, without reading an image or loading a weight."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from workbench import shipped
from workbench.data import splits
from workbench.models.backbones import build_backbone
from workbench.models.counting import count
from workbench.models.staged import stages_before
from workbench.recipe_files import LoadedRecipe
from workbench.specs.compared import resolve_backbone
from workbench.specs.compared_weights import backbone_facts
from workbench.specs.errors import UserError
from workbench.specs.recipe import Expect, Recipe
from workbench.specs.recipe_optim import Optim
from workbench.specs.rules import apply_rule
from workbench.specs.weights import is_file
from workbench.training import building, machine, recipe_numbers
from workbench.training.optimizers import parameter_groups
from workbench.training.recipe_numbers import Lengths


@dataclass(frozen=True)
class Plan:
    """What a fit would do; every field is plain and printable.

    Args:
        facts: (what, value) lines.
        phases: One row per phase: what trains, steps, peak rate, trainable parameters and share.
        groups: One row per parameter group: name, tensors, parameters, rate, decay.
        lengths: The fit in steps.
    """

    facts: list[tuple[str, str]]
    phases: list[dict[str, Any]]
    groups: list[dict[str, Any]]
    lengths: Lengths


def plan(loaded: LoadedRecipe) -> Plan:
    """Work a recipe out on tensors without content.

    Raises:
        UserError: The recipe cannot run, as `fit` would find before its first step.
    """
    recipe, card = loaded.recipe, loaded.card
    if recipe.model.weights and is_file(recipe.model.weights) and not Path(recipe.model.weights).is_file():
        raise UserError.of(
            "model.weights", f"{recipe.model.weights}: no such file", "an existing file", "check the path"
        )
    num_images, num_classes, counted, native = _sizes(loaded)
    rule = recipe.train.rule
    recipe, settings = apply_rule(recipe, num_images, num_classes, native)
    lengths = recipe_numbers.lengths_of(recipe, num_images)
    scaling = resolve_backbone(recipe.model.arch)
    with torch.device("meta"):
        network = recipe_numbers.network_options(recipe, lengths.epoch_steps)
        net = build_backbone(scaling, num_classes, recipe.model.head, **network)
    groups = [_group_row(group) for group in parameter_groups(net, **recipe_numbers.group_options(recipe))]
    by_stage = {name: sum(p.numel() for p in stage.parameters()) for name, stage in net.stages.items()}
    total = sum(by_stage.values())
    phases = []
    for phase in lengths.phases:
        trained = sum(by_stage[name] for name in by_stage if name not in stages_before(phase.train, net.stage_names))
        row = {"train": phase.train, "steps": phase.steps, "peak_lr": phase.lr}
        phases.append({**row, "trainable": trained, "share": trained / total})
    resolution, preprocessing = building.preprocessing_for(recipe)
    backbone = total - by_stage["head"]
    images = lengths.total_steps * recipe.data.batch_size
    micro = recipe_numbers.micro_batch_of(recipe)
    device = machine.accelerator(recipe.train.device)
    facts = [
        (
            "dataset",
            f"{card.title or card.name}: {num_images} training images {counted}, {num_classes} classes",
        ),
        ("model", f"{scaling.name}, {total:,} parameters ({backbone:,} without head)"),
        (
            "input",
            f"train {resolution} px; evaluate resize {preprocessing.resize}, crop {preprocessing.crop} px",
        ),
        (
            "MAdds per image",
            f"{count(net, resolution).madds / 1e9:.3f} G at {resolution} px",
        ),
        (
            "length",
            f"{lengths.total_steps} steps = {lengths.total_steps / lengths.epoch_steps:.4g} epochs of "
            f"{lengths.epoch_steps} steps; {images:,} images seen",
        ),
        ("batch", _batch(recipe, micro)),
        ("weight decay", _decay(recipe.optim)),
        ("selection", _selection(recipe.data.train_on, lengths)),
        ("device", f"{_processes(recipe)}{device}, {machine.choose_precision(recipe.train.precision, device)}"),
        ("download", _download(loaded)),
        ("measured", _measured(recipe.about.expect)),
        ("expected time", expected_time(scaling.name, resolution, lengths, recipe.data.batch_size, device)),
    ]
    facts += [(f"by rule {rule}", f"{s.key} = {json.dumps(s.value)}: {s.reason}") for s in settings]
    return Plan(facts, phases, groups, lengths)


def _group_row(group: dict[str, Any]) -> dict[str, Any]:
    row = {"group": group["name"], "tensors": len(group["params"])}
    row["parameters"] = sum(p.numel() for p in group["params"])
    return {**row, "peak_lr": group["lr"], "weight_decay": group["weight_decay"]}


def _sizes(loaded: LoadedRecipe) -> tuple[int, int, str, int | None]:
    """Return (training images, classes, where from, typical shorter side): from the card, or by listing the files."""
    recipe, card = loaded.recipe, loaded.card
    stated = card.training_images(recipe.data.train_on, recipe.data.holdout_fraction, recipe.data.train_fraction)
    if stated is not None and card.num_classes is not None and not recipe.data.allow_partial:
        return stated, card.num_classes, "by its card", card.native_pixels
    data = building.build_data(recipe, card)
    data.list_only()
    native = building.native_size(data) if recipe.train.rule != "none" else None
    return len(data.rows(splits.TRAIN)), data.num_classes, "as found on disk", native


def _batch(recipe: Recipe, micro: int) -> str:
    train, batch = recipe.train, recipe.data.batch_size
    if train.micro_batch_size == "auto":
        return f"{batch}, in micro-batches that fit in memory"
    measured = "; layout, precision and compile measured first" if train.runtime == "auto" else ""
    processes = recipe_numbers.processes_of(recipe)
    if processes == 1:
        return f"{batch} = {batch // micro} x {micro}{measured}"
    norms = "over all processes" if train.sync_bn else "of each process for itself"
    return f"{batch} = {batch // micro // processes} x {micro} on each of {processes} processes; BatchNorm {norms}"


def _processes(recipe: Recipe) -> str:
    train, count = recipe.train, recipe_numbers.processes_of(recipe)
    strategy = "ddp" if train.strategy == "auto" else train.strategy
    return "" if count == 1 else f"{train.num_nodes} x {train.devices} processes ({strategy}), each on "


def _decay(optim: Optim) -> str:
    over_lr = optim.weight_decay_times_lr
    return f"{optim.weight_decay:g}" if over_lr is None else f"{over_lr:g} / lr {optim.lr:g} = {over_lr / optim.lr:g}"


def _selection(train_on: str, lengths: Lengths) -> str:
    if train_on == "train+selection":
        return "none left: trained on; the last weights are kept"
    return f"evaluated every {lengths.validate_every_epochs} epochs and at the end"


def _measured(expect: Expect | None) -> str:
    if expect is None:
        return "nothing yet"
    span = f"{100 * expect.low:.2f} to {100 * expect.high:.2f} %"
    return f"{expect.metric} {span} over {expect.num_seeds} seed(s): {expect.measured}"


def _download(loaded: LoadedRecipe) -> str:
    recipe, card = loaded.recipe, loaded.card
    parts = []
    if recipe.model.weights and not is_file(recipe.model.weights):
        entry = backbone_facts(recipe.model.weights, resolve_backbone(recipe.model.arch))
        if entry.megabytes:
            parts.append(f"{entry.megabytes:.0f} MB of weights ({entry.name}) unless cached")
    if card.downloadable and recipe.data.download:
        parts.append(f"{card.title} into {recipe.data.root} unless it is there")
    return "; ".join(parts) or "nothing"


def expected_time(arch: str, resolution: int, lengths: Lengths, batch_size: int, device: str) -> str:
    """Return hours or minutes of training from results/step_speed.csv, or that this was not measured here.

    A row counts if architecture, resolution, trained part and hardware are the same; phases add up.
    """
    table = shipped.RESULTS / "step_speed.csv"
    hardware = machine.hardware_name(machine.describe(), device)
    seconds = 0.0
    rows = list(csv.DictReader(table.open(encoding="utf-8"))) if table.is_file() else []
    for phase in lengths.phases:
        key = {"arch": arch, "resolution": str(resolution), "train": phase.train, "hardware": hardware}
        speeds = [float(r["images_per_second"]) for r in rows if all(r.get(k) == v for k, v in key.items())]
        if not speeds:
            return f"not measured here (`python benchmarks/step_speed.py --arch {arch} --resolution {resolution}`)"
        seconds += phase.steps * batch_size / max(speeds)
    text = f"{seconds / 3600:.1f} hours" if seconds > 5400 else f"{seconds / 60:.1f} minutes"
    return f"{text} of training, by the measured speed on this hardware"
