"""Cells of a CSV file that a spreadsheet would compute: written so that it shows them, read back as they were.

Excel, LibreOffice and Google Sheets take a cell that begins with one of `FORMULA` for a formula (OWASP, "CSV
Injection"). Such a text gets an apostrophe before it, which they hide. So does a text that begins with apostrophes and
then such a sign, so that taking one away always gives back what was written. Numbers stay as they are.
"""

from __future__ import annotations

from typing import Any

FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""The last four: the same signs in full width, as Japanese spreadsheets understand them."""


def defused(value: Any) -> Any:
    """Return a cell as it is to be written; `restored` gives it back."""
    return "'" + value if isinstance(value, str) and _is_formula(value) else value


def restored(text: str) -> str:
    """Return what a cell said before it was defused."""
    return text[1:] if text.startswith("'") and _is_formula(text) else text


def _is_formula(text: str) -> bool:
    return text.lstrip("'").startswith(FORMULA) and not _is_number(text)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return text.strip() == text
