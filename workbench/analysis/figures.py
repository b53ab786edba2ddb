"""Pictures of the paper's Figures 5 and 8 and of its Table 3: accuracy against FLOPS and parameters.

Accuracies are the paper's; nothing here was trained. Every picture says in its foot what was printed and what counted.
"""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from workbench.analysis.paper_tables import imagenet_rows
from workbench.specs.architectures import Scaling, count_madds
from workbench.specs.paper_models import SOURCE, TABLE_2, TABLE_3, TABLE_7, ScaledModel

_EFFICIENT, _OTHER, _COUNTED = "#b5371f", "#3b5b7d", "#888888"
_WAYS = {
    "width": ("#3b5b7d", "s"),
    "depth": ("#2e8b6f", "^"),
    "resolution": ("#c98a1b", "D"),
    "compound": (_EFFICIENT, "o"),
}


def draw_all(folder: Path) -> list[Path]:
    """Draw every picture into a folder, which is made if missing.

    Returns:
        The PNG files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    makers = {"figure_5.png": figure_5, "figure_8.png": figure_8, "table_3.png": table_3}
    return [_save(make(), folder / name) for name, make in makers.items()]


def figure_5() -> Figure:
    """Draw top-1 against FLOPS (the paper's Figure 5) and against parameters, all models of Table 2."""
    figure = Figure(figsize=(13, 5.6), layout="constrained")
    counted = {row["arch"]: row for row in imagenet_rows()}
    columns = (
        ("flops_b", "counted_madds_g", "multiply-adds (B)"),
        ("params_m", "counted_params_m", "parameters (M)"),
    )
    for axes, (column, own_column, label) in zip(figure.subplots(1, 2), columns, strict=True):
        shown = [row for row in TABLE_2 if getattr(row, column) is not None]
        family = [row for row in shown if row.arch == row.beside]
        others = [row for row in shown if row.arch != row.beside]
        axes.plot([getattr(row, column) for row in family], [row.top1 for row in family], "-o", color=_EFFICIENT)
        axes.scatter([getattr(row, column) for row in others], [row.top1 for row in others], color=_OTHER, s=26)
        own = [(counted[row.arch][own_column], row.top1) for row in shown if counted[row.arch][own_column]]
        axes.scatter(*zip(*own, strict=True), marker="x", color=_COUNTED, s=30, linewidths=1, zorder=3)
        for row in shown:
            _name(axes, row.title.removeprefix("EfficientNet-"), getattr(row, column), row.top1, row in family)
        axes.set(xscale="log", xlabel=label, ylabel="ImageNet top-1 (%)")
        _plain(axes)
    figure.suptitle("ImageNet accuracy of the networks in Table 2 (Figure 5: against FLOPS)")
    _foot(figure, "Dots: Table 2. Crosses: counted here, drawn at the printed accuracy; PolyNet is not built.")
    return figure


def figure_8() -> Figure:
    """Draw B0 scaled four ways: the printed accuracies of Figure 8's nets, and what each coefficient costs."""
    figure = Figure(figsize=(12, 5), layout="constrained")
    left, right = figure.subplots(1, 2)
    _ways(left, TABLE_7)
    left.set(title="B0 scaled four ways: the points of Figure 8 that are printed", ylim=(76.5, 82))
    factors = [1 + step / 10 for step in range(31)]
    costs = {
        "width": lambda k: Scaling("", k, 1, 224, 0),
        "depth": lambda k: Scaling("", 1, k, 224, 0),
        "resolution": lambda k: Scaling("", 1, 1, round(224 * k), 0),
    }
    for way, scaled in costs.items():
        madds = [count_madds(scaled(k), 1000) / 1e9 for k in factors]
        right.plot(factors, madds, color=_WAYS[way][0], label=way)
    phis = [step / 5 for step in range(21)]
    compound = [Scaling("", 1.1**p, 1.2**p, round(224 * 1.15**p), 0) for p in phis]
    madds = [count_madds(scaling, 1000) / 1e9 for scaling in compound]
    right.plot([1.15**p for p in phis], madds, color=_EFFICIENT, label=r"compound, against $1.15^\phi$")
    right.set(title="what a coefficient costs (counted)", xlabel="coefficient", ylabel="multiply-adds (B)")
    right.legend(frameon=False)
    _plain(right)
    _foot(figure, "Left: accuracy and FLOPS of Table 7; the curves of Figure 8 itself are not printed as numbers.")
    return figure


def table_3() -> Figure:
    """Draw Table 3: three networks, each scaled by width, depth, resolution, and all three."""
    families = list(dict.fromkeys(row.family for row in TABLE_3))
    figure = Figure(figsize=(13, 4.6), layout="constrained")
    for axes, family in zip(figure.subplots(1, len(families)), families, strict=True):
        _ways(axes, [row for row in TABLE_3 if row.family == family])
        axes.set_title(family)
    figure.suptitle("Compound scaling of other networks (Table 3)")
    _foot(figure, "Accuracy and FLOPS of Table 3. MobileNetV1 has no row for depth.")
    return figure


def _ways(axes: Axes, rows: list[ScaledModel] | tuple[ScaledModel, ...]) -> None:
    """Draw a baseline and a line from it to each way of scaling."""
    base, *scaled = rows
    for row in scaled:
        colour, marker = _WAYS[row.scaled.split()[0]]
        line = [base.flops_b, row.flops_b], [base.top1, row.top1]
        axes.plot(*line, color=colour, marker=marker, markevery=[1], label=f"{row.scaled}: {row.top1}")
    axes.plot(base.flops_b, base.top1, "o", color="black", label=f"baseline: {base.top1}")
    axes.set(xlabel="multiply-adds (B)", ylabel="ImageNet top-1 (%)")
    axes.legend(frameon=False, loc="upper left", fontsize=8)
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + 0.45 * (high - low))
    _plain(axes)


_ASIDE = {  # where points crowd: label to the left of its point, this many points of type up
    "PNASNet": 4,
    "AmoebaNet-A": -3,
    "NASNet-A": -10,
    "Inception-ResNet-v2": 3,
    "Inception-v4": -10,
    "DenseNet-264": -3,
    "DenseNet-169": -3,
    "Xception": -3,
}


def _name(axes: Axes, text: str, x: float, y: float, is_efficient: bool) -> None:
    offset, side, colour = (6, -9), "left", _OTHER
    if is_efficient:
        offset, side, colour = (-4, 6), "right", _EFFICIENT
    elif text in _ASIDE:
        offset, side = (-8, _ASIDE[text]), "right"
    axes.annotate(text, (x, y), textcoords="offset points", fontsize=8, color=colour, xytext=offset, ha=side)


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)


def _foot(figure: Figure, text: str) -> None:
    figure.supxlabel(f"{text} Source: {SOURCE}.", fontsize=8)


def _save(figure: Figure, path: Path) -> Path:
    FigureCanvasAgg(figure)
    figure.savefig(path, dpi=110, metadata={"Software": None})
    return path
