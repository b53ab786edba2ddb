"""Settle what a recipe leaves to this machine: how its steps are computed, by runtime.json or by measuring."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch
from torch import optim

from workbench.data.image_datamodule import ImageDataModule
from workbench.models.staged import StagedNet, stages_before
from workbench.specs.compared import resolve_backbone, stage_names
from workbench.specs.recipe import Recipe
from workbench.training import building, machine, recipe_numbers, run_folder, runtime, runtime_trial
from workbench.training.optimizers import build_optimizer, parameter_groups
from workbench.training.recipe_numbers import Lengths
from workbench.training.runtime import Question, Runtime
from workbench.training.runtime_trial import Subject


def settle(recipe: Recipe, data: ImageDataModule, lengths: Lengths, folder: Path) -> Recipe:
    """Return a recipe that states layout, precision, compile and micro-batch, where it left them to the machine.

    What is chosen is written to the run folder's runtime.json; a run that goes on takes it from there. Random numbers
    are left as they were.

    Args:
        recipe: A recipe without a rule.
        data: Its set.
        lengths: The fit in steps.
        folder: The run folder.

    Raises:
        UserError: It fits in memory in no way.
    """
    if recipe.train.runtime == "stated" and recipe.train.micro_batch_size != "auto":
        return recipe
    kept = run_folder.read_json(folder / run_folder.RUNTIME)
    if kept is None:
        gpus = [torch.cuda.current_device()] if machine.accelerator(recipe.train.device) == "gpu" else []
        with torch.random.fork_rng(gpus):
            kept = _decide(recipe, data, lengths)
        run_folder.write_json(folder / run_folder.RUNTIME, kept)
    runtime.log.info(kept["line"])
    chosen = Runtime(**kept["runtime"])
    train = dataclasses.replace(
        recipe.train,
        channels_last=chosen.channels_last,
        precision=chosen.precision,
        compile=chosen.compiled,
        micro_batch_size=chosen.micro_batch_size,
        runtime="stated",
    )
    return dataclasses.replace(recipe, train=train)


def micro_batch_is_open(recipe: Recipe) -> bool:
    """Whether a recipe leaves the micro-batch to the machine."""
    train = recipe.train
    return train.micro_batch_size == "auto" or (train.runtime == "auto" and train.micro_batch_size is None)


def _decide(recipe: Recipe, data: ImageDataModule, lengths: Lengths) -> dict[str, Any]:
    """Return the content of runtime.json."""
    train, batch_size = recipe.train, recipe.data.batch_size
    device, subject = machine.accelerator(train.device), _subject(recipe, data, lengths)
    precisions = machine.precisions(device) if train.precision == "auto" else (train.precision,)
    stated = Runtime(train.channels_last, precisions[0], train.compile, recipe_numbers.micro_batch_of(recipe))
    is_open = micro_batch_is_open(recipe)
    if is_open:
        free = machine.available_memory_bytes()
        fits = runtime_trial.memory_test(subject, stated, free and free // train.devices)  # of a CPU, which they share
        share = batch_size // recipe_numbers.processes_of(recipe)
        size = runtime_trial.largest_that_fits(fits, runtime.divisors(share))
        stated = dataclasses.replace(stated, micro_batch_size=size)
    if train.runtime == "stated":
        line = f"runtime: micro-batch {stated.micro_batch_size} of {batch_size}: the largest that fits in memory"
        return {"runtime": dataclasses.asdict(stated), "line": line, "measured": [], "from_cache": 0}
    stated = dataclasses.replace(stated, compiled=False)
    sizes = runtime.smaller_sizes(batch_size, stated.micro_batch_size) if is_open else ()
    compiles = len({phase.train for phase in lengths.phases})
    question = Question(stated, precisions, sizes, lengths.total_steps, compiles)
    key = _key(recipe, data, subject, device)
    path = runtime.cache_file(key)
    known = runtime.read_cache(path, key)
    measured = runtime.search(question, lambda *asked: runtime_trial.measure(subject, *asked), known)
    runtime.write_cache(path, key, [*measured, *(one for one in known if one not in measured)])
    chosen = runtime.choose(measured, question)
    return {
        "runtime": dataclasses.asdict(chosen.runtime),
        "line": runtime.told(chosen, measured, question, batch_size),
        "measured": [dataclasses.asdict(one) for one in measured],
        "from_cache": sum(one in known for one in measured),
    }


def _subject(recipe: Recipe, data: ImageDataModule, lengths: Lengths) -> Subject:
    """Return the recipe's network, in the part of the fit that trains most, and its optimizer."""
    names = stage_names(resolve_backbone(recipe.model.arch))
    frozen = min((stages_before(phase.train, names) for phase in lengths.phases), key=len)

    def make(channels_last: bool) -> building.EfficientNetClassifier:
        train = dataclasses.replace(recipe.train, channels_last=channels_last, compile=False)
        return building.build_classifier(dataclasses.replace(recipe, train=train), data, lengths)

    def optimizer(net: StagedNet) -> optim.Optimizer:
        groups = parameter_groups(net, **{**recipe_numbers.group_options(recipe), "lr": 0.0})
        return build_optimizer(recipe.optim.name, groups, recipe.optim.momentum)

    device = torch.device("cuda" if machine.accelerator(recipe.train.device) == "gpu" else "cpu")
    return Subject(make, frozen, optimizer, recipe.data.batch_size, data.resolution, device)


def _key(recipe: Recipe, data: ImageDataModule, subject: Subject, device: str) -> dict[str, Any]:
    """Return everything that a measured time depends on."""
    environment = machine.describe()
    return {
        "hardware": machine.hardware_name(environment, device),
        "threads": torch.get_num_threads(),
        "torch": environment["torch"],
        "torchvision": environment["torchvision"],
        "arch": recipe.model.arch,
        "head": [recipe.model.head, data.num_classes],
        "padding": [recipe.model.weights, recipe.model.padding],
        "frozen": list(subject.frozen),
        "frozen_bn": recipe.model.frozen_bn,
        "recompute": recipe.model.recompute,
        "resolution": subject.resolution,
        "batch_size": subject.batch_size,
        "optimizer": recipe.optim.name,
    }
