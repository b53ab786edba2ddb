"""`compare`: what two runs say of the same test images, quantity by quantity."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from workbench.analysis import compare_pairs
from workbench.analysis.compare_calibration import Calibration, calibrate
from workbench.analysis.compare_files import TestedRun, read_tested
from workbench.analysis.compare_pairs import Paired
from workbench.analysis.report_groups import plain
from workbench.analysis.report_runs import flat, settings_of
from workbench.shipped import read_yaml
from workbench.specs.metric_names import HIGHER_IS_BETTER, MEAN_PER_CLASS
from workbench.training import run_folder
from workbench.training.calibration import BINS

COLUMNS = ("quantity", "first", "first_low", "first_high", "second", "second_low", "second_high")
COLUMNS += ("difference", "low", "high", "value", "n", "how")
"""Of compare.csv; `value` is of quantities of both runs together."""
MCNEMAR = "McNemar's exact p"
_NOT_FOR_MULTI_LABEL = (
    "These runs allow several classes an image. Not available for them: an interval of the difference, agreement, "
    "McNemar's test, wins and losses by class, calibration and flips."
)


@dataclass(frozen=True)
class Comparison:
    """What two runs say of the same images.

    Args:
        first: A run.
        second: Another; differences are second minus first.
        values: A mapping per quantity, with the columns of compare.csv.
        settings: `recipe key -> values of both` where they differ.
        notes: What a reader must know.
        paired: The images, or None for multi-label runs.
        calibrations: Of both, or None for multi-label runs.
    """

    first: TestedRun
    second: TestedRun
    values: tuple[dict[str, Any], ...]
    settings: dict[str, tuple[str, str]]
    notes: tuple[str, ...]
    paired: Paired | None = None
    calibrations: tuple[Calibration, Calibration] | None = field(default=None)


def compare(first: str | Path, second: str | Path) -> Comparison:
    """Compare two finished runs, image by image.

    Args:
        first: A run folder.
        second: Another, tested on the same images.

    Raises:
        UserError: Not finished, not tested, or not on the same images.
    """
    runs = read_tested(first), read_tested(second)
    settings, notes = _settings(*runs), _notes(*runs)
    if runs[0].is_multi_label or runs[1].is_multi_label:
        compare_pairs.check_same_images(*runs)
        metric = runs[0].result["metric"]
        scores = [run.result["test"].get(metric) for run in runs]
        value = _value(metric, *scores, how="result.json of both", n=len(runs[0].rows))
        return Comparison(*runs, (value,), settings, (*notes, _NOT_FOR_MULTI_LABEL))
    paired = compare_pairs.pair(*runs)
    calibrations = calibrate(runs[0].folder, runs[0].rows), calibrate(runs[1].folder, runs[1].rows)
    values = [*_scores(runs, paired), *_chance(paired), *_calibration_values(calibrations)]
    return Comparison(*runs, tuple(values), settings, (*notes, *_odd(runs, paired)), paired, calibrations)


def _value(quantity: str, first: Any, second: Any, **more: Any) -> dict[str, Any]:
    known = isinstance(first, int | float) and isinstance(second, int | float)
    filled = dict.fromkeys(COLUMNS) | {"quantity": quantity, "first": first, "second": second}
    return filled | ({"difference": second - first} if known else {}) | more


def _scores(runs: tuple[TestedRun, TestedRun], paired: Paired) -> list[dict[str, Any]]:
    """Return every score of both runs with the paired interval of their difference."""
    rows = []
    metric = runs[0].result["metric"]
    for name in compare_pairs.scores_shown(metric):
        low, high = compare_pairs.difference95(paired, name)
        row = _value(
            name,
            *(compare_pairs.score(paired, run, name) for run in (0, 1)),
            low=low,
            high=high,
            n=len(paired.ids),
            how=compare_pairs.NORMAL if name == MEAN_PER_CLASS else compare_pairs.BOOTSTRAP,
        )
        for place, run in zip(("first", "second"), runs, strict=True):
            interval = run.result["test"].get("interval95") if name == metric else None
            row[f"{place}_low"], row[f"{place}_high"] = interval or (None, None)
        rows.append(row)
    return rows


def _chance(paired: Paired) -> list[dict[str, Any]]:
    """Return how often both agree, and McNemar's exact p."""
    counts = compare_pairs.agreement(paired)
    rows = [_count(name, count, len(paired.ids)) for name, count in counts.items()]
    p = compare_pairs.mcnemar(counts["only first right"], counts["only second right"])
    how = "two-sided binomial test on the images that only one run has right"
    return [*rows, dict.fromkeys(COLUMNS) | {"quantity": MCNEMAR, "value": p, "how": how}]


def _count(name: str, count: int, n: int) -> dict[str, Any]:
    return dict.fromkeys(COLUMNS) | {"quantity": name, "value": count, "n": n, "how": "images"}


def _calibration_values(found: tuple[Calibration, Calibration]) -> list[dict[str, Any]]:
    how = f"{BINS} bins of equal width"
    rows = [
        _value("calibration error", found[0].ece, found[1].ece, how=how),
        _value("loss", found[0].loss, found[1].loss, how="mean -log p of the true class"),
    ]
    after = f"first: {found[0].how}; second: {found[1].how}" if found[0].how != found[1].how else found[0].how
    texts = [" and ".join(f"{t:.4g}" for t in c.temperatures) or None for c in found]
    rows.append(_value("temperature", *texts, how=after))
    rows.append(_value("calibration error after temperature", found[0].ece_after, found[1].ece_after, how=after))
    rows.append(_value("loss after temperature", found[0].loss_after, found[1].loss_after, how=after))
    return rows


def _settings(first: TestedRun, second: TestedRun) -> dict[str, tuple[str, str]]:
    """Return the recipe keys in which the runs differ, their seeds among them."""
    found = []
    for run in (first, second):
        recipe = flat(read_yaml(run.folder / run_folder.RECIPE))
        found.append(settings_of(recipe) | {"train.seed": recipe.get("train.seed")})
    texts = {name: tuple(plain(values.get(name)) for values in found) for name in {**found[0], **found[1]}}
    return {name: both for name, both in texts.items() if both[0] != both[1]}


def _notes(*runs: TestedRun) -> tuple[str, ...]:
    notes = []
    for run in runs:
        notes += [f"{run.folder}: {stamp}" for stamp in run.result["stamps"]]
        notes += [f"{run.folder}: test opened {run.openings} times"] if run.openings > 1 else []
    if runs[0].folder.resolve() == runs[1].folder.resolve():
        notes.append("both are the same run")
    return tuple(notes)


def _odd(runs: tuple[TestedRun, TestedRun], paired: Paired) -> list[str]:
    """Return a note for each run whose predictions.csv does not give the score of its result.json."""
    metric = runs[0].result["metric"]
    return [
        f"{run.folder}: predictions.csv does not give the {metric} of result.json; the predictions are shown"
        for place, run in enumerate(runs)
        if metric in HIGHER_IS_BETTER
        and abs(compare_pairs.score(paired, place, metric) - run.result["test"].get(metric, -1)) > 1e-6
    ]
