"""The blocks of a sweep file, each read and checked alone: what W&B allows and this runner does."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench.specs.errors import Problem, UserError, suggestion
from workbench.specs.metric_names import HIGHER_IS_BETTER, logged_name
from workbench.sweeps.parameters import Parameter, read_parameter

METHODS = ("grid", "random", "bayes")
KEYS = ("program", "method", "metric", "parameters", "command", "early_terminate", "run_cap", "name", "description")
KEYS += ("project", "entity")


@dataclass(frozen=True)
class Stopping:
    """When a trial is stopped early, in numbers of times the metric was logged.

    Args:
        first: The first time at which a trial may be stopped.
        eta: One in so many goes on; also the ratio of one such time to the next.
        last: No trial is stopped from here on; None: there is no end.
        strict: Judge by the value at that time; otherwise by the best so far.
    """

    first: int
    eta: int
    last: int | None
    strict: bool


def unknown_keys(content: Mapping[str, Any], path: Path) -> list[Problem]:
    """Return the keys of a file that this runner does not know."""
    found = []
    for key in (str(key) for key in content if key not in KEYS):
        remedy = suggestion(key, KEYS, "remove it: this runner does not do what it asks for")
        found.append(Problem(f"{path}: {key}", key, ", ".join(KEYS), remedy))
    return found


def read_parameters(block: Any, method: str, path: Path, problems: list[Problem]) -> tuple[Parameter, ...]:
    """Return the parameters, sorted by name; empty if one of them could not be read. Mistakes are appended."""
    where = f"{path}: parameters"
    if not isinstance(block, Mapping) or not block:
        remedy = "write parameters: {optim.lr: {values: [0.01, 0.1]}}"
        problems.append(Problem(where, repr(block) if block else "nothing", "recipe keys and their values", remedy))
        return ()
    made, before = [], len(problems)
    for name, inner in block.items():
        try:
            parameter = read_parameter(str(name), inner, f"{where}.{name}")
        except UserError as error:
            problems += error.problems
            continue
        made.append(parameter)
        if method == "grid" and not parameter.listed():
            remedy = f"list them: {name}: {{values: [...]}}"
            problems.append(Problem(f"{where}.{name}", parameter.described(), "values, for a grid", remedy))
    return tuple(sorted(made, key=lambda parameter: parameter.name)) if len(problems) == before else ()


def read_metric(block: Any, path: Path, problems: list[Problem]) -> tuple[str, float | None]:
    """Return (metric, target) of a file's `metric`; mistakes are appended."""
    where = f"{path}: metric"
    known = {logged_name("val", score): higher for score, higher in HIGHER_IS_BETTER.items()}
    example = "write metric: {name: val/top1, goal: maximize}"
    if not isinstance(block, Mapping) or "name" not in block:
        problems.append(Problem(where, repr(block) if block else "nothing", "name and goal", example))
        return "", None
    name, goal = str(block["name"]), block.get("goal", "minimize")
    extra = [str(key) for key in block if key not in ("name", "goal", "target")]
    if extra:
        problems.append(Problem(where, ", ".join(extra), "name, goal, target", "remove what is not listed"))
    if name not in known:
        remedy = suggestion(name, known, "name one of them")
        if name.startswith("test/"):
            remedy = "choose on the selection split: test is opened once, by the final runs. " + remedy
        problems.append(Problem(f"{where}.name", name, "a metric that a fit logs: " + ", ".join(known), remedy))
        return "", None
    right = "maximize" if known[name] else "minimize"
    if goal != right:
        given = str(goal) if "goal" in block else "nothing, which W&B takes for minimize"
        problems.append(Problem(f"{where}.goal", given, f"{right} for {name}", f"write goal: {right}"))
    target = block.get("target")
    is_number = isinstance(target, int | float) and not isinstance(target, bool)
    if target is not None and not (is_number and math.isfinite(target)):
        problems.append(Problem(f"{where}.target", repr(target), "a number", "write a number, or remove it"))
    return name, target


def read_stopping(block: Any, path: Path, problems: list[Problem]) -> Stopping | None:
    """Return W&B's hyperband settings as the times at which it judges. Mistakes are appended."""
    where, keys = f"{path}: early_terminate", ("type", "min_iter", "max_iter", "s", "eta", "strict")
    if block is None:
        return None
    if not isinstance(block, Mapping) or block.get("type") != "hyperband" or set(block) - set(keys):
        given = block if not isinstance(block, Mapping) else ", ".join(f"{k}: {v}" for k, v in block.items())
        remedy = "write early_terminate: {type: hyperband, min_iter: 3}"
        problems.append(Problem(where, str(given), "type: hyperband; " + ", ".join(keys[1:]), remedy))
        return None
    first, last, count = block.get("min_iter"), block.get("max_iter"), block.get("s")
    eta, strict = block.get("eta", 3), block.get("strict", True)
    wholes = [number for number in (first, last, count) if number is not None]
    if (first is None) == (last is None or count is None) or first is not None and (last, count) != (None, None):
        problems.append(Problem(where, str(dict(block)), "min_iter; or max_iter and s", "give one of the two forms"))
    elif any(type(number) is not int or number < 1 for number in wholes) or not isinstance(strict, bool):
        remedy = "correct the numbers: they count how often the metric was logged"
        problems.append(Problem(where, str(dict(block)), "whole numbers from 1; strict: true or false", remedy))
    elif isinstance(eta, bool) or not isinstance(eta, int | float) or not math.isfinite(eta) or eta % 1 or eta < 2:
        problems.append(Problem(f"{where}.eta", str(eta), "a whole number from 2, in this runner", "round it"))
    else:
        eta = int(eta)
        if first is None:
            times = [int(last / eta**i) for i in range(1, count + 1) if last / eta**i >= 1]
            first = times[-1] if times else last
        return Stopping(first, eta, last, strict)
    return None


def read_run_cap(value: Any, method: str, path: Path, problems: list[Problem]) -> int | None:
    """Return a file's `run_cap`; only a grid can do without. Mistakes are appended."""
    where = f"{path}: run_cap"
    if value is None:
        if method in ("random", "bayes"):
            remedy = "add run_cap: 20, or as many trials as you can pay for"
            problems.append(Problem(where, "nothing", f"the most trials: a {method} search has no end", remedy))
    elif type(value) is not int or value < 1:
        problems.append(Problem(where, repr(value), "a whole number from 1", "write how many trials to run at most"))
    return value
