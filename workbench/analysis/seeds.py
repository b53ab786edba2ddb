"""What several seeds of one recipe say together: mean, range, and an interval over seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.stats import t


@dataclass(frozen=True)
class SeedSummary:
    """A score over seeds.

    Args:
        n: Number of seeds.
        mean: Their mean.
        lowest: The lowest.
        highest: The highest.
        interval95: Student's t 95 % interval of the mean over seeds, not clipped to [0, 1]; None for one seed.
    """

    n: int
    mean: float
    lowest: float
    highest: float
    interval95: tuple[float, float] | None


def summarise(values: Sequence[float]) -> SeedSummary:
    """Summarise one score of runs that differ by seed only.

    The interval is mean +- t(0.975, n - 1) s / sqrt(n), with s the sample standard deviation: it says how far the mean
    may lie from that of many more seeds, and nothing of the choice of images.

    Args:
        values: One finite score per seed, at least one.

    Raises:
        ValueError: There are no values, or one is not finite.
    """
    values = [float(value) for value in values]
    if not values or not all(math.isfinite(value) for value in values):
        raise ValueError(f"scores to summarise must be finite, and at least one: {values}")
    mean, interval = statistics.fmean(values), None
    if len(values) > 1:
        spread = float(t.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / math.sqrt(len(values))
        interval = mean - spread, mean + spread
    return SeedSummary(len(values), mean, min(values), max(values), interval)
