"""Export a fitted model, time every form on one thread against timm eager, and score the 8-bit form on test.

python benchmarks/exports.py RUN data.root=DIR                   # sizes, agreement, milliseconds
python benchmarks/exports.py RUN data.root=DIR --test            # and the scores of PyTorch and int8 on the test split
python benchmarks/exports.py RUN data.root=DIR --quick           # a try: nothing is kept

Forms and timm's network of the same architecture take turns with one image; a round counts the shortest of three
passes, a ratio is of one round: timm's time over the form's. Rows go to results/exports.csv.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import measured
import numpy as np
import timm
import torch

from workbench import card_files, load_model, load_recipe
from workbench.data import splits
from workbench.data.transforms import normalise
from workbench.exports.exporting import ExportOptions, export
from workbench.exports.formats import FORMATS
from workbench.exports.opening import open_export
from workbench.models.answering import answering_form
from workbench.training import building, machine, run_folder
from workbench.training.results import SplitResult

PASSES = 3


def timed(passes: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Return milliseconds of each round, the first not counted."""
    taken: dict[str, list[float]] = {name: [] for name in passes}
    for number in range(rounds + 1):
        for name, one in passes.items():
            best = float("inf")
            for _ in range(PASSES):
                began = time.perf_counter()
                one()
                best = min(best, time.perf_counter() - began)
            if number:
                taken[name].append(1000 * best)
    return taken


def scores(run: Path, overrides: list[str], answers: dict[str, Callable[[np.ndarray], np.ndarray]]) -> dict[str, float]:
    """Return each form's score on the test split, which is opened for it, on record."""
    recipe = load_recipe(str(run / run_folder.RECIPE), overrides).recipe
    net = load_model(run)
    data = building.build_data(recipe, card_files.card_for(recipe), net.preprocessing)
    run_folder.record_test_opening(run, "benchmarks/exports.py", len(data.rows(splits.TEST)))
    found: dict[str, list[torch.Tensor]] = {name: [] for name in answers}
    targets, rows = [], []
    for batch in data.eval_dataloader(splits.TEST):
        images = normalise(batch.images, data.preprocessing).numpy()
        targets.append(batch.targets)
        rows.append(batch.index)
        for name, answer in answers.items():
            found[name].append(torch.from_numpy(answer(images)))
    told = torch.cat(targets), torch.cat(rows)
    results = {n: SplitResult(splits.TEST, data.metric, torch.cat(parts), *told) for n, parts in found.items()}
    return {name: result.scores()[data.metric] for name, result in results.items()}


def main() -> None:
    """Measure, print, and keep the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--test", action="store_true")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    arguments = parser.parse_intermixed_args()
    torch.set_num_threads(1)
    net = load_model(arguments.run)
    side = net.preprocessing.crop
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        options = ExportOptions(count=10 if arguments.quick else 200, overrides=tuple(arguments.overrides))
        with torch.inference_mode(False):
            told = {row["format"]: row for row in export(arguments.run, list(FORMATS), Path(folder), options)}
        forms = {name: open_export(Path(folder) / row["file"], threads=1) for name, row in told.items()}
        image = torch.randn(1, 3, side, side)
        plain, ours = timm.create_model(f"efficientnet_{net.scaling.name}").eval(), answering_form(net)
        passes: dict[str, Callable[[], object]] = {"timm eager": lambda: plain(image), "ours": lambda: ours(image)}
        passes |= {name: lambda form=form: form.answer(image.numpy()) for name, form in forms.items()}
        taken = timed(passes, 2 if arguments.quick else arguments.rounds)
        tested: dict[str, float] = {}
        if arguments.test:
            answers = {"ours": lambda images: ours(torch.from_numpy(images)).numpy(), "int8": forms["int8"].answer}
            with torch.inference_mode():
                tested = scores(arguments.run, arguments.overrides, answers)
    for name, own in taken.items():
        ratios = [one / other for one, other in zip(taken["timm eager"], own, strict=True)]
        row: dict[str, Any] = {"arch": net.scaling.name, "form": name, "resolution": side, "threads": 1, "batch": 1}
        row |= {"mib": round(told[name]["bytes"] / 2**20, 2) if name in told else ""}
        row |= {"median_ms": round(statistics.median(own), 2), "times_timm": round(statistics.median(ratios), 2)}
        row |= {"least": round(min(ratios), 2), "most": round(max(ratios), 2), "rounds": len(own)}
        for key in ("max_probability_difference", "top1_agreement", "images"):
            row[key] = told[name][key] if name in told else ""
        row["test_score"] = round(tested[name], 5) if name in tested else ""
        print(*(f"{key}={value}" for key, value in row.items()))
        if not arguments.quick:
            measured.append("exports.csv", row, run_folder.command_line(), machine.describe())


if __name__ == "__main__":
    main()
