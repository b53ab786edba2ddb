"""`workbench fit`: train by a recipe, go on with a run, or only plan."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import click

from workbench import recipe_files
from workbench.cli.app import SETTINGS
from workbench.specs.errors import UserError

_WITH_RESUME = ("train.devices=", "train.num_nodes=", "train.micro_batch_size=")
"""What may change when a run goes on: how many processes do it, and how many images at once each."""


@click.command(context_settings=SETTINGS)
@click.option("--recipe", "recipe_name", metavar="FILE", help="A recipe file, or the name of a shipped one.")
@click.option("--resume", metavar="RUN", help="Go on with an interrupted run.")
@click.option("--plan", is_flag=True, help="Only say what would happen.")
@click.argument("overrides", nargs=-1, type=click.UNPROCESSED, metavar="[KEY=VALUE ...]")
def command(recipe_name: str | None, resume: str | None, plan: bool, overrides: tuple[str, ...]) -> None:
    """Train by a recipe; the last line printed is the run folder.

    \b
    workbench fit --recipe quickstart
    workbench fit --recipe recipes/flowers_b0_cpu.yaml data.root=~/sets model.weights=b0.pth
    workbench fit --resume runs/flowers_b0_cpu/20261123-101500-a1b2c3
    """  # noqa: D301 - click needs the character that \b stands for
    if (recipe_name is None) == (resume is None):
        raise UserError.of(
            "fit",
            "--recipe and --resume: " + ("none" if resume is None else "both"),
            "one of them",
            "add --recipe FILE, or --resume RUN",
        )
    folder = None
    if resume is not None:
        from workbench.training import run_folder

        folder = run_folder.existing(resume)
        if (folder / run_folder.RESULT).is_file():
            raise UserError.of(
                "fit", f"--resume {resume}", "an unfinished run", "this run is finished: see report.html"
            )
        if others := [text for text in overrides if not text.removeprefix("--").startswith(_WITH_RESUME)]:
            allowed = f"with --resume only {', '.join(_WITH_RESUME)}..."
            raise UserError.of("fit", " ".join(others), allowed, "leave it out: a run keeps its own recipe")
        recipe_name = str(folder / run_folder.RECIPE)
    loaded = recipe_files.load(recipe_name, overrides)
    if plan:
        from workbench.cli.tables import print_plan

        print_plan(loaded)
        return
    if folder is None and (folder := _requeued(loaded.recipe)):
        loaded = recipe_files.load(str(folder / "recipe.yaml"), ())
    _fit(loaded.recipe, folder)


def _requeued(recipe: recipe_files.Recipe) -> Path | None:
    """Return the run that this job began before SLURM started it again."""
    from workbench.training.slurm import run_to_go_on_with

    folder = run_to_go_on_with(recipe.track.runs_dir, recipe.about.name or "unnamed")
    if folder is not None:
        print(f"SLURM has started this job again: going on with {folder}", file=sys.stderr)
    return folder


def _fit(recipe: recipe_files.Recipe, folder: Path | None) -> None:
    began = time.perf_counter()
    from workbench.cli.tables import print_ending, print_result
    from workbench.training import ranks
    from workbench.training.interrupts import Interrupted
    from workbench.training.run import fit
    from workbench.training.slurm import requeue

    try:
        outcome = fit(recipe, resume=folder)
    except Interrupted as stop:
        advice = f"go on with: python -m workbench fit --resume {stop.folder}"
        print(f"{stop.how}; {advice if stop.folder else 'nothing had begun, nothing is kept'}", file=sys.stderr)
        if told := requeue(stop.by):
            print(told, file=sys.stderr)
        sys.exit(130)
    if ranks.is_first():
        print_result(outcome.result)
        print_ending(outcome.folder, outcome.result, None if folder else time.perf_counter() - began)
        print(outcome.folder)
