"""`fit(recipe)`: from a recipe to a finished run folder. Command line, sweeps, notebooks and tests all end here."""

from __future__ import annotations

import contextlib
import logging
import shutil
from pathlib import Path

import lightning
from rich.console import Console

from workbench import card_files, recipe_files
from workbench.atomic import disk_errors
from workbench.data import splits
from workbench.specs.errors import UserError
from workbench.specs.recipe import Recipe
from workbench.training import (
    building,
    faults,
    machine,
    rank_launch,
    ranks,
    recipe_numbers,
    results,
    run_folder,
    runtime_recipe,
    slurm,
    tracking,
)
from workbench.training.interrupts import Interrupted, interruptible
from workbench.training.log_file import logging_to
from workbench.training.one_fit import Fit, FitOutcome

log = logging.getLogger("workbench")


def fit(recipe: Recipe, resume: Path | None = None, console: Console | None = None) -> FitOutcome:
    """Train by a recipe, choose by selection, open test once, write the run folder.

    Args:
        recipe: A checked recipe, as `recipe_files.load` returns it in `.recipe`.
        resume: A run folder to go on with; its own recipe should be the one given.
        console: Where progress is shown; standard error if None.

    Returns:
        The run folder and its result.

    Raises:
        UserError: Anything that the user can put right, such as missing files or a loss that is not finite.
        Interrupted: By Ctrl-C or SIGTERM before the result was written; its `folder`, if any, can be resumed.
    """
    train, device = recipe.train, machine.accelerator(recipe.train.device)
    if ranks.must_start(train.devices, train.num_nodes):
        folder = rank_launch.fit_in_processes(recipe_files.to_yaml(recipe), train.devices, resume, device == "cpu")
        return FitOutcome(folder, run_folder.read_json(folder / run_folder.RESULT))
    with ranks.joined(train.devices, train.num_nodes, device):
        return _fit(recipe, resume, console or Console(stderr=True, quiet=not ranks.is_first()))


def _fit(recipe: Recipe, resume: Path | None, console: Console) -> FitOutcome:
    """Fit in this process, one of several that have joined or the only one."""
    tracking.choose_mode(recipe.track.wandb)  # what it refuses should not cost the time to read the data
    name = recipe.about.name or "unnamed"
    folder = ranks.by_first(lambda: ranks.announced(resume or run_folder.create(recipe.track.runs_dir, name)))
    only_one = run_folder.alone(folder) if ranks.is_first() else contextlib.nullcontext()
    try:
        with only_one, interruptible(folder) as stop, disk_errors(folder), logging_to(folder, console):

            def attempt(is_again: bool, through: int | None) -> FitOutcome:
                is_new = resume is None and not is_again and ranks.is_first()
                try:
                    with ranks.in_turn():
                        prepared = _prepare(building.settle(recipe), folder, console, is_new)
                except (UserError, KeyboardInterrupt) as error:
                    can_resume = (folder / run_folder.RECIPE).is_file() and not isinstance(error, UserError)
                    if is_new and not can_resume:
                        shutil.rmtree(folder, ignore_errors=True)  # nothing has begun: an empty one helps nobody
                    raise
                return prepared.run(stop, through)

            batch_size = recipe.data.batch_size if runtime_recipe.micro_batch_is_open(recipe) else None
            return faults.with_second_tries(attempt, folder, stop, batch_size)
    except Interrupted:
        result = run_folder.read_json(folder / run_folder.RESULT)
        if result is None:
            raise
        return FitOutcome(folder, result)  # stopped in the last moment: there is nothing left to go on with


def _prepare(recipe: Recipe, folder: Path, console: Console, is_new: bool) -> Fit:
    """Write what is known before the first step, read the data's lists, build the model."""
    if is_new:
        run_folder.write_text(folder / run_folder.RECIPE, recipe_files.to_yaml(recipe))
        slurm.note_job(folder)
    if not (folder / run_folder.COMMAND).is_file():  # new, or stopped right after the recipe was written
        run_folder.write_text(folder / run_folder.COMMAND, run_folder.command_line() + "\n")
    if not (folder / run_folder.ENVIRONMENT).is_file():
        run_folder.write_json(folder / run_folder.ENVIRONMENT, machine.describe())
    lightning.seed_everything(recipe.train.seed, verbose=False)
    if machine.accelerator(recipe.train.device) == "cpu":
        machine.keep_freed_memory()
    data = building.build_data(recipe, card_files.card_for(recipe))
    results.write_splits(folder, data)
    lengths = recipe_numbers.lengths_of(recipe, len(data.rows(splits.TRAIN)))
    recipe = runtime_recipe.settle(recipe, data, lengths, folder)
    data.micro_batch_size = recipe_numbers.micro_batch_of(recipe)
    classifier = building.build_classifier(recipe, data, lengths)
    log.info(str(classifier.load_report or "no pretrained weights: training from random initialisation"))
    return Fit(recipe, folder, data, lengths, classifier, console)
