"""A report as parts of a page: what it is, the tables, what differs, what was left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from workbench.analysis.report_pages import Section, line
from workbench.analysis.report_runs import RUN, LeftOut
from workbench.analysis.report_tables import CHOOSING, IMAGENET, MEASURED, OTHER, PREVIOUS, TRANSFER, Row
from workbench.specs.paper_models import SOURCE as PAPER
from workbench.specs.published import DOCUMENT_NOTE, SOURCE

MARKDOWN = "report.md"
_SHOWN = 20
"""Rows of a list that pages show; report.csv has all."""


@dataclass(frozen=True)
class Report:
    """What was found.

    Args:
        rows: Of all tables, in order; columns of report.csv.
        differing: (set, architecture, numbers of its rows, `key -> value in each`) where recipes differ.
        left_out: What was found and is in no row.
        num_runs: Runs that were read.
    """

    rows: tuple[Row, ...]
    differing: tuple[tuple[str, str, tuple[int, ...], dict[str, list[str]]], ...]
    left_out: tuple[LeftOut, ...]
    num_runs: int

    def of(self, table: str) -> list[Row]:
        """Return the rows of one table."""
        return [row for row in self.rows if row.table == table]

    @property
    def measured(self) -> list[Row]:
        """The rows that were measured on test."""
        return [row for row in self.rows if row.what == MEASURED]


def sections(report: Report) -> list[Section]:
    """Return a report as parts of a page, those without rows left out."""
    found = [_summary(report)]
    if rows := report.of(TRANSFER):
        text = (
            "Accuracy is top-1, or the mean over classes for Aircraft, Pets and Flowers; that the paper does so too is "
            "assumed, it does not say. Parameters are without the head, as the paper prints them.",
            f"Published: {SOURCE}.",
            DOCUMENT_NOTE,
        )
        found.append(_section("Transfer results (Table 5)", text, rows))
    if rows := report.of(IMAGENET):
        text = (f"Published: {PAPER}, Table 2. Parameters with the head of 1000 classes; FLOPS as printed.",)
        found.append(_section("ImageNet (Table 2)", text, rows))
    if rows := report.of(OTHER):
        found.append(_section("Other sets", ("Nothing is published for these.",), rows))
    if report.differing:
        found.append(_differing(report))
    if rows := report.of(CHOOSING):
        found.append(_choosing(rows))
    if report.left_out:
        notes = [f"{entry.name}: {entry.reason}" for entry in report.left_out]
        found.append(Section("Left out", notes=_bounded(notes)))
    return found


def _summary(report: Report) -> Section:
    measured = report.measured
    text = (
        f"Runs that were read: {report.num_runs}. Measured rows on test: {len(measured)}; on the selection split only: "
    )
    text += (
        f"{len(report.of(CHOOSING))}; left out: {len(report.left_out)}. Runs are averaged only where nothing but the "
    )
    text += "seed differs. An interval over seeds is Student's t, of the mean; one over images is of one run, and says "
    text += "nothing of other seeds."
    notes = [f"row {row.number}: {row.expectation}" for row in measured if row.expectation]
    notes += [
        f"row {row.number} is on a part of the set, and never averaged with whole sets: {row.stamps}"
        for row in measured
        if row.stamps
    ]
    notes += [f"row {row.number}: {row.flags}" for row in measured if row.flags]
    return Section("What this is", (text,), notes=tuple(notes))


def _section(title: str, text: tuple[str, ...], rows: Sequence[Row]) -> Section:
    """Return a table; a previous best stands in the row of the EfficientNet that is compared with it."""
    header = ["row", "set", "what", "model", "accuracy %", "95 % interval", "runs", "images", "params M"]
    has_top5 = any(row.top5 is not None for row in rows)
    header += ["compared with", "published"]
    header[5:5] = ["top-5 %"] if has_top5 else []
    header[-2:-2] = ["FLOPS B"] if has_top5 else []
    cells, marked, before = [], set(), ""
    for row in rows:
        if row.what in PREVIOUS:
            size = f", {row.params_m:g}M" if row.params_m else ""
            before = f"{row.what.removeprefix('previous ')}: {row.model} {row.percent:.1f}{size}"
            continue
        made = [str(row.number or ""), row.dataset, _what(row), row.model, _accuracy(row), _interval(row), _seeds(row)]
        made += [_text(row.num_images), _params(row), "; ".join(filter(None, (before, row.reduction))), row.beside]
        made[5:5] = [_text(row.top5, 2 if row.number else 1)] if has_top5 else []
        made[-2:-2] = [_flops(row)] if has_top5 else []
        marked |= {len(cells)} if row.number else set()
        cells.append(tuple(made))
        before = ""
    return Section(title, text, tuple(header), tuple(cells), frozenset(marked))


def _what(row: Row) -> str:
    if not row.number:
        return row.what
    notes = filter(None, ("part of the set" if row.stamps else "", row.source if row.source != RUN else ""))
    return f"{row.what}: {row.recipe}" + "".join(f" ({note})" for note in notes)


def _accuracy(row: Row) -> str:
    other = f" (document: {row.document:.1f})" if row.document is not None else ""
    return _text(row.percent, 2 if row.number else 1) + other


def _flops(row: Row) -> str:
    other = f" (document: {row.document_flops_b:g})" if row.document_flops_b is not None else ""
    return "" if row.flops_b is None else f"{row.flops_b:g}{other}"


def _interval(row: Row) -> str:
    if row.low is None:
        return "none" if row.number else ""
    span = f"; seeds {row.lowest:.2f} to {row.highest:.2f}" if (row.num_seeds or 1) > 1 else ""
    return f"{row.low:.2f} to {row.high:.2f}, {row.interval_of}{span}"


def _seeds(row: Row) -> str:
    return "" if row.num_seeds is None else f"{row.num_seeds} (seed{'s' if row.num_seeds > 1 else ''} {row.seeds})"


def _params(row: Row) -> str:
    return "" if row.params_m is None else f"{row.params_m:.2f}" if row.number else f"{row.params_m:g}"


def _text(value: float | int | None, digits: int = 0) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _differing(report: Report) -> Section:
    notes = []
    for dataset, arch, numbers, found in report.differing:
        listed = [f"{key}: {' vs '.join(values)}" for key, values in found.items()]
        more = f"; and {len(listed) - _SHOWN} more keys, in report.csv" if len(listed) > _SHOWN else ""
        told = "; ".join(listed[:_SHOWN]) or "seeds that are not known"
        notes.append(f"{dataset}, {arch}, rows {', '.join(map(str, numbers))}: {told}{more}")
    text = "Rows of one set and architecture that are not averaged, and what differs between them, in their order."
    return Section("Different recipes or images", (text,), notes=tuple(notes))


def _choosing(rows: Sequence[Row]) -> Section:
    text = f"{len(rows)} runs whose test split stayed closed: figures to choose by, not results."
    text += f" The best {_SHOWN} are shown." if len(rows) > _SHOWN else ""
    cells = [
        (
            row.dataset,
            row.model,
            row.recipe,
            row.metric,
            _text(row.percent, 2),
            _text(row.num_images),
            row.seeds,
            row.runs,
        )
        for row in rows[:_SHOWN]
    ]
    header = ("set", "model", "recipe", "score", "selection %", "images", "seed", "run")
    return Section("Selection only", (text,), header, tuple(cells), notes=_stamped(rows[:_SHOWN]))


def _stamped(rows: Sequence[Row]) -> tuple[str, ...]:
    return tuple(
        f"{row.runs}: {'; '.join(filter(None, (row.stamps, row.flags)))}" for row in rows if row.stamps or row.flags
    )


def _bounded(notes: Sequence[str]) -> tuple[str, ...]:
    more = (f"and {len(notes) - _SHOWN} more",) if len(notes) > _SHOWN else ()
    return (*notes[:_SHOWN], *more)


def briefly(report: Report) -> str:
    """Return the measured rows and what they are expected to be as short Markdown, for a terminal."""
    header = "| row | set | model | recipe | accuracy % | 95 % interval | runs | published |\n|" + " --- |" * 8
    lines = [header] if report.measured else []
    for row in report.measured:
        part = " (part of the set)" if row.stamps else ""
        cells = [
            str(row.number),
            row.dataset + part,
            row.model,
            row.recipe,
            _accuracy(row),
            _interval(row),
            _seeds(row),
        ]
        lines.append(line([*cells, row.beside]))
    lines += [f"row {row.number}: {row.expectation}" for row in report.measured if row.expectation]
    closed = len(report.of(CHOOSING))
    lines += [f"{closed} runs on the selection split only"] if closed else []
    lines += [f"{len(report.left_out)} left out, listed in {MARKDOWN}"] if report.left_out else []
    return "\n".join(lines)
