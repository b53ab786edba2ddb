"""The end of the protocol: the best trial's settings, retrained on train + selection, test opened once per seed."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from workbench.analysis.seeds import summarise
from workbench.specs.errors import UserError
from workbench.sweeps import processes
from workbench.sweeps.commands import fit_prefix, place_settings, resume_command, typed_key
from workbench.sweeps.final_settings import check_final, final_settings
from workbench.sweeps.leaderboard import FINISHED, Row
from workbench.sweeps.processes import Job
from workbench.sweeps.same_sweep import PLACES, note_final
from workbench.sweeps.search import Search
from workbench.training import run_folder

FINAL = "final.json"


def chosen(search: Search) -> Row:
    """Return the best finished trial on the selection split; of equals the earlier.

    Raises:
        UserError: None has finished.
    """
    rank, row = next(iter(search.rows()), (None, None))
    if row is None or row.state != FINISHED or rank != 1:
        raise UserError.of(f"sweep {search.folder}", "no finished trial", "one or more", "see leaderboard.csv")
    return row


def run_final(search: Search, seeds: int, changed: Sequence[str], slots: Sequence[dict[str, str]]) -> dict[str, Any]:
    """Make the final runs that are missing, and write final.json.

    Args:
        search: A finished search.
        seeds: How many runs; their seeds are 0, 1, ... With what was opened before, it may be more.
        changed: key=value that differ from the search, such as a longer budget.
        slots: As for `processes.run_all`.

    Returns:
        The content of final.json.

    Raises:
        UserError: Nothing was found, a run failed, or test was opened with other settings before.
    """
    best = chosen(search)
    run, sweep = Path(best.run), search.sweep
    places = [text for text in sweep.overrides if typed_key(text) in PLACES]
    settings = [*places, *final_settings(run, changed)]
    check_final(run, [*settings, "train.seed=0"], 0, search.searched())  # before anything is noted
    note_final(search, {"trial": best.trial, "changed": list(changed)})
    waiting = []
    wanted = sorted({*range(seeds), *_opened_seeds(search.folder)})
    if len(wanted) > seeds:
        search.say(f"test was opened with seeds {', '.join(map(str, wanted))}: all of them are summarised")
    for seed in wanted:
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
    content = _summary(search, best, changed, wanted)
    run_folder.write_json(search.folder / FINAL, content)
    return content


def _opened_seeds(folder: Path) -> set[int]:
    """Return the seeds with which test was opened: none is left out of the summary, whatever `--seeds` says."""
    files = (run_folder.TEST_OPENINGS, run_folder.RESULT)
    found = [path.parts[-4] for name in files for path in folder.glob(f"final/seed*/*/*/{name}")]
    return {int(name.removeprefix("seed")) for name in found}


def _summary(search: Search, best: Row, changed: Sequence[str], seeds: Sequence[int]) -> dict[str, Any]:
    """Return the content of final.json."""
    rows = []
    for seed in seeds:
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
