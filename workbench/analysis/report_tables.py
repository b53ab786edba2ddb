"""The rows of a report: what was published and, below it, what was measured, each with its source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from workbench.analysis.report_groups import Group, expectation, parameters_m, plain
from workbench.analysis.report_runs import RunScore
from workbench.specs import published
from workbench.specs.metric_names import TOP1, TOP5
from workbench.specs.paper_models import TABLE_2, paper_model
from workbench.specs.published import published_for, transfers_of

TRANSFER, IMAGENET, OTHER, CHOOSING = "Table 5", "Table 2", "other sets", "selection only"
MEASURED = "measured"
CARDS = tuple(dict.fromkeys(row.card for row in published.TABLE_5))
AGAINST = {"public": "previous best, public", "reported": "previous best, reported"}
PREVIOUS = tuple(AGAINST.values())


@dataclass(frozen=True)
class Row:
    """One row of a table, and of report.csv, whose columns are these in this order.

    Args:
        table: `TRANSFER`, `IMAGENET`, `OTHER` or `CHOOSING`.
        dataset: Name of the card.
        number: Of a measured row, counted through the report; 0 otherwise.
        what: `published`, a kind of previous best, or `MEASURED`.
        model: Its name; a measured one's architecture.
        recipe: Of a measured row.
        weights: Where its training started.
        metric: What the accuracy is.
        percent: Accuracy: of a measured row the mean over seeds.
        document: What the section document prints instead, where it is known to differ.
        low: Lower end of the 95 % interval, percent.
        high: Upper end, percent.
        interval_of: What the interval is over.
        lowest: Lowest seed, percent.
        highest: Highest seed, percent.
        num_seeds: Runs averaged.
        seeds: Their seeds.
        num_images: Test images of each.
        top5: Percent, in `IMAGENET`.
        params_m: Millions; without the head but in `IMAGENET`, as the tables print them.
        flops_b: Multiply-adds as printed, billions.
        document_flops_b: What the section document prints instead, where that differs.
        reduction: How many times fewer parameters, and than what.
        beside: A measured row's published value and on which side of the interval it lies.
        expected: `inside`, `below` or `above` what the recipe has been measured to give.
        expectation: The same in a sentence.
        stamps: What makes it a part of the set.
        flags: What else a reader must know: other stamps, test opened again, images dropped or leaked.
        differs: What differs from the other measured rows of this set and architecture.
        source: Paper and table, or where the runs came from.
        runs: Their folders.
    """

    table: str
    dataset: str
    number: int = 0
    what: str = MEASURED
    model: str = ""
    recipe: str = ""
    weights: str = ""
    metric: str = ""
    percent: float | None = None
    document: float | None = None
    low: float | None = None
    high: float | None = None
    interval_of: str = ""
    lowest: float | None = None
    highest: float | None = None
    num_seeds: int | None = None
    seeds: str = ""
    num_images: int | None = None
    top5: float | None = None
    params_m: float | None = None
    flops_b: float | None = None
    document_flops_b: float | None = None
    reduction: str = ""
    beside: str = ""
    expected: str = ""
    expectation: str = ""
    stamps: str = ""
    flags: str = ""
    differs: str = ""
    source: str = ""
    runs: str = ""


def table_of(dataset: str) -> str:
    """Return the table that a dataset's results belong to."""
    return IMAGENET if dataset == "imagenet" else TRANSFER if dataset in CARDS else OTHER


def measured_row(group: Group, number: int, differs: dict[str, str]) -> Row:
    """Return the row of a group.

    Args:
        group: The runs.
        number: Its number in the report.
        differs: `key -> value` in which it differs from other groups of this dataset and architecture.
    """
    run, summary, table = group.first, group.summary, table_of(group.first.dataset)
    low, high = group.interval95 or (None, None)
    top5 = group.mean_of(f"test/{TOP5}") if table == IMAGENET else None
    params = parameters_m(run.backbone, 1000 if table == IMAGENET else 0)
    expected, sentence = expectation(group)
    flags = list(group.flags)
    if group.repeated:
        flags.append(f"not counted, same seed again: {', '.join(group.repeated)}")
    return Row(
        table,
        run.dataset,
        number,
        model=run.arch,
        recipe=run.recipe,
        weights=run.weights,
        metric=run.metric,
        percent=100 * summary.mean,
        low=_percent(low),
        high=_percent(high),
        interval_of=group.interval_of,
        lowest=100 * summary.lowest,
        highest=100 * summary.highest,
        num_seeds=summary.n,
        seeds=group.seeds,
        num_images=group.num_images,
        top5=_percent(top5),
        params_m=params,
        reduction=_reduction(run, params),
        beside=_beside(group),
        expected=expected,
        expectation=sentence,
        stamps="; ".join(run.parts),
        flags="; ".join(flags),
        differs="; ".join(f"{key}: {value}" for key, value in differs.items()),
        source=run.source,
        runs=" ".join(run.name for run in group.runs),
    )


def _percent(fraction: float | None) -> float | None:
    return None if fraction is None else 100 * fraction


def _reduction(run: RunScore, params: float | None) -> str:
    if params is None:
        return ""
    others: list[tuple[str, float]] = []
    if table_of(run.dataset) == IMAGENET:
        others = [(row.title, row.params_m) for row in TABLE_2 if row.beside == run.arch != row.arch]
    else:
        others = [(row.other, row.other_params_m) for row in transfers_of(run.dataset) if row.other_params_m]
    return ", ".join(f"{times(other / params)} fewer than {name}" for name, other in others)


def times(ratio: float) -> str:
    """Return a ratio as text, as Table 5 rounds it."""
    return f"{ratio:.0f}x" if ratio >= 10 else f"{ratio:.1f}x"


def _beside(group: Group) -> str:
    """Say what is published for this set and architecture, and whether the interval holds it."""
    run = group.first
    if table_of(run.dataset) == IMAGENET:
        model = paper_model(run.arch)
        percent = model and run.metric == TOP1 and model.top1
    else:
        found = published_for(run.dataset, run.arch)
        percent = found and round(100 * found.accuracy, 6)
    if not percent:
        return "none is printed for this arch" if table_of(run.dataset) != OTHER else ""
    if run.parts:
        return f"{percent:.1f}: not comparable, part of the set"
    if group.interval95 is None:
        return f"{percent:.1f}: no interval"
    low, high = (100 * end for end in group.interval95)
    where = "inside" if low <= percent <= high else "outside, above" if percent > high else "outside, below"
    return f"{percent:.1f}: {where} the interval"


def choosing_rows(runs: Sequence[RunScore]) -> list[Row]:
    """Return a row per run whose test split was never opened, best first within each dataset."""
    closed = [run for run in runs if run.test is None and run.selection is not None]
    closed.sort(key=lambda run: (run.dataset, -run.selection[run.metric]))
    return [
        Row(
            CHOOSING,
            run.dataset,
            what="selection split",
            model=run.arch,
            recipe=run.recipe,
            weights=run.weights,
            metric=run.metric,
            percent=100 * run.selection[run.metric],
            num_seeds=1,
            seeds=plain(run.seed),
            num_images=run.selection.get("n"),
            stamps="; ".join(run.parts),
            flags="; ".join(run.told),
            source=run.source,
            runs=run.name,
        )
        for run in closed
    ]
