"""Settings of the final runs: what the protocol sets, what `--final-set` may change, checks of both. No torch."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from workbench import overrides, recipe_files
from workbench.specs.duration import to_steps
from workbench.specs.errors import Problem, UserError
from workbench.specs.recipe import EXCLUSIVE, Recipe
from workbench.sweeps.commands import meet, section_problems, typed_key
from workbench.sweeps.sweep_files import Sweep
from workbench.training import run_folder

WHERE = "--final-set"
_PROTOCOL = {"data.train_on": "train+selection", "train.pick": "last", "train.open_test": "true"}
_PARTNERS = {"total_epochs": "total_steps", "warmup_epochs": "warmup_steps"}
_OWN = (*_PROTOCOL, "train.seed", "track.runs_dir", "track.job_type")


def check_changed(sweep: Sweep, changed: Sequence[str]) -> None:
    """Check `--final-set` before the search, with the recipe of the first trial.

    Raises:
        UserError: Every mistake in it; or it changes what makes the final runs final.
    """
    problems = section_problems(changed, WHERE)
    for text in changed:
        if any("." in typed_key(text) and meet(typed_key(text), own) for own in _OWN):
            allowed = "any key but " + ", ".join(_OWN)
            problems.append(Problem(WHERE, text, allowed, "leave it out: the protocol sets it"))
    protocol = [f"{key}={value}" for key, value in _PROTOCOL.items()]
    try:
        recipe_files.load_layers([(f"{sweep.path}: final runs", sweep.base)], [*protocol, *changed], sweep.name)
    except UserError as error:
        for problem in error.problems:
            place = problem.where.replace(overrides.SOURCE, WHERE, 1)
            problems.append(dataclasses.replace(problem, where=place))
    if problems:
        raise UserError(*problems)


def check_final(run: Path, settings: Sequence[str], seed: int, searched: Sequence[str]) -> None:
    """Check that the final runs are what the protocol says, whatever was typed.

    Args:
        run: The chosen run's folder.
        settings: key=value of a final run, its seed included.
        seed: The seed.
        searched: Recipe keys that the sweep searched; those that `settings` do not name keep the chosen value.

    Raises:
        UserError: They are not, or cannot be loaded.
    """
    path = str(run / run_folder.RECIPE)
    before = recipe_files.to_dict(recipe_files.load(path).recipe)
    after = recipe_files.to_dict(recipe_files.load(path, settings).recipe)
    expected = {"data.train_on": "train+selection", "train.pick": "last", "train.open_test": True, "train.seed": seed}
    typed = [typed_key(text) for text in settings if "." in typed_key(text)]
    typed += [f"{s}.{key}" for s, *pair in EXCLUSIVE for key in pair if {f"{s}.{one}" for one in pair} & {*typed}]
    kept = [name for name in searched if name in overrides.recipe_keys() and not any(meet(name, key) for key in typed)]
    expected |= {name: _at(before, name) for name in kept}
    wrong = [
        Problem(f"{WHERE}: {key}", str(_at(after, key)), str(value), "remove what changes it")
        for key, value in expected.items()
        if _at(after, key) != value
    ]
    if wrong:
        raise UserError(*wrong)


def _at(values: Mapping[str, Any], dotted: str) -> Any:
    section, _, key = dotted.partition(".")
    return values[section][key]


def final_settings(run: Path, changed: Sequence[str]) -> list[str]:
    """Return how the final runs differ from the chosen run's recipe, the seed aside, as key=value.

    They take as many steps as the chosen run. With more images an epoch has more steps, so what the recipe says in
    epochs is said in steps, by the chosen run's epochs: warm-up, phases, and the stairs of an exponential decay.

    Args:
        run: The chosen run's folder.
        changed: key=value of `--final-set`, which win over all of it.
    """
    recipe = recipe_files.load(str(run / run_folder.RECIPE)).recipe
    steps = run_folder.read_json(run / run_folder.RESULT)["steps"]
    counts = run_folder.read_json(run / run_folder.SPLITS)["counts"]
    batch = recipe.data.batch_size
    before, after = counts["train"] // batch, (counts["train"] + counts["selection"]) // batch
    made = {
        **_PROTOCOL,
        "train.total_steps": str(steps),
        "train.total_epochs": "null",
        **_in_steps(recipe, before, after),
    }
    for text in changed:
        name = typed_key(text)
        section, _, key = name.partition(".")
        pairs = {**_PARTNERS, **{b: a for a, b in _PARTNERS.items()}}
        made.pop(name, None)
        made.pop(f"{section}.{pairs.get(key)}", None)
    return [*(f"{name}={value}" for name, value in made.items()), *changed]


def _in_steps(recipe: Recipe, before: int, after: int) -> dict[str, str]:
    """Return what a recipe says in epochs of `before` steps, in steps, or in epochs of `after` steps."""
    schedule, made = recipe.schedule, {}
    if schedule.warmup_epochs is not None:
        made["schedule.warmup_steps"] = str(to_steps(schedule.warmup_epochs, None, before))
        made["schedule.warmup_epochs"] = "null"
    if schedule.name == "exponential":
        made["schedule.decay_epochs"] = str(schedule.decay_epochs * before / after)
    if any(phase.epochs is not None for phase in recipe.train.phases):
        phases = [dataclasses.asdict(phase) for phase in recipe.train.phases]
        for phase in phases:
            if phase["epochs"] is not None:
                phase.update(steps=to_steps(phase["epochs"], None, before), epochs=None)
        made["train.phases"] = json.dumps(phases)
    return made
