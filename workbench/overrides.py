"""Settings typed on a command line: `key=value` and `--key=value`, dotted keys, collected into nested values.

A value is read as YAML, except for keys that hold text: `data.root=007` is a folder's name, not a number.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from workbench.specs.errors import Problem, suggestion
from workbench.specs.filling import hints_of, parts_of
from workbench.specs.recipe import Recipe

SOURCE = "command line"


def recipe_keys() -> dict[str, Any]:
    """Return every recipe key, `section.key`, with its type hint."""
    sections = dataclasses.fields(Recipe)
    return {
        f"{section.name}.{name}": hint
        for section in sections
        for name, hint in hints_of(section.default_factory).items()
    }


def parse_overrides(overrides: Sequence[str], problems: list[Problem]) -> dict[str, Any]:
    """Return overrides as one mapping of nested values; of two for the same key the later one wins.

    Args:
        overrides: `key=value` or `--key=value`.
        problems: Mistakes are appended here.
    """
    keys, nested = recipe_keys(), {}
    for text in overrides:
        dotted, equals, raw = text.removeprefix("--").partition("=")
        if not equals or not dotted:
            remedy = f"write {dotted}=VALUE" if dotted in keys else suggestion(dotted, keys, "as in optim.lr=0.01")
            problems.append(Problem(SOURCE, text, "key=value or --key=value", remedy))
        elif "${" in raw:
            problems.append(Problem(f"{SOURCE}: {dotted}", raw, "plain values", "write the value out"))
        else:
            _put(nested, dotted.split("."), _value(raw, keys.get(dotted)))
    return nested


def _value(raw: str, hint: Any) -> Any:
    """Return the typed text as the value that it stands for."""
    if hint is not None and str in parts_of(hint) and int not in parts_of(hint):
        quoted = len(raw) > 1 and raw[0] == raw[-1] and raw[0] in "'\""
        return raw[1:-1] if quoted else raw
    try:
        value = OmegaConf.to_container(OmegaConf.from_dotlist([f"value={raw}"]))["value"] if raw else None
        str(value)  # as in shipped.py
        return value
    except (YAMLError, OmegaConfBaseException, ValueError, RecursionError):
        return raw


def _put(nested: dict[str, Any], path: list[str], value: Any) -> None:
    for part in path[:-1]:
        inner = nested.get(part)
        if not isinstance(inner, dict):
            inner = nested[part] = {}
        nested = inner
    nested[path[-1]] = value
