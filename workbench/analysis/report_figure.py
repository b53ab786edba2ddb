"""The paper's Figure 6: parameters against transfer accuracy, with what was measured beside what is printed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from workbench import card_files
from workbench.analysis.report_printed import points
from workbench.analysis.report_tables import CARDS, IMAGENET, MEASURED, TRANSFER, Row
from workbench.specs.errors import UserError

_EFFICIENT, _OTHER, _OWN = "#b5371f", "#3b5b7d", "#2e8b6f"
_MOST_PANELS = 16
_FOOT = (
    "Red and blue: printed (Tan & Le 2019 Table 5, GPipe Table 4); its other points are not printed as numbers.",
    "Green: measured, with its row in the report; bars: 95 %, over seeds (filled) or over images of one run (hollow).",
    "Rows on a part of a set are not drawn.",
)


def draw_figure_6(rows: Sequence[Row], path: Path) -> None:
    """Draw one panel per dataset.

    Args:
        rows: Of a report; measured ones with known parameters are drawn.
        path: The PNG to write; its folder must exist.
    """
    own = [r for r in rows if r.what == MEASURED and r.params_m and not r.stamps and r.table != IMAGENET]
    sets = list(CARDS) if not own or any(row.table == TRANSFER for row in own) else []
    sets += list(dict.fromkeys(row.dataset for row in own if row.dataset not in sets))
    more = f" {len(sets) - _MOST_PANELS} more sets are not drawn." if len(sets) > _MOST_PANELS else ""
    sets = sets[:_MOST_PANELS]
    columns = min(4, len(sets))
    lines = math.ceil(len(sets) / columns)
    figure = Figure(figsize=(max(6.4, 3.6 * columns), 3.3 * lines + 0.9), layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False).ravel()
    for axes, name in zip(panels, sets, strict=False):
        _panel(axes, name, [row for row in own if row.dataset == name])
    for axes in panels[len(sets) :]:
        axes.remove()
    figure.suptitle("Parameters against accuracy (Figure 6)")
    figure.supxlabel("parameters without the head (M)", fontsize=9)
    figure.supylabel("accuracy (%)", fontsize=9)
    figure.text(0.5, -0.01, "\n".join(_FOOT) + more, fontsize=7, ha="center", va="top")
    FigureCanvasAgg(figure)
    figure.savefig(path, format="png", dpi=110, metadata={"Software": None}, bbox_inches="tight")


def _panel(axes: Axes, name: str, own: Sequence[Row]) -> None:
    printed = points(name)
    family = [point for point in printed if point[3]]
    axes.plot([p[1] for p in family], [p[2] for p in family], "--o", color=_EFFICIENT, lw=1, markersize=5)
    others = [point for point in printed if not point[3]]
    axes.scatter([p[1] for p in others], [p[2] for p in others], color=_OTHER, s=24)
    for model, params, percent, is_efficient in printed:
        axes.annotate(
            model,
            (params, percent),
            textcoords="offset points",
            xytext=(-4, 4) if is_efficient else (0, -10),
            ha="right" if is_efficient else "center",
            fontsize=7,
            color=_EFFICIENT if is_efficient else _OTHER,
        )
    for row in own:
        spread = None if row.low is None else [[max(0, row.percent - row.low)], [max(0, row.high - row.percent)]]
        fill = _OWN if (row.num_seeds or 1) > 1 else "white"
        axes.errorbar(row.params_m, row.percent, spread, fmt="D", color=_OWN, mfc=fill, capsize=3, markersize=5)
        label = f"{row.model} (row {row.number})"
        axes.annotate(
            label, (row.params_m, row.percent), textcoords="offset points", xytext=(7, -3), fontsize=7, color=_OWN
        )
    axes.set(xscale="log", title=_title(name))
    axes.title.set_size(10)
    found = [p[1] for p in printed] + [row.params_m for row in own]
    axes.set_xlim(min(found) / 2.2, max(found) * 2.6)
    axes.margins(y=0.2)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=12))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)


def _title(name: str) -> str:
    """Return a set's title; a dollar sign in a name of the user's is no formula."""
    try:
        title = card_files.load_card(name).title or name
    except UserError:
        title = name
    return title.replace("$", r"\$")
