"""A sweep file's `parameters` block: what each recipe key may be, in W&B's words.

The words and their defaults are those of W&B's schema (wandb/sweeps, src/sweeps/config/schema.json @023865a).
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from workbench.overrides import recipe_keys
from workbench.specs.errors import Problem, UserError, suggestion
from workbench.specs.filling import parts_of

RANGES = ("uniform", "log_uniform", "log_uniform_values", "q_uniform", "int_uniform")
_LISTS = ("constant", "categorical")
NOT_HERE = {
    "categorical_w_probabilities": "leave the probabilities out",
    "inv_log_uniform": "use log_uniform_values",
    "inv_log_uniform_values": "use log_uniform_values: it draws the same numbers",
    **dict.fromkeys(("q_log_uniform", "q_log_uniform_values"), "use log_uniform_values, or list the values"),
    **dict.fromkeys(("normal", "q_normal", "beta", "q_beta"), "use uniform with min and max, or list the values"),
    **dict.fromkeys(("log_normal", "q_log_normal"), "use log_uniform_values, or list the values"),
}
"""What W&B draws from and this runner does not, with what to write instead."""
_LARGEST_EXPONENT = 700
"""e to the power of 710 is more than a float holds."""
_KEYS = ("value", "values", "probabilities", "min", "max", "q", "mu", "sigma", "a", "b", "distribution")


@dataclass(frozen=True)
class Parameter:
    """One recipe key and what it may be: some values, or a range.

    Args:
        name: Dotted recipe key.
        values: The values; one for a constant; empty for a range.
        low: Lowest of a range.
        high: Highest of a range, inclusive.
        step: Distance between a range's values; None: any number.
        log: Whether a range is drawn evenly in the logarithm.
    """

    name: str
    values: tuple[Any, ...] = ()
    low: float | None = None
    high: float | None = None
    step: float | None = None
    log: bool = False

    @property
    def is_whole(self) -> bool:
        """Whether a range has whole numbers only."""
        return isinstance(self.step, int)

    def ends(self) -> tuple[Any, ...]:
        """Return the values, or both ends of the range: what must be right for all between to be."""
        return self.values or (self.low, self.high)

    def listed(self) -> tuple[Any, ...]:
        """Return every value, as a grid takes them; empty if they cannot be listed."""
        if self.values or not (self.is_whole and self.step == 1):
            return self.values
        return tuple(range(self.low, self.high + 1))

    def described(self) -> str:
        """Return it in a few words, for people."""
        if self.values:
            return ", ".join(map(str, self.values))
        shape = " (log)" if self.log else "" if self.step in (None, 1) else f" (steps of {self.step})"
        return f"{self.low} to {self.high}{shape}"


def key_of(values: Mapping[str, Any]) -> str:
    """Return a text that two sets of values share only if they are the same; 1 and 1.0 are the same number."""
    plain = {k: int(v) if isinstance(v, float) and v.is_integer() else v for k, v in values.items()}
    return json.dumps(plain, sort_keys=True, default=str)


def grid(parameters: Sequence[Parameter]) -> list[dict[str, Any]]:
    """Return every combination once, in W&B's order: names sorted, the last name changes first.

    Args:
        parameters: All of them listable.
    """
    ordered = sorted(parameters, key=lambda parameter: parameter.name)
    names = [parameter.name for parameter in ordered]
    rows = (dict(zip(names, row, strict=True)) for row in itertools.product(*(p.listed() for p in ordered)))
    return list({key_of(row): row for row in rows}.values())


def read_parameter(name: str, block: Any, where: str) -> Parameter:
    """Read one entry of `parameters`.

    Args:
        name: Its name.
        block: What stands there, as YAML gives it.
        where: File and key, for messages.

    Raises:
        UserError: W&B or this runner could not draw from it.
    """
    if not isinstance(block, Mapping):
        raise UserError.of(where, repr(block), "value, values, or min and max", f"write {name}: {{value: {block}}}")
    nested = block.get("parameters", {} if set(block) & set(_KEYS) else block)
    if isinstance(nested, Mapping) and nested and all(isinstance(inner, Mapping) for inner in nested.values()):
        flat = ", ".join(f"{name}.{inner}" for inner in nested)
        remedy = f"write each flat, with a dotted name: {flat}"
        raise UserError.of(where, "a nested block, which W&B would pass as one text", "flat dotted names", remedy)
    unknown = [str(key) for key in block if key not in _KEYS]
    if unknown:
        remedy = suggestion(unknown[0], _KEYS, "remove it")
        raise UserError.of(where, ", ".join(unknown), "value, values, min, max, q, distribution", remedy)
    kind = _distribution(block, where)
    _check_keys(kind, block, where)
    if kind in _LISTS:
        values = (block["value"],) if kind == "constant" else tuple(block["values"])
        _check_values(name, values, where)
        return Parameter(name, values)
    return _read_range(name, kind, block, where)


def _distribution(block: Mapping[str, Any], where: str) -> str:
    """Return the stated distribution, or the one that W&B takes for such keys."""
    kind = block.get("distribution")
    known = (*_LISTS, *RANGES)
    if kind is None:
        if "value" in block:
            return "constant"
        if "values" in block:
            kind = "categorical_w_probabilities" if "probabilities" in block else "categorical"
        else:
            ends = (block.get("min"), block.get("max"))
            kind = "int_uniform" if all(type(end) is int for end in ends) else "uniform"
    if isinstance(kind, str) and kind in NOT_HERE:
        raise UserError.of(where, f"distribution {kind}", ", ".join(known), NOT_HERE[kind])
    if kind not in known:
        raise UserError.of(where, f"distribution {kind}", ", ".join(known), suggestion(str(kind), known, "choose one"))
    return kind


def _check_keys(kind: str, block: Mapping[str, Any], where: str) -> None:
    needed = {"constant": {"value"}, "categorical": {"values"}}.get(kind, {"min", "max"})
    allowed = needed | {"distribution"} | ({"q"} if kind == "q_uniform" else set())
    given = set(block)
    if not needed <= given or not given <= allowed:
        listed = ", ".join(sorted(given)) or "nothing"
        remedy = f"write {' and '.join(sorted(needed))} only"
        raise UserError.of(where, f"{listed} for {kind}", ", ".join(sorted(allowed)), remedy)
    if kind == "categorical" and not (isinstance(block["values"], list) and block["values"]):
        raise UserError.of(where, f"values: {block['values']!r}", "a list of one or more", "list the values")


def _check_values(name: str, values: Sequence[Any], where: str) -> None:
    """Refuse what no recipe key can be, and numbers that W&B's YAML takes for text."""
    takes_text = str in parts_of(recipe_keys().get(name))
    found = []
    for value in values:
        number = _as_number(value)
        if not _is_plain(value):
            given = f"{value!r}, a {type(value).__name__}"
            allowed = "text, numbers, true, false, null, and lists and mappings of them"
            found.append(Problem(where, given, allowed, f'write text in quotes: "{value}"'))
        elif number is not None and math.isfinite(number) and not takes_text:
            remedy = f"write {number if 'e' not in str(number) else f'{number:.1e}'}: to W&B's YAML it is text"
            found.append(Problem(where, repr(value), "a number, such as 0.001 or 1.0e-3", remedy))
    if found:
        raise UserError(*found)


def _is_plain(value: Any) -> bool:
    """Return whether JSON knows a value: YAML also has dates, sets and bytes."""
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and _is_plain(inner) for key, inner in value.items())
    if isinstance(value, list):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, str | int | float | bool)


def _read_range(name: str, kind: str, block: Mapping[str, Any], where: str) -> Parameter:
    low, high, q = block["min"], block["max"], block.get("q")
    if q is None and kind in ("q_uniform", "int_uniform"):
        q = 1
    for key, value in (("min", low), ("max", high), ("q", 1 if q is None else q)):
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            number = _as_number(value)
            remedy = "write a number" if number is None else f"write {number}: to W&B's YAML it is text"
            raise UserError.of(f"{where}.{key}", repr(value), "a number, such as 0.001 or 1.0e-3", remedy)
    if kind == "log_uniform":  # W&B means exponents of e here
        if max(low, high) > _LARGEST_EXPONENT:
            given = f"min {low:g}, max {high:g}"
            raise UserError.of(where, given, "exponents of e, below 700", "use log_uniform_values for the values")
        low, high = math.exp(low), math.exp(high)
    if not low < high or q is not None and q <= 0 or kind.startswith("log") and low <= 0:
        given = f"min {low:g}, max {high:g}" + (f", q {q:g}" if q else "")
        raise UserError.of(where, given, "min below max; for logarithms above 0; q above 0", "correct the range")
    if kind == "int_uniform" and not (isinstance(low, int) and isinstance(high, int)):
        raise UserError.of(where, f"min {low:g}, max {high:g}", "whole numbers for int_uniform", "round them")
    if kind == "q_uniform":
        low, high = round(low / q) * q, round(high / q) * q
    return Parameter(name, low=low, high=high, step=q, log=kind.startswith("log"))


def _as_number(value: Any) -> float | None:
    """Return the number that a text means to be, such as `1e-4`, or None."""
    try:
        return float(value) if isinstance(value, str) else None
    except ValueError:
        return None
