"""Listings that fit the terminal: rows as columns whose longer texts are wrapped, or as JSON. Without torch."""

from __future__ import annotations

import json
import os
import shutil
import sys
import textwrap
from collections.abc import Sequence
from typing import Any

from workbench.specs.printable import printable

WIDTH = 100
"""Columns of a terminal that does not say; a choice of this project."""
WHOLE_LINES = 10_000
"""Columns of a pipe: a row stays on one line there, so that `grep` finds all of it."""
_GAP = 2
_LEAST = 10
"""Columns that a text is never squeezed below."""


def terminal_width(piped: int = WHOLE_LINES) -> int:
    """Return how many columns there are to print in: those of the terminal, or that COLUMNS says, or else `piped`."""
    if sys.stdout.isatty() or os.environ.get("COLUMNS"):
        return shutil.get_terminal_size((WIDTH, 24)).columns
    return piped


def print_rows(rows: Sequence[dict[str, Any]], as_json: bool, columns: Sequence[str] = ()) -> None:
    """Print rows with the same keys as a table, or as JSON; nothing in them can move the cursor.

    Args:
        rows: At least one key each.
        as_json: All keys, for programs.
        columns: The keys of the table; all if none are named.
    """
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    if not rows:
        print("none")
        return
    shown = list(columns or rows[0])
    texts = [["" if row[key] is None else printable(str(row[key]), keep="") for key in shown] for row in rows]
    print("\n".join(table_lines([shown, *texts], terminal_width())))
    if left := [key for key in rows[0] if key not in shown]:
        print("\n" + "\n".join(textwrap.wrap(f"--json also tells: {', '.join(left)}", terminal_width())))


def table_lines(rows: Sequence[Sequence[str]], width: int) -> list[str]:
    """Lay texts out in columns.

    Args:
        rows: The same number of texts each; the first column names the row and is never broken.
        width: Columns that the lines should fit; more only if the first column or many columns need it.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    most = width - _GAP * (len(widths) - 1)
    while sum(widths) > most and len(widths) > 1:
        widest = max(range(1, len(widths)), key=lambda i: widths[i])
        if widths[widest] <= _LEAST:
            break
        widths[widest] -= 1
    lines = []
    for row in rows:
        cells = [textwrap.wrap(text, size) or [""] for text, size in zip(row, widths, strict=True)]
        for number in range(max(map(len, cells))):
            parts = [cell[number] if number < len(cell) else "" for cell in cells]
            padded = (part.ljust(size + _GAP) for part, size in zip(parts, widths, strict=True))
            lines.append("".join(padded).rstrip())
    return lines
