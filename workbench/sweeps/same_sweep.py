"""Whether a sweep that is gone on with is still the one that was begun: else its trials could not be compared."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from workbench.specs.errors import Problem, UserError
from workbench.sweeps.search import Search
from workbench.sweeps.sweep_files import Sweep
from workbench.training import run_folder

PLACES = ("data.root", "data.prepared_root", "data.download", "data.num_workers", "train.device")
"""Recipe keys that say where and not what: a sweep may go on elsewhere."""
_FINAL = "final"
"""Study attribute that says with what the final runs are made."""


def is_opened(folder: Path) -> bool:
    """Return whether a final run of a sweep has opened test."""
    return any(folder.glob(f"final/*/*/*/{run_folder.TEST_OPENINGS}"))


def check_same(search: Search) -> None:
    """Note what a new sweep is; of one that is gone on with, check that it is the same.

    `run_cap` may be raised, as long as test has not been opened.

    Raises:
        UserError: Something changed, or trials are to be added after test was opened.
    """
    study, sweep = search.study, search.sweep
    now, before = _facts(sweep, search.seed), study.user_attrs.get("facts")
    if before is None:
        study.set_user_attr("facts", now)
        study.set_user_attr("run_cap", sweep.run_cap)
        return
    remedy = f"restore it, or search anew with --dir OTHER (this one is in {search.folder})"
    changed = [
        Problem(f"{sweep.path}: {key}", str(now.get(key, "nothing")), f"{before.get(key, 'nothing')}, as begun", remedy)
        for key in sorted(set(now) | set(before))
        if now.get(key) != before.get(key)
    ]
    if is_opened(search.folder) and sweep.run_cap != study.user_attrs["run_cap"]:
        allowed = f"{study.user_attrs['run_cap']}: test has been opened, nothing more is chosen"
        changed.append(Problem(f"{sweep.path}: run_cap", str(sweep.run_cap), allowed, remedy))
    if changed:
        raise UserError(*changed)
    study.set_user_attr("run_cap", sweep.run_cap)


def note_final(search: Search, settings: dict[str, Any]) -> None:
    """Note with what settings the final runs are made; runs with others that did not come to test are removed.

    Raises:
        UserError: Test was opened with others.
    """
    before = search.study.user_attrs.get(_FINAL, settings)
    if before == settings:
        search.study.set_user_attr(_FINAL, settings)
    elif not is_opened(search.folder):
        shutil.rmtree(search.folder / "final", ignore_errors=True)
        search.study.set_user_attr(_FINAL, settings)
    else:
        given, allowed = (f"trial {s['trial']}, {' '.join(s['changed']) or 'as searched'}" for s in (settings, before))
        remedy = "repeat that, or search anew with --dir OTHER: a choice made after looking at test is none"
        raise UserError.of(f"sweep {search.folder}: --final", given, f"{allowed}: test was opened with it", remedy)


def check_opened(folder: Path, search: Search) -> None:
    """Refuse trials after test was opened.

    Raises:
        UserError: There are failed trials to repeat, but test was opened.
    """
    if is_opened(folder):
        given, remedy = "--retry-failed after --final", "search anew with --dir OTHER"
        raise UserError.of(f"sweep {folder}", given, "no further trials: test has been opened", remedy)


def _facts(sweep: Sweep, seed: int) -> dict[str, str]:
    """Return everything that the trials depend on, as texts."""
    facts = {"method": sweep.method, "metric": sweep.metric, "command": " ".join(sweep.command)}
    facts["early_terminate"] = str(sweep.stopping)
    if sweep.target is not None:
        facts["metric.target"] = str(sweep.target)
    if sweep.method != "grid":
        facts["--seed"] = str(seed)
    facts |= {f"parameters.{parameter.name}": parameter.described() for parameter in sweep.parameters}
    for section in set(sweep.base) - {"about", "track"}:
        for key, value in sweep.base[section].items():
            if f"{section}.{key}" not in PLACES and f"parameters.{section}.{key}" not in facts:
                facts[f"recipe {section}.{key}"] = str(value)
    return facts
