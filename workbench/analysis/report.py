"""`report`: finished runs beside the paper's Tables 5 and 2 and its Figure 6, as Markdown, CSV, HTML and a picture."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path

from workbench.analysis.report_figure import draw_figure_6
from workbench.analysis.report_groups import Group, differences, group_runs
from workbench.analysis.report_pages import to_html, to_markdown, write_csv
from workbench.analysis.report_printed import imagenet_rows, transfer_rows
from workbench.analysis.report_runs import find_runs
from workbench.analysis.report_sections import MARKDOWN, Report, sections
from workbench.analysis.report_tables import (
    CARDS,
    IMAGENET,
    OTHER,
    TRANSFER,
    Row,
    choosing_rows,
    measured_row,
)
from workbench.analysis.report_wandb import read_export
from workbench.atomic import replacing
from workbench.specs.errors import UserError

CSV, HTML, FIGURE = "report.csv", "report.html", "figure6.png"
_TITLE = "Measured beside published"


def make_report(paths: Iterable[str | Path], exports: Iterable[str | Path] = ()) -> Report:
    """Read runs, group those that differ by seed only, and put them beside what is published.

    Args:
        paths: Run folders or folders of them; outputs of `evaluate --json`.
        exports: CSV files exported from W&B.

    Raises:
        UserError: No finished run, or a file that is not what it should be.
    """
    paths = list(paths)
    runs, left_out = find_runs(paths)
    for export in exports:
        more, without = read_export(export)
        runs, left_out = [*runs, *more], [*left_out, *without]
    if not runs:
        found = "; ".join(f"{entry.name}: {entry.reason}" for entry in left_out[:5]) or "no run folder in them"
        where = ", ".join(map(str, paths)) or "the exports"
        raise UserError.of("report", f"{where}: {found}", "a finished run, with result.json", "finish a fit first")
    groups = sorted(group_runs(runs), key=_place)
    own, differing = _own_rows(groups)
    return Report((*_tables(own), *choosing_rows(runs)), differing, tuple(left_out), len(runs))


def _place(group: Group) -> tuple:
    run = group.first
    card = CARDS.index(run.dataset) if run.dataset in CARDS else len(CARDS)
    return card, run.dataset, run.arch, bool(run.parts), run.recipe, run.name


def _own_rows(groups: Sequence[Group]) -> tuple[list[Row], tuple]:
    """Number the groups and find out what differs between those of one set and architecture."""
    alike: dict[tuple[str, str], list[int]] = {}
    for place, group in enumerate(groups):
        alike.setdefault((group.first.dataset, group.first.arch), []).append(place)
    differs: dict[int, dict[str, str]] = {}
    differing = []
    for (dataset, arch), places in alike.items():
        found = differences([groups[place] for place in places]) if len(places) > 1 else {}
        if len(places) > 1:
            differing.append((dataset, arch, tuple(place + 1 for place in places), found))
        for column, place in enumerate(places):
            differs[place] = {key: values[column] for key, values in found.items()}
    rows = [measured_row(group, place + 1, differs[place]) for place, group in enumerate(groups)]
    return rows, tuple(differing)


def _tables(own: Sequence[Row]) -> list[Row]:
    """Return published and measured rows, table by table."""
    rows: list[Row] = []
    if any(row.table == TRANSFER for row in own):
        for card in CARDS:
            rows += [*transfer_rows(card), *(row for row in own if row.dataset == card)]
    tested = [row for row in own if row.table == IMAGENET]
    rows += [*(imagenet_rows([row.model for row in tested]) if tested else []), *tested]
    return rows + [row for row in own if row.table == OTHER]


def write_report(report: Report, folder: Path) -> list[Path]:
    """Write report.md, report.csv, report.html and figure6.png.

    Args:
        report: What `make_report` found.
        folder: Made if missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    picture = bool(report.measured)
    parts = sections(report)
    paths = [folder / name for name in (MARKDOWN, CSV, HTML, FIGURE)]
    markdown, table, page, figure = paths
    write_csv(table, report.rows, [field.name for field in dataclasses.fields(Row)])
    with replacing(figure) as beside:
        draw_figure_6(report.rows, beside)
    with replacing(markdown) as beside:
        beside.write_text(to_markdown(_TITLE, parts, FIGURE if picture else ""), encoding="utf-8")
    with replacing(page) as beside:
        beside.write_text(to_html(_TITLE, parts, "report.jinja", figure if picture else None), encoding="utf-8")
    return paths
