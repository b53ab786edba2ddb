"""The end of the protocol: the best trial's settings, retrained on train + selection, test opened once per seed."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from workbench import recipe_files
from workbench.analysis.seeds import summarise
from workbench.specs.duration import to_steps
from workbench.specs.errors import UserError
from workbench.specs.recipe import Recipe
from workbench.sweeps import processes
from workbench.sweeps.commands import fit_prefix, place_settings, resume_command
from workbench.sweeps.leaderboard import FINISHED, Row
from workbench.sweeps.processes import Job
from workbench.sweeps.same_sweep import note_final
from workbench.sweeps.search import Search
from workbench.training import run_folder

FINAL = "final.json"
_PARTNERS = {"total_epochs": "total_steps", "warmup_epochs": "warmup_steps"}
_OWN = ("data.train_on", "train.pick", "train.open_test", "train.seed", "track.runs_dir", "track.job_type")


def chosen(search: Search) -> Row:
    """Return the best finished trial on the selection split; of equals the earlier.

    Raises:
        UserError: None has finished.
    """
    rank, row = next(iter(search.rows()), (None, None))
    if row is None or row.state != FINISHED or rank != 1:
        raise UserError.of(f"sweep {search.folder}", "no finished trial", "one or more", "see leaderboard.csv")
    return row


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
        "data.train_on": "train+selection",
        "train.pick": "last",
        "train.open_test": "true",
        "train.total_steps": str(steps),
        "train.total_epochs": "null",
        **_in_steps(recipe, before, after),
    }
    for text in changed:
        name = text.removeprefix("--").partition("=")[0]
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


def check_changed(changed: Sequence[str]) -> None:
    """Check `--final-set`.

    Raises:
        UserError: It changes what makes the final runs final.
    """
    for text in changed:
        if text.removeprefix("--").partition("=")[0] in _OWN:
            allowed = "any key but " + ", ".join(_OWN)
            raise UserError.of("--final-set", text, allowed, "leave it out: the protocol sets it")


def run_final(search: Search, seeds: int, changed: Sequence[str], slots: Sequence[dict[str, str]]) -> dict[str, Any]:
    """Make the final runs that are missing, and write final.json.

    Args:
        search: A finished search.
        seeds: How many runs; their seeds are 0, 1, ...
        changed: key=value that differ from the search, such as a longer budget.
        slots: As for `processes.run_all`.

    Returns:
        The content of final.json.

    Raises:
        UserError: Nothing was found, a run failed, or test was opened with other settings before.
    """
    best = chosen(search)
    run, sweep = Path(best.run), search.sweep
    settings = final_settings(run, changed)
    recipe_files.load(str(run / run_folder.RECIPE), settings)  # mistakes in --final-set, before anything is noted
    note_final(search, {"trial": best.trial, "changed": list(changed)})
    waiting = []
    for seed in range(seeds):
        folder = search.folder / "final" / f"seed{seed}"
        processes.end_orphan(folder)
        begun = processes.run_of(folder)
        own = [f"train.seed={seed}", *place_settings(folder, sweep.name, "final")]
        command = [*fit_prefix(sweep.command, sweep.program), "--recipe", str(run / run_folder.RECIPE), *settings, *own]
        if begun is not None:
            command = resume_command(sweep.command, sweep.program, begun)
        if begun is None or not (begun / run_folder.RESULT).is_file():
            waiting.append(Job(seed, folder, command))
    failed: list[Job] = []

    def take() -> Job | None:
        if waiting:
            search.say(f"final run, seed {waiting[0].number}")
        return waiting.pop(0) if waiting else None

    def ended(job: Job) -> None:
        found = processes.run_of(job.folder)
        if found is None or not (found / run_folder.RESULT).is_file():
            failed.append(job)

    processes.run_all(take, slots, lambda job: None, ended)
    if failed:
        lines = "; ".join(f"seed {job.number}: {job.error_line()}" for job in failed)
        remedy = f"see {failed[0].folder}, put it right, then run the same command again"
        raise UserError.of(f"sweep {search.folder}: --final", lines, "runs that finish", remedy)
    content = _summary(search, best, changed, seeds)
    run_folder.write_json(search.folder / FINAL, content)
    return content


def _summary(search: Search, best: Row, changed: Sequence[str], seeds: int) -> dict[str, Any]:
    """Return the content of final.json."""
    rows = []
    for seed in range(seeds):
        run = processes.run_of(search.folder / "final" / f"seed{seed}")
        result = run_folder.read_json(run / run_folder.RESULT)
        rows.append({"seed": seed, "run": str(run), "steps": result["steps"], "test": result["test"]})
    metric = result["metric"]
    summary = summarise([row["test"][metric] for row in rows])
    return {
        "sweep": search.sweep.name,
        "recipe": result["recipe"],
        "arch": result["arch"],
        "dataset": result["dataset"],
        "chosen": {
            "trial": best.trial,
            "parameters": {name: best.values[name] for name in search.searched()},
            "selection_metric": search.sweep.metric,
            "selection_value": best.value,
            "selection_n": best.num_images,
            "trials": len(search.trials()),
            "steps": best.steps,
            "run": best.run,
        },
        "changed_for_final": list(changed),
        "metric": f"test/{metric}",
        **dataclasses.asdict(summary),
        "seeds": rows,
        "published": result["published"],
        "stamps": result["stamps"],
    }


def final_table(content: dict[str, Any]) -> tuple[Table, list[str]]:
    """Return final.json as a table and the lines beneath it."""
    score = content["metric"].partition("/")[2]
    made = Table("seed", content["metric"], "n", "95 % over images", "steps", "run", title=f"{content['sweep']}: final")
    for row in content["seeds"]:
        test = row["test"]
        within = "" if test["interval95"] is None else "{:.2f} to {:.2f}".format(*(100 * x for x in test["interval95"]))
        value = f"{100 * test[score]:.2f} %"
        made.add_row(str(row["seed"]), value, str(test["n"]), within, str(row["steps"]), row["run"])
    interval = content["interval95"]
    over = "no interval of one seed"
    if interval is not None:
        over = "95 % over seeds {:.2f} to {:.2f}".format(*(100 * x for x in interval))
    span = f"range {100 * content['lowest']:.2f} to {100 * content['highest']:.2f}"
    lines = [f"mean {100 * content['mean']:.2f} % of {content['n']} seeds, {span}, {over}"]
    published = content["published"]
    if published:
        lines.append(f"published: {100 * published['accuracy']:.1f} % ({published['source']})")
    best = content["chosen"]
    lines.append(
        f"chosen: trial {best['trial']} of {best['trials']}, {best['selection_metric']} {best['selection_value']:.4f} "
        f"(n = {best['selection_n']}): " + " ".join(f"{k}={v}" for k, v in best["parameters"].items())
    )
    if content["changed_for_final"]:
        lines.append("changed for the final runs: " + " ".join(content["changed_for_final"]))
    return made, [*lines, *(f"note: {stamp}" for stamp in content["stamps"])]
