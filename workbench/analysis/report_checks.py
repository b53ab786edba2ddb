"""Whether what a finished run tells can be shown: scores, interval, seed and what its recipe expects of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from workbench.specs.metric_names import LOSS, SCORES

_EDGE = 1e-9
"""What rounding may put between a score and the end of its interval."""


def check_run(selection: Any, test: Any, metric: str, seed: Any, expect: Any) -> None:
    """Refuse a run of which a row cannot be made.

    Args:
        selection: Scores on the selection split, fractions, or None.
        test: Scores on test, or None.
        metric: The dataset's own score, which the interval is of.
        seed: Of the fit, or None if it is not known.
        expect: `about.expect` of the recipe.

    Raises:
        ValueError: What is odd, for people.
        KeyError: The dataset's own score is missing.
    """
    if selection is None and test is None:
        raise ValueError("it has scores neither on selection nor on test")
    for scores in (selection, test):
        if scores is not None:
            _check_scores(scores, metric)
    if seed is not None and not _is_number(seed):
        raise ValueError(f"its seed is {seed}")
    if expect is not None:
        _check_expect(expect)


def _check_scores(scores: Any, metric: str) -> None:
    if not isinstance(scores, Mapping):
        raise ValueError(f"its scores are {scores!r}")
    own = scores[metric]
    for name in (metric, *(name for name in SCORES if name in scores)):
        value = scores[name]
        if not _is_number(value) or (name != LOSS and not 0 <= value <= 1):
            raise ValueError(f"its {name} is {value}")
    count = scores.get("n")
    if count is not None and not _is_number(count):
        raise ValueError(f"its n is {count}")
    interval = scores.get("interval95")
    if interval is None:
        return
    if not isinstance(interval, list | tuple) or len(interval) != 2 or not all(map(_is_number, interval)):
        raise ValueError(f"its interval95 is {interval}")
    if not interval[0] - _EDGE <= own <= interval[1] + _EDGE:
        raise ValueError(f"its {metric}, {own}, is outside its interval95, {list(interval)}")


def _check_expect(expect: Any) -> None:
    ends = [expect.get(name) for name in ("low", "high")] if isinstance(expect, Mapping) else []
    if not ends or any(end is not None and not _is_number(end) for end in ends):
        raise ValueError(f"its about.expect is {expect}")
    if not isinstance(expect.get("metric") or "", str):
        raise ValueError(f"its about.expect.metric is {expect['metric']}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
