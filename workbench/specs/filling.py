"""Fill a dataclass from plain nested values, collecting every mistake instead of stopping at the first.

Used for recipes and dataset cards alike. Type hints and the metadata written by `recipe.key` are the only rules.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import types
import typing
from collections.abc import Mapping
from typing import Any

from workbench.specs.errors import Problem, suggestion

NULL_WORDS = (None, "None", "none", "null", "NULL", "")


def fill(
    target: Any,
    values: Mapping[str, Any],
    source: str,
    problems: list[Problem],
    sources: dict[str, str],
    prefix: str = "",
) -> None:
    """Set fields of a dataclass instance, in place.

    Args:
        target: The instance.
        values: Nested plain values; sections as mappings.
        source: Where they come from, for messages and for `sources`.
        problems: Mistakes are appended here.
        sources: Receives `dotted.key -> source` for every value that was set.
        prefix: Dotted path of `target` inside the whole.
    """
    fields = {field.name: field for field in dataclasses.fields(target)}
    hints = hints_of(type(target))
    for name, value in values.items():
        dotted = f"{prefix}{name}"
        if name not in fields:
            allowed = ", ".join(f"{prefix}{known}" for known in fields)
            remedy = suggestion(str(name), fields, "remove it, or see `workbench show --keys`")
            problems.append(
                Problem(
                    f"{source}: {dotted}",
                    f"{dotted} = {value!r}",
                    allowed,
                    remedy.replace("'", f"'{prefix}", 1),
                )
            )
            continue
        current = getattr(target, name)
        if dataclasses.is_dataclass(current) and (value is None or isinstance(value, Mapping)):
            fill(current, value or {}, source, problems, sources, f"{dotted}.")  # an empty section says nothing
            continue
        try:
            new = _convert(hints[name], fields[name].metadata, value, source, problems, dotted)
        except ValueError as error:
            remedy = f"correct the value. {dotted}: {fields[name].metadata.get('doc', 'see the card of another set')}"
            problems.append(Problem(f"{source}: {dotted}", repr(value), str(error), remedy))
            continue
        setattr(target, name, new)
        sources[dotted] = source


def _convert(hint: Any, metadata: Mapping, value: Any, source: str, problems: list[Problem], dotted: str) -> Any:
    """Return `value` as the hinted type, or raise ValueError saying what is allowed."""
    choices, span = metadata.get("choices", ()), metadata.get("span")
    if value in NULL_WORDS if not isinstance(value, list | Mapping) else False:
        if "none" in choices:
            return "none"
        if _is_optional(hint):
            return None
        if hint is str and value == "":
            return value
    if value is False and "off" in choices:
        return "off"  # YAML reads a bare `off` as false
    hint, *words = [part for part in parts_of(hint) if part is not type(None)]
    if words == [str]:  # a number, or one of a few words in its place
        return _number_or_word(hint, choices, metadata, value)
    if hint is Any:
        return _nulls(value)
    if typing.get_origin(hint) is list:
        return _convert_list(hint, value, source, problems, dotted)
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, Mapping):
            raise ValueError("a mapping of " + ", ".join(f.name for f in dataclasses.fields(hint)))
        made = hint()
        fill(made, value, source, problems, {}, f"{dotted}.")
        return made
    new = _scalar(hint, value)
    if choices and new not in choices:
        raise ValueError(" | ".join(str(choice) for choice in choices))
    if span and not span[0] <= new <= span[1]:
        raise ValueError(f"{hint.__name__} from {span[0]:g} to {span[1]:g}")
    return new


def _number_or_word(hint: type, choices: tuple, metadata: Mapping, value: Any) -> Any:
    if value in choices:
        return value
    try:
        return _convert(hint, {"span": metadata.get("span")}, value, "", [], "")
    except ValueError as error:
        raise ValueError(f"{error}, or {' | '.join(choices)}") from error


def _convert_list(hint: Any, value: Any, source: str, problems: list[Problem], dotted: str) -> list:
    if not isinstance(value, list):
        raise ValueError("a list")
    (item,) = typing.get_args(hint)
    made = []
    for i, v in enumerate(value):
        try:
            made.append(_convert(item, {}, v, source, problems, f"{dotted}[{i}]"))
        except ValueError as error:
            raise ValueError(f"{error} at [{i}], where {v!r} stands") from error
    return made


def _scalar(hint: type, value: Any) -> Any:
    """Convert without guessing: no truth from numbers, no whole numbers from fractions, no text from numbers."""
    if hint is bool and isinstance(value, bool):
        return value
    if hint is int and isinstance(value, int) and not isinstance(value, bool):
        return value
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool) and value == value:
        with contextlib.suppress(OverflowError):  # a whole number that no float holds
            return float(value)
    if hint is str and isinstance(value, str):
        return value
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "text (put it in quotes)"}
    raise ValueError(words[hint])


def _nulls(value: Any) -> Any:
    return None if isinstance(value, str) and value in NULL_WORDS else value


@functools.cache
def hints_of(kind: type) -> Mapping[str, Any]:
    """Return the type hint of every field of a dataclass; working them out takes longer than filling it."""
    return typing.get_type_hints(kind)


def parts_of(hint: Any) -> tuple:
    """Return the types of a union, or the one type."""
    return typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)


def _is_optional(hint: Any) -> bool:
    return type(None) in parts_of(hint)
