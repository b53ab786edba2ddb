"""Measure the probe, and head-only fits by embeddings, against passing every image every epoch.

python benchmarks/probe.py fit data.root=DIR model.weights=FILE     # the same head-only fit both ways, taking turns
python benchmarks/probe.py solve data.root=DIR model.weights=FILE   # nine strengths, once everything is embedded
python benchmarks/probe.py fit --quick                              # a try, on rendered images

`fit` needs one round by embeddings first, untimed, in which they are made; how long that takes is a column of its own.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import tempfile
import time
from collections.abc import Callable

import measured
import torch

from workbench import fit, load_recipe
from workbench.specs.recipe import Recipe
from workbench.training import head_only, machine, run_folder
from workbench.training.probe import ProbeOptions, probe
from workbench.training.softmax_probe import STRENGTHS

HEAD = ("augment.crop=center", "augment.flip=0", "train.phases=[{train: head}]")
OURS = ("track.wandb=off", "train.ema_half_life_fraction=null", "train.pick=last", "schedule.warmup_epochs=0")


def recipe_for(arguments: argparse.Namespace, folder: str, *more: str) -> Recipe:
    """Return the recipe that is measured, its runs in a folder that goes again."""
    overrides = [*HEAD, *OURS, f"train.total_epochs={arguments.epochs}", f"track.runs_dir={folder}", *more]
    return load_recipe(arguments.recipe, [*overrides, *arguments.overrides]).recipe


def timed(function: Callable[[], object]) -> tuple[float, object]:
    """Return the seconds that a call takes, and its result."""
    began = time.perf_counter()
    result = function()
    return time.perf_counter() - began, result


def measure_fit(arguments: argparse.Namespace, folder: str) -> dict[str, object]:
    """Time whole head-only fits, training and both evaluations, by images and by kept embeddings."""
    recipe, feed = recipe_for(arguments, folder), head_only.feed
    first, _ = timed(lambda: fit(recipe))
    ratios, rows = [], []
    for _ in range(arguments.rounds):
        embedded, fast = timed(lambda: fit(recipe))
        head_only.feed = lambda classifier, data, *_: data
        try:
            images, slow = timed(lambda: fit(recipe))
        finally:
            head_only.feed = feed
        ratios.append(images / embedded)
        rows.append((images, embedded))
        scores = [outcome.result["test"] or outcome.result["selection"] for outcome in (slow, fast)]
    metric = fast.result["metric"]
    return {
        "what": f"head-only fit of {arguments.epochs} epochs, by images over by kept embeddings",
        "ratio": round(statistics.median(ratios), 2),
        "least": round(min(ratios), 2),
        "most": round(max(ratios), 2),
        "rounds": arguments.rounds,
        "seconds_before": round(statistics.median(row[0] for row in rows), 1),
        "seconds_after": round(statistics.median(row[1] for row in rows), 2),
        "seconds_once": round(first, 1),
        "score_before": round(scores[0][metric], 4),
        "score_after": round(scores[1][metric], 4),
    }


def measure_solve(arguments: argparse.Namespace, folder: str) -> dict[str, object]:
    """Time the grid of strengths on kept embeddings, and a whole probe around it."""
    recipe = recipe_for(arguments, folder, "data.train_on=train", "train.open_test=false", "model.head=linear")
    first, outcome = timed(lambda: probe(recipe, ProbeOptions()))
    seconds, whole = [], []
    for _ in range(arguments.rounds):
        took, outcome = timed(lambda: probe(recipe, ProbeOptions()))
        seconds.append(outcome.result["probe"]["seconds"]["solving"])
        whole.append(took)
    score = max(row[outcome.result["metric"]] for row in outcome.result["probe"]["grid"])
    return {
        "what": f"{len(STRENGTHS)} strengths on kept embeddings, seconds",
        "ratio": round(statistics.median(seconds), 2),
        "least": round(min(seconds), 2),
        "most": round(max(seconds), 2),
        "rounds": arguments.rounds,
        "seconds_before": "",
        "seconds_after": round(statistics.median(whole), 2),
        "seconds_once": round(first, 1),
        "score_before": "",
        "score_after": round(score, 4),
    }


def main() -> None:
    """Measure one of the two."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["fit", "solve"])
    parser.add_argument("--recipe", default="flowers_head")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="two rounds on rendered images; nothing is kept")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    arguments = parser.parse_intermixed_args()
    if arguments.quick:
        arguments.recipe, arguments.rounds = "quickstart", 2
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        if arguments.quick:
            arguments.overrides += [f"data.root={folder}"]
        row = {"measure": arguments.what, "recipe": arguments.recipe, "threads": torch.get_num_threads()}
        row |= (measure_fit if arguments.what == "fit" else measure_solve)(arguments, folder)
    print("\n".join(f"{name}: {value}" for name, value in row.items()))
    if not arguments.quick:
        device = machine.accelerator("auto")
        measured.append("probe.csv", row, run_folder.command_line(), machine.describe(), device)


if __name__ == "__main__":
    main()
