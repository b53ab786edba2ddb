"""The dataset doctor's page: one self-contained HTML file with its findings and the images they are about."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, select_autoescape
from PIL import Image

from workbench.atomic import replacing
from workbench.data.doctor import WRONG, Finding, Report
from workbench.data.images import load_image
from workbench.data.splits import ImageTable
from workbench.specs.errors import UserError

_TITLES = {
    "undecodable": "Images that do not decode",
    "exact_across": "Leaks: the same file in several splits",
    "near_across": "Leaks: near-duplicates in several splits",
    "conflict_exact": "The same file with different labels",
    "conflict_near": "Near-duplicates with different labels",
    "untrained_classes": "Classes without training images",
    "untested_classes": "Classes without test images",
    "exact_within": "The same file more than once in a split",
    "near_within": "Near-duplicates within a split",
    "balance": "Class balance",
    "small": "Small images",
    "modes": "Colour modes",
    "rotated": "Turned by EXIF",
    "grey": "Grey images",
}
_MOST_GROUPS, _MOST_IMAGES = 40, 6
_THUMB_SIDE, _JPEG_QUALITY = 128, 80
"""A thumb takes some 5 kB: a page of 14 kinds with 240 each, which no set fills, would be 17 MB."""


def write_doctor_page(path: Path, report: Report, table: ImageTable, title: str = "Dataset") -> None:
    """Write the page.

    Args:
        path: The HTML file to write; its folder must exist.
        report: What `doctor.examine` found.
        table: The table it looked at; its images are read again for the thumbs.
        title: The set's name.
    """
    rows = {name: row for row, name in enumerate(table.ids)}
    environment = Environment(loader=PackageLoader("workbench.data", "."), autoescape=select_autoescape(default=True))
    page = environment.get_template("doctor_page.jinja").render(
        title=title,
        clean=report.is_clean,
        counts=report.counts,
        total=len(table.ids),
        classes=len(table.classes),
        stamps=table.stamps,
        sections=[_section(finding, table, rows) for finding in report.findings],
    )
    with replacing(path) as beside:
        beside.write_text(page, encoding="utf-8")


def _section(finding: Finding, table: ImageTable, rows: dict[str, int]) -> dict[str, Any]:
    shown = finding.ids[:_MOST_GROUPS]
    return {
        "kind": finding.kind,
        "title": _TITLES[finding.kind],
        "wrong": finding.severity == WRONG,
        "text": finding.text,
        "classes": finding.classes,
        "single": all(len(ids) == 1 for ids in finding.ids),
        "groups": [([_card(table, rows[name]) for name in ids[:_MOST_IMAGES]], len(ids)) for ids in shown],
        "hidden": len(finding.ids) - len(shown),
    }


def _card(table: ImageTable, row: int) -> dict[str, str]:
    """Return what is shown of one image: its thumb as a data URI, or why there is none."""
    label = np.asarray(table.labels[row])
    names = [table.classes[i] for i in (np.flatnonzero(label) if label.ndim else [int(label)])]
    card = {"id": table.ids[row], "split": table.splits[row], "label": ", ".join(names), "uri": "", "problem": ""}
    try:
        image = Image.fromarray(load_image(table.images[row]).permute(1, 2, 0).numpy())
    except UserError as error:
        return card | {"problem": error.problems[0].given}
    image.thumbnail((_THUMB_SIDE, _THUMB_SIDE))
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=_JPEG_QUALITY)
    return card | {"uri": "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")}
