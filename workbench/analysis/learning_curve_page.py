"""A learning curve as Markdown, CSV, a picture and one line for the terminal."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from workbench.analysis.learning_curve import (
    RESAMPLES,
    Forecast,
    by_size,
    forecast,
    summaries,
)
from workbench.analysis.learning_curve_runs import Curve
from workbench.analysis.report_pages import Section, to_markdown, write_csv
from workbench.atomic import replacing
from workbench.specs.metric_names import TOP1, TOP5
from workbench.training.metrics import interval95

MARKDOWN, TABLE, PICTURE = "learning_curve.md", "learning_curve.csv", "learning_curve.png"
MEASURED, FORECAST = "measured", "forecast"
_COLUMNS = ("what", "images", "repeats", "score", "lowest", "highest", "images_low", "images_high")
COLUMNS = (*_COLUMNS, "repeats_low", "repeats_high", "law", "law_low", "law_high", "runs")
_OWN, _LAW = "#2e8b6f", "#3b5b7d"


@dataclass(frozen=True)
class Card:
    """A curve and what follows from it.

    Args:
        curve: What was measured.
        rows: One per number of training images, fewest first; fractions, columns as `COLUMNS`.
        forecast: What the law says, or why it says nothing.
    """

    curve: Curve
    rows: tuple[dict, ...]
    forecast: Forecast | str

    @property
    def law(self) -> Forecast | None:
        """The forecast, if there is one."""
        return self.forecast if isinstance(self.forecast, Forecast) else None


def make_card(curve: Curve) -> Card:
    """Work a curve out: means, intervals, the law."""
    found = forecast(curve.measured, curve.labels, curve.metric)
    rows = []
    for (size, same), summary in zip(by_size(curve.measured).items(), summaries(curve.measured), strict=True):
        over_images = _over_images(curve, np.mean([one.right for one in same], axis=0)) if _has_images(same) else None
        row = {"what": MEASURED, "images": size, "repeats": len(same), "score": summary.mean}
        row |= {"lowest": summary.lowest, "highest": summary.highest}
        row |= dict(zip(("images_low", "images_high"), over_images or (None, None), strict=True))
        row |= dict(zip(("repeats_low", "repeats_high"), summary.interval95 or (None, None), strict=True))
        row["law"] = 1 - found.law.error(size) if isinstance(found, Forecast) else None
        row |= {"law_low": None, "law_high": None, "runs": "; ".join(one.source for one in same)}
        rows.append(row)
    return Card(curve, tuple(rows), found)


def _has_images(same: list) -> bool:
    return all(one.right is not None for one in same)


def _over_images(curve: Curve, shares: np.ndarray) -> tuple[float, float] | None:
    """Return the interval over images of the mean of several trainings, each image with its share of right answers."""
    if curve.metric in (TOP1, TOP5):  # Wilson's takes a count: that of the mean
        shares = np.arange(len(shares)) < round(float(shares.sum()))
    return interval95(curve.metric, shares, curve.labels)


def briefly(card: Card) -> str:
    """Return a curve in one line."""
    first, last = card.rows[0], card.rows[-1]
    score = f"{card.curve.metric} on {card.curve.split} {_percent(first['score'])}"
    if len(card.rows) > 1:
        score += f" with {first['images']} training images, {_percent(last['score'])}"
    return f"{card.curve.title}: {score} with {last['images']}; {_promise(card)}"


def _promise(card: Card) -> str:
    if card.law is None:
        return str(card.forecast)
    found = card.law
    gain, (low, high) = 100 * found.gain, (100 * end for end in found.gain95)
    return (
        f"twice the images ({found.num_images}) would bring {_percent(found.score)} (95 %: {_span(found.score95)}), "
        f"{gain:+.2f} points ({low:+.2f} to {high:+.2f})"
    )


def _percent(fraction: float | None) -> str:
    return "" if fraction is None else f"{100 * fraction:.2f} %"


def _span(ends: tuple[float | None, float | None]) -> str:
    return "" if ends[0] is None else f"{100 * ends[0]:.2f} to {100 * ends[1]:.2f}"


def sections(card: Card) -> list[Section]:
    """Return the card as parts of a page."""
    curve, scored = card.curve, len(card.curve.labels)
    text = (
        f"{curve.metric} on the {scored} {curve.split} images, which no training here has seen, against the number of "
        f"training images. Each part of train is inside the next greater one, with all classes alike.",
        briefly(card),
    )
    header = ("training images", "trainings", f"{curve.metric} %", "95 % over images", f"95 % over {curve.repeats}")
    cells = [
        (
            str(row["images"]),
            str(row["repeats"]),
            f"{100 * row['score']:.2f}",
            _span((row["images_low"], row["images_high"])),
            _span((row["repeats_low"], row["repeats_high"])),
            "" if row["law"] is None else f"{100 * row['law']:.2f}",
        )
        for row in card.rows
    ]
    measured = Section("Measured", text, (*header, "by the law"), tuple(cells), notes=curve.notes)
    return [measured, Section("Twice the images", (_promise(card) + ".",), notes=tuple(_law_notes(card)))]


def _law_notes(card: Card) -> list[str]:
    if card.law is None:
        return []
    found, law = card.law, card.law.law
    floor = f" + {law.floor:.4g}" if found.has_floor else ""
    law_text = f"error = {law.scale:.4g} n^-{law.exponent:.3f}{floor}, with n training images"
    notes = [
        law_text + "; 95 % of the exponent {:.3f} to {:.3f}".format(*found.exponent95),
        "the floor is supported by the measurements"
        if found.has_floor
        else "no floor is supported by the measurements, and none is in the estimate"
        + ("; the intervals allow for one" if len(card.rows) > 3 else ""),
        f"intervals: bootstrap, {RESAMPLES} resamples, of {found.noise}; they hold if the law does, and for training "
        "images of the same kind",
    ]
    if not any(row["repeats"] > 1 for row in card.rows):
        notes.append(f"one training a size: with several {card.curve.repeats} the intervals become narrower and surer")
    return notes


def write_card(card: Card, folder: Path) -> list[Path]:
    """Write learning_curve.md, .csv and .png.

    Args:
        card: What `make_card` made.
        folder: Made if missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / name for name in (MARKDOWN, TABLE, PICTURE)]
    rows = list(card.rows)
    if (found := card.law) is not None:
        empty = dict.fromkeys(COLUMNS)
        ends = dict(zip(("law_low", "law_high"), found.score95, strict=True))
        rows.append({**empty, "what": FORECAST, "images": found.num_images, "law": found.score, **ends})
    write_csv(paths[1], rows, COLUMNS)
    with replacing(paths[2]) as beside:
        _draw(card, beside)
    text = to_markdown(f"Learning curve: {card.curve.title}", sections(card))
    with replacing(paths[0]) as beside:
        beside.write_text(f"{text}\n![{card.curve.metric} against training images]({PICTURE})\n", encoding="utf-8")
    return paths


def _draw(card: Card, path: Path) -> None:
    figure = Figure(figsize=(7, 4.4), layout="constrained")
    axes = figure.subplots()
    for row in card.rows:
        over = "repeats" if row["repeats_low"] is not None else "images"
        ends = row[f"{over}_low"], row[f"{over}_high"]
        middle = 100 * row["score"]
        spread = None if ends[0] is None else [[max(0, middle - 100 * ends[0])], [max(0, 100 * ends[1] - middle)]]
        fill = _OWN if row["repeats"] > 1 else "white"
        axes.errorbar(row["images"], middle, spread, fmt="o", color=_OWN, mfc=fill, capsize=3, markersize=6)
    sizes = [row["images"] for row in card.rows]
    if (found := card.law) is not None:
        sizes = [*sizes, found.num_images]
        line = np.geomspace(sizes[0], sizes[-1], 200)
        axes.plot(line, 100 * (1 - found.law.error(line)), color=_LAW, lw=1)
        middle, (low, high) = 100 * found.score, (100 * end for end in found.score95)
        spread = [[max(0, middle - low)], [max(0, high - middle)]]
        axes.errorbar(sizes[-1], middle, spread, fmt="D", color=_LAW, mfc="white", capsize=4, markersize=6)
    axes.set(xscale="log", xlabel="training images", ylabel=f"{card.curve.metric} on {card.curve.split} (%)")
    axes.set_xticks(sizes)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_title(card.curve.title.replace("$", r"\$"), fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    told = f"Green: measured, 95 % over {card.curve.repeats} (filled) or over images of one training (hollow)."
    told += "" if card.law is None else " Blue: the law, and twice the images."
    figure.supxlabel(told, fontsize=7)
    FigureCanvasAgg(figure)
    figure.savefig(path, format="png", dpi=110, metadata={"Software": None})
