"""Whether a `model.json` says what a model can be built from: it may come from anyone, so nothing in it is trusted."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from workbench.specs.compared import backbone_from
from workbench.specs.printable import odd_name
from workbench.specs.weights import PADDINGS, Preprocessing

MOST_CLASSES = 100_000
"""As many as a recipe may ask for."""
MOST_PIXELS = 32_768
"""Of a side; a choice of this project, above what any recipe can lead to."""
_TASKS = ("single_label", "multi_label")
_HEADS = ("linear", "mlp", "cosine", "none", "custom")
_STATISTICS = "a number above 0, at most 1"


def check_description(stated: Mapping[str, Any]) -> None:
    """Check a model's description.

    Args:
        stated: What model.json holds; its keys are those that a model has.

    Raises:
        ValueError: Everything in it that no model can have.
    """
    checks: dict[str, tuple[Callable[[Any], bool], str]] = {
        "arch": (_is_backbone, "an architecture as `model.arch` gives it"),
        "head": (_one_of(*_HEADS), ", ".join(_HEADS)),
        "task": (_one_of(*_TASKS), ", ".join(_TASKS)),
        "num_classes": (lambda value: _is_whole(value, 1, MOST_CLASSES), f"1 to {MOST_CLASSES}"),
        "bn_eps": (_is_share, _STATISTICS),
        "bn_momentum": (lambda value: _is_share(value) or value == 0, "a number from 0 to 1"),
        "padding": (_one_of(*PADDINGS), ", ".join(PADDINGS)),
        "dropout": (_is_rate, "a number from 0, below 1"),
        "drop_path": (_is_rate, "a number from 0, below 1"),
        "preprocessing": (_is_preprocessing, "what `fit` writes"),
        "sha256": (lambda value: isinstance(value, str) and bool(re.fullmatch("[0-9a-f]{64}", value)), "64 digits"),
        "provenance": (lambda value: isinstance(value, dict), "a mapping"),
    }
    wrong = [
        f"{key} is {stated[key]!r:.80}, not {told}" for key, (fits, told) in checks.items() if not fits(stated[key])
    ]
    wrong += _odd_classes(stated["classes"], stated["num_classes"])
    if not _is_calibration(stated.get("calibration")):
        wrong.append(f"calibration is {stated['calibration']!r:.80}, not a temperature of a number of images")
    if wrong:
        raise ValueError("; ".join(wrong))


def _odd_classes(classes: Any, num_classes: Any) -> list[str]:
    if not isinstance(classes, list) or len(classes) != num_classes:
        return [f"classes is no list of {num_classes!r:.80} names"]
    return next(([f"class {name!r:.80} is {odd}"] for name in classes if (odd := odd_name(name))), [])


def _one_of(*words: str) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, str) and value in words


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_whole(value: Any, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _is_share(value: Any) -> bool:
    return _is_number(value) and 0 < value <= 1


def _is_rate(value: Any) -> bool:
    return _is_number(value) and 0 <= value < 1


def _is_backbone(stated: Any) -> bool:
    try:
        made = backbone_from(stated)
    except (ValueError, TypeError, KeyError):
        return False
    # the ranges that `resolve_arch` allows; a network of these numbers is then compared with the tensors of its file
    sizes = all(_is_number(value) and 0.1 <= value <= 10 for value in (made.width, made.depth))
    whole = _is_whole(made.resolution, 32, 2048) and _is_number(made.dropout) and 0 <= made.dropout <= 1
    return sizes and whole and odd_name(made.name) is None


def _is_calibration(stated: Any) -> bool:
    if stated is None:  # older files do not say
        return True
    fits = isinstance(stated, dict) and _is_number(stated.get("temperature")) and 0 < stated["temperature"] <= 1000
    return fits and _is_whole(stated.get("n"), 1, 10**9)


def _is_preprocessing(stated: Any) -> bool:
    names = {field.name for field in dataclasses.fields(Preprocessing)}
    if not isinstance(stated, dict) or not {"resize", "crop", "mean", "std"} <= set(stated) <= names:
        return False
    sizes = all(_is_whole(stated[name], 1, MOST_PIXELS) for name in ("resize", "crop"))
    colours = [stated["mean"], stated["std"]]
    colours_fit = all(isinstance(c, list) and len(c) == 3 and all(map(_is_number, c)) for c in colours)
    words = stated.get("interpolation", "bicubic") in ("bicubic", "bilinear")
    return sizes and colours_fit and min(stated["std"]) > 0 and words and isinstance(stated.get("squash", False), bool)
