"""A comparison as parts of a page, and its files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from workbench.analysis import compare_pairs
from workbench.analysis.compare import COLUMNS, MCNEMAR, Comparison
from workbench.analysis.compare_files import TestedRun
from workbench.analysis.compare_pairs import Paired
from workbench.analysis.report_pages import Section, to_html, to_markdown, write_csv
from workbench.atomic import replacing

MARKDOWN, HTML = "compare.md", "compare.html"
CSV, CLASSES, FLIPS = "compare.csv", "compare_classes.csv", "compare_flips.csv"
_CLASS_COLUMNS = ("class", "n", "first_right", "second_right", "won", "lost", "net")
_FLIP_COLUMNS = ("id", "flip", "class", "first_answer", "first_confidence", "second_answer", "second_confidence")
_SHOWN, _PICTURES = 20, 24
"""Classes and flips on a page, and pictures of each way of flipping; the CSVs have all."""


def sections(found: Comparison, is_short: bool = False) -> list[Section]:
    """Return a comparison as parts of a page.

    Args:
        found: The comparison.
        is_short: Leave out classes and flips, for a terminal.
    """
    runs = (f"first: {_name(found.first)}", f"second: {_name(found.second)}")
    listed = [f"{name}: {first} vs {second}" for name, (first, second) in found.settings.items()]
    text = (*runs, f"Recipes differ in: {'; '.join(listed[:_SHOWN]) or 'nothing that is compared, not even the seed'}")
    parts = [Section("The two runs", text, notes=found.notes), _table(found)]
    if found.paired is not None:
        parts.append(_agreement(found))
    if found.paired is not None and not is_short:
        classes = compare_pairs.class_rows(found.paired)
        changed = [row for row in classes if row["won"] or row["lost"]]
        shown = [tuple(str(row[name]) for name in _CLASS_COLUMNS) for row in changed[:_SHOWN]]
        header = tuple(name.replace("_", " ") for name in _CLASS_COLUMNS)
        told = f"{len(changed)} of {len(classes)} classes changed; the biggest changes, as shares of the class, first."
        parts.append(Section("Classes won and lost by the second run", (told,), header, tuple(shown)))
        parts += [_flips(found.paired, won) for won in (True, False)]
    return parts


def _name(run: TestedRun) -> str:
    result = run.result
    return f"{run.folder}: {result['recipe']}, {result['arch']} on {result['dataset']}, seed {result['seed']}"


def _table(found: Comparison) -> Section:
    header = ("", "first", "second", "second - first", "95 % interval", "how")
    rows = tuple(_cells(row) for row in found.values if row["value"] is None)
    text = f"Scores in percent, on the {len(found.first.rows)} test images of both. Intervals are over images."
    return Section("What differs", (text,), header, rows)


def _agreement(found: Comparison) -> Section:
    together = [row for row in found.values if row["value"] is not None]
    rows = [
        (row["quantity"], str(row["value"]), f"{100 * row['value'] / row['n']:.2f}") for row in together if row["n"]
    ]
    p = next(row for row in together if row["quantity"] == MCNEMAR)
    text = f"{MCNEMAR}: {p['value']:.4g} ({p['how']})."
    return Section("Where both agree", (text,), ("", "images", "%"), tuple(rows))


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    is_percent = not row["quantity"].startswith(("loss", "temperature"))
    shown = [_number(row[key], is_percent) for key in ("first", "second")]
    for place, column in enumerate(("first", "second")):
        if row[f"{column}_low"] is not None:
            shown[place] += f" ({100 * row[f'{column}_low']:.2f} to {100 * row[f'{column}_high']:.2f})"
    change = "" if row["difference"] is None else _number(row["difference"], is_percent, sign="+")
    interval = "" if row["low"] is None else f"{100 * row['low']:+.2f} to {100 * row['high']:+.2f}"
    return row["quantity"], *shown, change, interval, row["how"] or ""


def _number(value: Any, is_percent: bool, sign: str = "") -> str:
    if value is None or isinstance(value, str):
        return value or "not known"
    return f"{100 * value:{sign}.2f}" if is_percent else f"{value:{sign}.4f}"


def _flips(paired: Paired, won: bool) -> Section:
    rows = compare_pairs.flips(paired, won)
    header = ("image", "is", "first said", "confidence %", "second says", "confidence %")
    cells = [
        (row["id"], row["class"], row["first_answer"], f"{100 * row['first_confidence']:.1f}", row["second_answer"])
        + (f"{100 * row['second_confidence']:.1f}",)
        for row in rows[:_SHOWN]
    ]
    text = f"{len(rows)} images; where the second run is most confident first"
    text += f", {_SHOWN} shown, all in {FLIPS}." if len(rows) > _SHOWN else "."
    return Section(_flip_title(won), (text,), header, tuple(cells))


def _flip_title(won: bool) -> str:
    return "From wrong to right" if won else "From right to wrong"


def write_comparison(found: Comparison, folder: Path) -> list[Path]:
    """Write compare.md, compare.csv and compare.html, and for single-label runs CSVs of classes and flips.

    Args:
        found: What `compare` returned.
        folder: Made if missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    parts, title = sections(found), "Two runs compared"
    write_csv(folder / CSV, found.values, COLUMNS)
    written, galleries = [CSV], []
    if found.paired is not None:
        both = [compare_pairs.flips(found.paired, won) for won in (True, False)]
        write_csv(folder / CLASSES, compare_pairs.class_rows(found.paired), _CLASS_COLUMNS)
        write_csv(folder / FLIPS, [row for rows in both for row in rows], _FLIP_COLUMNS)
        written += [CLASSES, FLIPS]
        galleries, note = _galleries(found.first.folder, both)
        parts += [Section("Pictures", (note,))] if note else []
    with replacing(folder / MARKDOWN) as beside:
        beside.write_text(to_markdown(title, parts), encoding="utf-8")
    with replacing(folder / HTML) as beside:
        beside.write_text(to_html(title, parts, "report.jinja", galleries=galleries), encoding="utf-8")
    return [folder / name for name in (MARKDOWN, *written, HTML)]


def _galleries(folder: Path, both: list[list[dict[str, Any]]]) -> tuple[list[tuple[str, list[dict]]], str]:
    """Return the pictures of the first flips each way, and why there are none if so."""
    from workbench.analysis.compare_pictures import thumbs

    wanted = [row["id"] for rows in both for row in rows[:_PICTURES]]
    if not wanted:
        return [], ""
    found, note = thumbs(folder, wanted)
    galleries = []
    for won, rows in zip((True, False), both, strict=True):
        cards = [
            {
                "uri": found[row["id"]],
                "text": f"{row['id']}: {row['class']}; {row['first_answer']} became {row['second_answer']} "
                f"({100 * row['second_confidence']:.0f} %)",
            }
            for row in rows[:_PICTURES]
            if row["id"] in found
        ]
        galleries += [(f"{_flip_title(won)}: pictures", cards)] if cards else []
    return galleries, note
