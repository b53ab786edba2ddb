"""The charts of a run's page as the numbers that its template draws in SVG: curves and a reliability diagram."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from workbench.training.calibration import BINS, calibration_error

WIDTH, HEIGHT = 360, 210
"""Of a chart in SVG units; about its size on a phone in CSS pixels, so that its letters are as large as the page's."""
LEFT, RIGHT, TOP, BOTTOM = 46, 8, 26, 26
MOST_POINTS = 400
"""Of one line; more rows are averaged in groups. A choice of this project: finer than a screen shows."""


@dataclass(frozen=True)
class Line:
    """One line of a chart.

    Args:
        name: Of the legend.
        points: `x,y` in SVG units.
        is_main: Whether it has the accent colour.
    """

    name: str
    points: tuple[tuple[float, float], ...]
    is_main: bool


@dataclass(frozen=True)
class Chart:
    """One chart with its axes.

    Args:
        title: What is drawn.
        told: The same in words, for who does not see it.
        lines: At least one.
        x_ticks: (place, label) along the bottom.
        y_ticks: (place, label) along the left.
        marks: (place, label) of vertical lines: where a phase begins.
    """

    title: str
    told: str
    lines: tuple[Line, ...]
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    marks: tuple[tuple[float, str], ...]


@dataclass(frozen=True)
class Bin:
    """Answers of like confidence.

    Args:
        low: Least confidence.
        high: Greatest confidence.
        n: Images.
        confidence: Their mean confidence.
        right: Share of them that is right.
    """

    low: float
    high: float
    n: int
    confidence: float
    right: float


def curves(rows: Sequence[dict[str, float]], result: dict[str, Any], phases: Sequence[str]) -> list[Chart]:
    """Return the charts of metrics.csv: loss, the set's own metric on selection, learning rate; those that have rows.

    Args:
        rows: Rows of metrics.csv.
        result: result.json's content.
        phases: Names of the phases, in order; empty if there is one.
    """
    own = result["metric"]
    wanted = [
        ("Loss", (("train/loss", "training"), ("val/loss", "selection")), 1.0),
        (f"{own} on selection, %", ((f"val/{own}", "selection"),), 100.0),
        ("Learning rate", (("train/lr", "rate"),), 1.0),
    ]
    scale = 1.0 if "probe" in result else (result["epochs"] / result["steps"] if result["steps"] else 1.0)
    begins = _phase_begins(rows, phases, scale)
    charts = []
    for title, columns, factor in wanted:
        drawn = [(name, _points(rows, column, scale, factor)) for column, name in columns]
        drawn = [(name, points) for name, points in drawn if points]
        if drawn:
            charts.append(_chart(title, drawn, begins, "strength" if "probe" in result else "epoch"))
    return charts


def _points(rows: Sequence[dict[str, float]], column: str, scale: float, factor: float) -> list[tuple[float, float]]:
    found = [(row["step"] * scale, row[column] * factor) for row in rows if math.isfinite(row.get(column, math.nan))]
    group = math.ceil(len(found) / MOST_POINTS)
    return [tuple(np.mean(found[i : i + group], axis=0).tolist()) for i in range(0, len(found), group or 1)]


def _phase_begins(rows: Sequence[dict[str, float]], phases: Sequence[str], scale: float) -> list[tuple[float, str]]:
    """Return (x, name) of each phase that has rows; nothing if there is one."""
    seen: dict[int, float] = {}
    for row in rows:
        if math.isfinite(row.get("phase", math.nan)):
            seen.setdefault(int(row["phase"]), row["step"] * scale)
    if len(seen) < 2:
        return []
    return [(x, phases[i] if i < len(phases) else f"phase {i + 1}") for i, x in sorted(seen.items())]


def _chart(title: str, drawn: list[tuple[str, Any]], begins: list[tuple[float, str]], unit: str) -> Chart:
    xs, ys = ([point[i] for _, points in drawn for point in points] for i in (0, 1))
    x_steps, y_steps = ticks(0.0, max(xs)), ticks(min(ys), max(ys))
    x_low, x_high = 0.0, max(*xs, 1e-12)
    y_low, y_high = min(y_steps[0], *ys), max(y_steps[-1], *ys)

    def x_at(value: float) -> float:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * (value - x_low) / (x_high - x_low), 1)

    def y_at(value: float) -> float:
        return round(HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (value - y_low) / ((y_high - y_low) or 1.0), 1)

    words = [f"{name} from {p[0][1]:.4g} to {p[-1][1]:.4g} at {unit} {p[-1][0]:.4g}" for name, p in drawn]
    lines = tuple(
        Line(name, tuple((x_at(x), y_at(y)) for x, y in points), place == len(drawn) - 1)
        for place, (name, points) in enumerate(drawn)
    )
    x_ticks = [(x_at(x), f"{x:g}") for x in x_steps if x <= x_high * 1.0001]
    x_ticks[-1] = (x_ticks[-1][0], f"{unit} {x_ticks[-1][1]}")
    y_ticks = tuple((y_at(y), f"{y:g}") for y in y_steps)
    marks = tuple((x_at(x) if place else x_at(0), name) for place, (x, name) in enumerate(begins))
    return Chart(title, f"{title}: {'; '.join(words)}", lines, tuple(x_ticks), y_ticks, marks)


def ticks(low: float, high: float, about: int = 4) -> list[float]:
    """Return round numbers (1, 2 or 5 times a power of ten apart) from `low` or below it to `high` or above it."""
    if high - low <= 1e-9 * max(abs(high), abs(low)):
        low, high = low - (abs(low) or 1.0) / 2, high + (abs(high) or 1.0) / 2
    rough = (high - low) / about
    power = 10 ** math.floor(math.log10(rough))
    step = next(k * power for k in (1, 2, 5, 10) if k * power >= rough * 0.9999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [float(f"{i * step:.10g}") for i in range(first, last + 1)]


def reliability(confidence: np.ndarray, right: np.ndarray) -> tuple[list[Bin], float]:
    """Return the bins of a reliability diagram that hold images, and the expected calibration error.

    Args:
        confidence: (N,) probability of the answer, in [0, 1].
        right: (N,) bool.
    """
    place = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    bins = []
    for i in np.unique(place):
        inside = place == i
        means = float(confidence[inside].mean()), float(right[inside].mean())
        bins.append(Bin(i / BINS, (i + 1) / BINS, int(inside.sum()), *means))
    return bins, calibration_error(confidence, right)
