"""report.html of one run: a single self-contained page, made from the run folder's own files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, select_autoescape

from workbench.data.image_datamodule import ImageDataModule
from workbench.specs.metric_names import SCORES
from workbench.training import run_folder
from workbench.training.metrics_csv import read_metrics
from workbench.training.results import SplitResult

_WIDTH, _HEIGHT = 640, 200
"""Size of a curve in SVG units; the page scales it."""


def write_page(folder: Path, result: dict[str, Any], shown: SplitResult | None, data: ImageDataModule) -> None:
    """Write report.html.

    Args:
        folder: A run folder with metrics.csv and recipe.yaml.
        result: What result.json will hold.
        shown: The split whose classes and mistakes are listed, or None if nothing was evaluated.
        data: Gives names of classes and images.
    """
    rows = read_metrics(folder / run_folder.METRICS)
    metric = f"val/{result['metric']}"
    curves = [curve(rows, name) for name in ("train/loss", metric, "train/lr") if any(name in row for row in rows)]
    environment = Environment(
        loader=PackageLoader("workbench.training", "."), autoescape=select_autoescape(default=True)
    )
    page = environment.get_template("run_page.jinja").render(
        result=result,
        scores=score_rows(result),
        curves=curves,
        classes=_classes(shown, data) if shown and not shown.is_multi_label else [],
        mistakes=_mistakes(shown, data) if shown and not shown.is_multi_label else [],
        split=shown.split if shown else "",
        recipe=(folder / run_folder.RECIPE).read_text(encoding="utf-8"),
        command=(folder / run_folder.COMMAND).read_text(encoding="utf-8"),
        environment=run_folder.read_json(folder / run_folder.ENVIRONMENT),
    )
    run_folder.write_text(folder / run_folder.PAGE, page)


def curve(rows: list[dict[str, float]], name: str) -> dict[str, Any]:
    """Return one metric over steps as the points of an SVG line, with the ends of both axes.

    Args:
        rows: Rows of metrics.csv.
        name: The column.
    """
    points = [(row["step"], row[name]) for row in rows if name in row]
    steps, values = [p[0] for p in points], [p[1] for p in points]
    low, high, last = min(values), max(values), max(steps)
    span = (high - low) or 1.0
    scaled = " ".join(f"{_WIDTH * s / last:.1f},{_HEIGHT * (1 - (v - low) / span):.1f}" for s, v in points)
    return {"name": name, "points": scaled, "low": low, "high": high, "last": int(last), "final": values[-1]}


def score_rows(result: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Return (score, selection, test) as text, in percent where that is the unit."""
    rows = []
    for name in SCORES:
        cells = []
        for split in ("selection", "test"):
            value = (result.get(split) or {}).get(name)
            cells.append("" if value is None else f"{value:.4f}" if name == "loss" else f"{100 * value:.2f} %")
        if any(cells):
            rows.append((name, *cells))
    return rows


def _classes(shown: SplitResult, data: ImageDataModule) -> list[dict[str, Any]]:
    """Return each class's count, share of right images and commonest mistake, worst first."""
    counts = shown.confusion()
    rows = []
    for label, name in enumerate(data.classes):
        total, right = int(counts[label].sum()), int(counts[label, label])
        if total:
            others = counts[label].copy()
            others[label] = 0
            taken = data.classes[int(others.argmax())] if others.any() else ""
            rows.append({"name": name, "n": total, "share": right / total, "taken_for": taken})
    return sorted(rows, key=lambda row: row["share"])


def _mistakes(shown: SplitResult, data: ImageDataModule) -> list[dict[str, Any]]:
    return [
        {"id": data.table.ids[row], "actual": data.classes[a], "predicted": data.classes[p], "confidence": c}
        for row, a, p, c in shown.mistakes(20)
    ]
