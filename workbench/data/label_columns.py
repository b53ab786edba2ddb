"""What the label column of a copy says: class names, whatever the cells hold, and then the card's numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from workbench.data.class_names import match_classes
from workbench.specs.errors import UserError


def names_in(column: Sequence[Any], feature: Any, where: object, *, may_be_numbers: bool) -> list[Any]:
    """Return the class name, or the list of class names, of each cell.

    Args:
        column: Names, or numbers into the feature's own names, or lists of either.
        feature: The column's `datasets` feature; its names are this file's own.
        where: The file, for messages.
        may_be_numbers: Numbers without names are taken as names.

    Raises:
        UserError: A cell that is none of these.
    """
    inner = getattr(feature, "feature", feature)
    names = getattr(inner, "names", None)

    def name_of(one: Any) -> str:
        if isinstance(one, str) and one.strip():
            return one.strip()
        is_number = isinstance(one, int) and not isinstance(one, bool)
        if is_number and names is not None and 0 <= one < len(names):
            return names[one]
        if is_number and names is None and may_be_numbers and one >= 0:
            return str(one)
        if is_number and names is None and one >= 0:
            remedy = "take a copy that names its classes, or a column of names (data.hub.label)"
            raise UserError.of(where, "labels that are numbers without names", "class names", remedy)
        allowed = f"0 to {len(names) - 1}" if names else "class names, or numbers from 0"
        raise UserError.of(
            where, f"the label {one!r}", allowed, "choose another split, copy or column (data.hub.label)"
        )

    known: dict[Any, str] = {}

    def cached(one: Any) -> str:
        if isinstance(one, list | dict) or one is None:
            return name_of(one)
        if (one, type(one)) not in known:
            known[one, type(one)] = name_of(one)
        return known[one, type(one)]

    return [[cached(one) for one in cell] if isinstance(cell, list) else cached(cell) for cell in column]


def number_labels(
    columns: Sequence[Sequence[Any]], stated: Sequence[str], wanted: Sequence[str], where: object
) -> tuple[tuple[str, ...], list[list[Any]], bool]:
    """Return (classes, numbers of each column's cells, whether a cell holds a list).

    Args:
        columns: Names by file, as `names_in` returns them.
        stated: Names that the copy lists, in its order; some may have no picture.
        wanted: The card's names; empty: the copy decides.
        where: The copy, for messages.

    Raises:
        UserError: Names that are not the card's, or cells of both kinds.
    """
    kinds = {isinstance(cell, list) for column in columns for cell in column}
    if len(kinds) > 1:
        raise UserError.of(where, "cells with one label and cells with lists", "one kind", "make all of them lists")
    is_multi_label = kinds == {True}
    seen: set[str] = set()
    for column in columns:
        seen.update(name for cell in column for name in (cell if is_multi_label else [cell]))
    order = list(dict.fromkeys([*stated, *_sorted(seen - set(stated))]))
    matched = match_classes(order, wanted, where).tolist() if wanted else range(len(order))
    number_of = dict(zip(order, matched, strict=True))
    if is_multi_label:
        numbers: list[list[Any]] = [[sorted(number_of[name] for name in cell) for cell in column] for column in columns]
    else:
        numbers = [[number_of[name] for name in column] for column in columns]
    return tuple(wanted or order), numbers, is_multi_label


def _sorted(names: Iterable[str]) -> list[str]:
    """Sort names; numbers by their value."""
    return sorted(names, key=lambda name: (not name.isdecimal(), int(name) if name.isdecimal() else 0, name))
