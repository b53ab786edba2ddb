"""Find, read and check W&B sweep files, against the recipe that their trials run. No torch.

A file that passes here also passes W&B's own schema; where W&B would take it and fail later, it is refused here.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from workbench import overrides as typed
from workbench import recipe_files, shipped
from workbench.specs.errors import Problem, UserError, suggestion
from workbench.specs.filling import NULL_WORDS
from workbench.specs.metric_names import HIGHER_IS_BETTER, LOSS, MEAN_AVERAGE_PRECISION, SINGLE_LABEL, logged_name
from workbench.specs.printable import acting_text
from workbench.sweeps import commands
from workbench.sweeps.file_blocks import (
    KEYS,
    METHODS,
    Stopping,
    read_metric,
    read_parameters,
    read_run_cap,
    read_stopping,
    unknown_keys,
)
from workbench.sweeps.parameters import Parameter, grid

_MOST_CHECKED = 256
"""Combinations of a grid that are checked against the recipe, a choice of this project: about 10 ms each."""


@dataclass(frozen=True)
class Sweep:
    """A checked sweep file.

    Args:
        path: The file.
        text: Its content.
        name: Name of the sweep and of its W&B group.
        program: W&B's `program`.
        method: One of `METHODS`.
        metric: What is compared, as `val/top1`.
        target: Value of it at which no further trial begins, or None.
        parameters: Sorted by name.
        command: With macros.
        overrides: Settings typed beside the file; they hold for every trial.
        run_cap: Most trials, or None for all of a grid.
        stopping: When trials are stopped early, or None.
        base: The recipe of the first combination, as plain nested values.
    """

    path: Path
    text: str
    name: str
    program: str
    method: str
    metric: str
    target: float | None
    parameters: tuple[Parameter, ...]
    command: tuple[str, ...]
    overrides: tuple[str, ...]
    run_cap: int | None
    stopping: Stopping | None
    base: dict[str, Any]

    @property
    def score(self) -> str:
        """The metric's name in result.json: without its split."""
        return self.metric.partition("/")[2]

    @property
    def higher_is_better(self) -> bool:
        """Whether more of the metric is better."""
        return HIGHER_IS_BETTER[self.score]


def find_sweep(name: str) -> Path:
    """Find a sweep file: a path, or the name of a shipped one.

    Raises:
        UserError: There is none.
    """
    folder = shipped.RECIPES / "sweeps"
    known = sorted(path.stem for path in folder.glob("*.yaml"))
    stem = Path(name).stem
    candidates = [Path(name)]
    if stem in known and name in (stem, f"{stem}.yaml", f"recipes/sweeps/{stem}.yaml"):
        candidates.append(folder / f"{stem}.yaml")
    for path in candidates:
        if os.path.isfile(path):
            return path
    allowed = "a .yaml file, or one of " + ", ".join(known)
    raise UserError.of("sweep", f"{name}: no such file", allowed, suggestion(stem, known, "check the path"))


def read_sweep(name: str, overrides: Sequence[str] = ()) -> Sweep:
    """Read a sweep file and check it against its recipe.

    Args:
        name: A path, or the name of a shipped sweep.
        overrides: key=value for every trial.

    Raises:
        UserError: Every mistake that was found.
    """
    path = find_sweep(name)
    text, content = _read(path)
    problems = unknown_keys(content, path)
    method = content.get("method")
    if method not in METHODS:
        remedy = suggestion(str(method), METHODS, "choose one")
        problems.append(Problem(f"{path}: method", str(method or "nothing"), ", ".join(METHODS), remedy))
    if not isinstance(content.get("program"), str):
        remedy = "add program: workbench/__main__.py, which W&B requires"
        problems.append(Problem(f"{path}: program", str(content.get("program") or "nothing"), "a file", remedy))
    problems += commands.command_problems(content.get("command"), f"{path}: command")
    has_command = not any(problem.where.endswith(": command") for problem in problems)
    parameters = read_parameters(content.get("parameters"), method, path, problems)
    metric, target = read_metric(content.get("metric"), path, problems)
    stopping = read_stopping(content.get("early_terminate"), path, problems)
    run_cap = read_run_cap(content.get("run_cap"), method, path, problems)
    command = tuple(map(str, content["command"])) if has_command else ()
    made = Sweep(
        path,
        text,
        str(content.get("name") or path.stem),
        str(content.get("program")),
        method,
        metric,
        target,
        parameters,
        command,
        tuple(overrides),
        run_cap,
        stopping,
        {},
    )
    base = _against_recipe(made, problems) if has_command and parameters else None
    if problems:
        raise UserError(*problems)
    return dataclasses.replace(made, base=base)


def _read(path: Path) -> tuple[str, dict[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8")
        shipped.check_depth(path, text)
        content = yaml.safe_load(text)  # what W&B reads
        if isinstance(content, dict):
            OmegaConf.create(text)  # refuses what PyYAML lets pass: a key that is there twice, aliases without end
        str(content)  # as in shipped.py
    except (OSError, ValueError, yaml.YAMLError, OmegaConfBaseException, RecursionError) as error:
        first = str(error).strip().replace("\n", " ")
        raise UserError.of(path, first, "a YAML file of a sweep", "correct the file at the place named") from error
    if not isinstance(content, dict):
        raise UserError.of(path, type(content).__name__, "a mapping", f"begin with the keys {', '.join(KEYS[:5])}")
    if (odd := acting_text(content)) is not None:
        raise UserError.of(path, f"{odd!r:.80}", "text without control characters", "take them out")
    return text, {key: None if _is_null(value) else value for key, value in content.items()}


def _is_null(value: Any) -> bool:
    return value is None or isinstance(value, str) and value in NULL_WORDS


def _combinations(sweep: Sweep) -> Iterator[dict[str, Any]]:
    """Yield what is checked against the recipe: a grid's combinations, or each end with the others' first."""
    if sweep.method == "grid" and all(parameter.listed() for parameter in sweep.parameters):
        yield from itertools.islice(grid(sweep.parameters), _MOST_CHECKED)
        return
    first = {parameter.name: parameter.ends()[0] for parameter in sweep.parameters}
    yield first
    for parameter in sweep.parameters:
        for value in parameter.ends()[1:]:
            yield {**first, parameter.name: value}


def _against_recipe(sweep: Sweep, problems: list[Problem]) -> dict[str, Any] | None:
    """Load the recipe with each combination; return the first as plain values."""
    problems += _conflicts(sweep)
    found: dict[tuple[str, str], Problem] = {}
    base = None
    for values in _combinations(sweep):
        texts = commands.settings(values)
        settings = commands.trial_settings(sweep.command, sweep.program, texts, sweep.overrides)
        try:
            loaded = recipe_files.load(commands.recipe_of(sweep.command), settings)
        except UserError as error:
            for problem in (_told(problem, sweep, values) for problem in error.problems):
                found.setdefault((problem.where, problem.given), problem)
            continue
        base = base or recipe_files.to_dict(loaded.recipe)
        for problem in _trial_problems(loaded, sweep):
            found.setdefault((problem.where, problem.given), problem)
    problems += found.values()
    return base


def _conflicts(sweep: Sweep) -> Iterator[Problem]:
    """Yield settings beside the parameters that would decide, unseen, what a parameter says."""
    allowed = "keys that `parameters` does not state"
    for text in commands.own_settings(sweep.command):
        if any(commands.meet(commands.typed_key(text), parameter.name) for parameter in sweep.parameters):
            yield Problem(f"{sweep.path}: command", text, allowed, "remove it, or the parameter")
    yield from commands.section_problems(sweep.overrides, typed.SOURCE)
    searched = [parameter.name for parameter in sweep.parameters if len(parameter.values) != 1]
    for text in sweep.overrides:
        key = commands.typed_key(text)
        if any("." in key and commands.meet(key, name) for name in searched):
            yield Problem(f"{typed.SOURCE}: {key}", text, "keys that the file does not search", "remove it")
    names = [parameter.name for parameter in sweep.parameters]
    for problem in commands.section_problems(names, f"{sweep.path}: parameters"):
        yield dataclasses.replace(problem, remedy="write dotted keys, as in optim.lr: {value: 0.01}")
    for one, other in itertools.combinations(names, 2):
        if commands.meet(one, other):
            yield Problem(f"{sweep.path}: parameters", f"{one} and {other}", "keys apart from each other", "remove one")


def _told(problem: Problem, sweep: Sweep, values: Mapping[str, Any]) -> Problem:
    """Return a recipe's problem with the place in the sweep file that caused it."""
    key = problem.where.removeprefix(f"{typed.SOURCE}: ")
    if key in values:
        return dataclasses.replace(problem, where=f"{sweep.path}: parameters.{key}")
    return problem


def _trial_problems(loaded: recipe_files.LoadedRecipe, sweep: Sweep) -> Iterator[Problem]:
    """Yield why trials of a right recipe could not be compared honestly."""
    where, recipe = f"{sweep.path}: parameters", loaded.recipe
    if recipe.train.open_test:
        remedy = "add train.open_test: {value: false}; the final runs open test"
        yield Problem(f"{where}.train.open_test", "true", "false: no trial sees test", remedy)
    if recipe.data.train_on != "train":
        remedy = "add data.train_on: {value: train}; the final runs train on train+selection"
        yield Problem(f"{where}.data.train_on", recipe.data.train_on, "train: the selection split chooses", remedy)
    logged = (LOSS, MEAN_AVERAGE_PRECISION) if loaded.card.label_separator else (LOSS, *SINGLE_LABEL)
    if sweep.metric and sweep.score not in logged:
        allowed = ", ".join(logged_name("val", score) for score in logged)
        given = f"{sweep.metric}, which this recipe never logs"
        yield Problem(f"{sweep.path}: metric.name", given, allowed, "name a metric of this set")
