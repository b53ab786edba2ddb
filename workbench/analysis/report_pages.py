"""A report as Markdown, CSV and one self-contained HTML page, from the same rows."""

from __future__ import annotations

import base64
import csv
import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, select_autoescape

from workbench.atomic import replacing
from workbench.training.csv_cells import defused

_PNG = "data:image/png;base64,"


@dataclass(frozen=True)
class Section:
    """A part of a page.

    Args:
        title: Its heading.
        text: Paragraphs before the table.
        header: Names of the columns, or empty for no table.
        rows: Cells as text.
        marked: Indices of rows that are measured here.
        notes: A list after the table.
    """

    title: str
    text: tuple[str, ...] = ()
    header: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    marked: frozenset[int] = frozenset()
    notes: tuple[str, ...] = ()


def to_markdown(title: str, sections: Iterable[Section], picture: str = "") -> str:
    """Return a page as Markdown; what came from names is escaped."""
    lines = [f"# {_cell(title)}", ""]
    for section in sections:
        lines += [f"## {_cell(section.title)}", ""]
        for paragraph in section.text:
            lines += [_cell(paragraph), ""]
        if section.header:
            lines += [line(section.header), "|" + " --- |" * len(section.header)]
            lines += [line(cells, i in section.marked) for i, cells in enumerate(section.rows)] + [""]
        if section.notes:
            lines += [*(f"- {_cell(note)}" for note in section.notes), ""]
    if picture:
        lines += [f"![Parameters against accuracy]({picture})", ""]
    return "\n".join(lines)


def line(cells: Sequence[str], bold: bool = False) -> str:
    """Return a row of a Markdown table."""
    shown = [_cell(cell) for cell in cells]
    return "| " + " | ".join(f"**{cell}**" if bold and cell else cell for cell in shown) + " |"


def _cell(text: str) -> str:
    for old, new in (("\\", "\\\\"), ("|", "\\|"), ("<", "&lt;"), ("*", "\\*"), ("`", "\\`"), ("[", "\\[")):
        text = text.replace(old, new)
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def to_html(title: str, sections: Iterable[Section], template: str, picture: Path | None = None, **more: Any) -> str:
    """Return a page as HTML without outside references.

    Args:
        title: Its title.
        sections: Its parts.
        template: A file beside this one.
        picture: A PNG to hold.
        more: What else the template takes.
    """
    environment = Environment(
        loader=PackageLoader("workbench.analysis", "."), autoescape=select_autoescape(default=True)
    )
    uri = "" if picture is None else _PNG + base64.b64encode(picture.read_bytes()).decode("ascii")
    return environment.get_template(template).render(title=title, sections=list(sections), picture=uri, **more)


def write_csv(path: Path, rows: Sequence[Any], columns: Sequence[str]) -> None:
    """Write rows (dataclasses or mappings) as CSV; a text that a spreadsheet would take for a formula is defused."""
    with replacing(path) as beside, beside.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for row in rows:
            values = dataclasses.asdict(row) if dataclasses.is_dataclass(row) else row
            writer.writerow([_csv_cell(values[column]) for column in columns])


def _csv_cell(value: Any) -> Any:
    return f"{value:.6g}" if isinstance(value, float) else defused(value)
