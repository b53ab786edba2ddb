"""A sweep file's `command`: what W&B's macros stand for here, and the command lines of trials and of their restarts.

The macros are W&B's (wandb 0.31, sdk/launch/sweeps/utils.py); like W&B's agent, a macro counts only as a whole item.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from workbench.overrides import recipe_keys
from workbench.specs.errors import Problem

ARGS = {"${args_no_hyphens}": "", "${args}": "--"}
"""Macros for the trial's settings that `fit` can read, and what stands before each setting."""
STANDARD = "[${env}, ${interpreter}, -m, workbench, fit, --recipe, NAME, ${args_no_hyphens}]"
_ENVIRONMENT = re.compile(r"\$\{envvar:(\w+)\}")
_PLAIN = ("${env}", "${interpreter}", "${program}")


def command_problems(command: Any, where: str) -> list[Problem]:
    """Return what is wrong in a `command`."""
    remedy = f"write command: {STANDARD}"
    if not isinstance(command, list) or not command:
        return [Problem(where, repr(command) if command else "nothing", "a list", remedy)]
    items, found = [str(item) for item in command], []
    if "fit" not in items or items[items.index("fit") + 1 :][:1] != ["--recipe"]:
        found.append(Problem(where, " ".join(items), "`fit`, then `--recipe` and a name, as items", remedy))
    elif items.index("fit") + 2 >= len(items) or items[items.index("fit") + 2].startswith("${"):
        found.append(Problem(where, " ".join(items), "the recipe's name after --recipe", "name the recipe"))
    if sum(item in ARGS for item in items) != 1:
        found.append(Problem(where, " ".join(items), "one item ${args_no_hyphens}: the trial's settings", remedy))
    if not found:
        after = items[items.index("fit") + 3 :]
        found = [
            Problem(where, item, "key=value and the macro after the recipe's name", "remove it")
            for item in after
            if item not in ARGS and ("=" not in item or item.startswith(("--recipe=", "--resume=")))
        ]
        found += section_problems([item for item in after if item not in ARGS], where)
    for item in items:
        if "${" in _ENVIRONMENT.sub("", item) and item not in (*ARGS, *_PLAIN):
            allowed = ", ".join((*_PLAIN, *ARGS, "${envvar:NAME}")) + "; each but the last as a whole item"
            found.append(Problem(where, item, allowed, "replace it"))
    return found


def recipe_of(command: Sequence[str]) -> str:
    """Return the recipe that a checked command names."""
    return command[list(command).index("fit") + 2]


def own_settings(command: Sequence[str]) -> list[str]:
    """Return the key=value items that stand in a checked command itself."""
    return [item for item in list(command)[list(command).index("fit") + 3 :] if item not in ARGS]


def typed_key(text: str) -> str:
    """Return the recipe key of a typed setting."""
    return text.removeprefix("--").partition("=")[0]


def meet(one: str, other: str) -> bool:
    """Return whether two dotted keys are the same or one lies within the other."""
    return f"{one}.".startswith(f"{other}.") or f"{other}.".startswith(f"{one}.")


def section_problems(texts: Sequence[str], where: str) -> list[Problem]:
    """Return the settings of whole sections: they would undo, unseen, what a sweep itself sets in the section."""
    sections = {key.partition(".")[0] for key in recipe_keys()}
    remedy = "write dotted keys, one setting each, as in optim.lr=0.01"
    return [Problem(where, text, "dotted keys", remedy) for text in texts if typed_key(text) in sections]


def settings(values: Mapping[str, Any]) -> list[str]:
    """Return values as `key=value`, each value as Python writes it, which is how W&B's agent does it."""
    return [f"{name}={value}" for name, value in values.items()]


def trial_command(command: Sequence[str], program: str, texts: Sequence[str], extra: Sequence[str]) -> list[str]:
    """Return the command line of a trial.

    Args:
        command: A checked `command`, macros and all.
        program: The file's `program`.
        texts: The trial's settings, key=value.
        extra: Settings of this runner and of the user, which win over the others.
    """
    made: list[str] = []
    for item in command:
        if item in ARGS:
            made += [ARGS[item] + text for text in texts]
        else:
            made += _expanded(item, program)
    return [*made, *extra]


def trial_settings(command: Sequence[str], program: str, texts: Sequence[str], extra: Sequence[str]) -> list[str]:
    """Return all settings of a trial in the order in which `fit` reads them; arguments as for `trial_command`."""
    made = trial_command(command, program, texts, extra)
    return made[len(fit_prefix(command, program)) + 2 :]


def place_settings(folder: Path, group: str, job_type: str) -> list[str]:
    """Return the settings by which this runner finds a run again, and W&B groups it."""
    return [f"track.runs_dir={folder}", f"track.group={group}", f"track.job_type={job_type}"]


def fit_prefix(command: Sequence[str], program: str) -> list[str]:
    """Return a command line up to and with `fit`."""
    before = list(command)[: list(command).index("fit") + 1]
    return [part for item in before for part in _expanded(item, program)]


def resume_command(command: Sequence[str], program: str, run: Path) -> list[str]:
    """Return the command line that goes on with an interrupted run."""
    return [*fit_prefix(command, program), "--resume", str(run)]


def _expanded(item: str, program: str) -> list[str]:
    """Return an item without macros. `${env}` is left out; the interpreter is this one, not the first in PATH."""
    plain = {"${env}": [], "${interpreter}": [sys.executable], "${program}": [program]}
    if item in plain:
        return plain[item]
    return [_ENVIRONMENT.sub(lambda match: os.environ.get(match.group(1), match.group(1)), item)]
