"""Names from outside, made fit to be shown: nothing in them moves the cursor, hides a line or ends one."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from typing import Any

MOST_LETTERS = 300
"""Of a class name, a choice of this project; the longest of the shipped cards has 54 (Cars)."""
_ACTING = {"Cc", "Cs", "Zl", "Zp"}
_TURNING = {*"\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"}
"""What turns the direction of writing, so that a text reads as another than it is (Unicode Standard Annex 9)."""


def printable(text: str, keep: str = "\n\t") -> str:
    """Return a text with control characters, lone surrogates and turns of direction written as escapes.

    Args:
        text: What would be printed.
        keep: Control characters that stay.
    """
    if text.isprintable():
        return text
    return "".join(repr(letter)[1:-1] if letter not in keep and _acts(letter) else letter for letter in text)


def acting_text(values: Any) -> str | None:
    """Return the first text in nested plain values that would act on a terminal, or None; lines and tabs may."""
    if isinstance(values, str):
        return values if printable(values) != values else None
    if isinstance(values, Mapping):
        values = [*values, *values.values()]
    return next(filter(None, map(acting_text, values)), None) if isinstance(values, list) else None


def odd_name(name: object) -> str | None:
    """Return what is wrong with a class name, or None."""
    if not isinstance(name, str):
        return "no text"
    if not name.strip():
        return "empty"
    if len(name) > MOST_LETTERS:
        return f"{len(name)} letters"
    return None if not any(map(_acts, name)) else "with a control character"


def _acts(letter: str) -> bool:
    return letter in _TURNING or unicodedata.category(letter) in _ACTING
