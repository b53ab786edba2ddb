"""How a score grows with training images: a power law through what was measured, and what twice the images would bring.

error = 1 - score = a n^-b + c with n training images, as Hestness et al. 2017 (arXiv 1712.00409) find for many tasks.
Intervals come from a bootstrap over the images that were scored, all sizes together as they are the same images, and
over the noise of training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from workbench.analysis.seeds import SeedSummary, summarise
from workbench.specs.metric_names import MEAN_PER_CLASS

RESAMPLES = 2000
FEWEST_SIZES, FEWEST_FOR_FLOOR = 3, 4
"""Sizes without which no law is fitted, and without which it has no floor c: choices of this project, one size more
than the law has numbers, or as many as it has and one."""
LEAST_SPAN = 2.0
"""Most over fewest images below which nothing is said of twice the most."""
_STEEPEST, _FLATTEST = 3.0, 1e-4
_SEED = 0
_LARGEST = 50.0
"""Logarithm of a factor on an error, which is at most 1 anyhow."""


@dataclass(frozen=True)
class Measured:
    """One training on a part of the images.

    Args:
        num_images: Training images.
        score: The dataset's own, a fraction.
        right: (N,) bool, whether each scored image counts as right, in the order of all others; None where the score is
            no mean over images.
        repeat: Its seed, or the number of its draw.
        source: Its run folder, or how it was made.
        spread: Standard deviation of a score that is no mean over images, over which of them were scored.
    """

    num_images: int
    score: float
    right: np.ndarray | None
    repeat: int
    source: str = ""
    spread: float | None = None


@dataclass(frozen=True)
class Law:
    """error = scale n^-exponent + floor; arrays if it was fitted to several sets of errors at once."""

    scale: np.ndarray | float
    exponent: np.ndarray | float
    floor: np.ndarray | float

    def error(self, num_images: float) -> np.ndarray | float:
        """Return the error at some number of training images."""
        return self.scale * num_images**-self.exponent + self.floor


@dataclass(frozen=True)
class Forecast:
    """What the law says of twice the most training images; scores are fractions, intervals 95 %.

    Args:
        law: Of the measured means.
        exponent95: Interval of its exponent.
        has_floor: Whether the measurements support one.
        num_images: Twice the most that was trained on.
        score: There, by the law.
        score95: Interval of that.
        gain: Over the law's own score at the most that was measured.
        gain95: Interval of that.
        noise: What the intervals hold, in words.
    """

    law: Law
    exponent95: tuple[float, float]
    has_floor: bool
    num_images: int
    score: float
    score95: tuple[float, float]
    gain: float
    gain95: tuple[float, float]
    noise: str


def by_size(measured: Sequence[Measured]) -> dict[int, list[Measured]]:
    """Return the trainings on each number of images, fewest first."""
    sizes = sorted({one.num_images for one in measured})
    return {size: [one for one in measured if one.num_images == size] for size in sizes}


def summaries(measured: Sequence[Measured]) -> list[SeedSummary]:
    """Return mean, range and Student's interval of the repeats at each size, fewest images first."""
    return [summarise([one.score for one in same]) for same in by_size(measured).values()]


def fit_law(sizes: Sequence[float], errors: np.ndarray, weights: np.ndarray, has_floor: bool = False) -> Law:
    """Fit by weighted least squares: for an exponent the best scale and floor are linear, and exponents are searched.

    The search is over 0 to 3, ever finer, to about 1e-6.

    Args:
        sizes: (P,) training images, each once.
        errors: (..., P) fractions.
        weights: (P,) of their squares.
        has_floor: Whether to fit c, at least 0; else it is 0.
    """
    errors = np.asarray(errors, dtype=float)
    flat = errors.reshape(-1, errors.shape[-1])
    largest = max(sizes)
    relative = np.log(np.asarray(sizes, dtype=float) / largest)  # numbers near 1: well conditioned
    low, high = np.zeros(len(flat)), np.full(len(flat), _STEEPEST)
    for count in (61, 21, 21, 21, 21, 21):
        tried = np.linspace(low, high, count, axis=1)
        scale, floor, loss = _linear(relative, flat, weights, tried, has_floor)
        best = loss.argmin(1)
        step = (high - low) / (count - 1)
        row = np.arange(len(flat))
        exponent, scale, floor = tried[row, best], scale[row, best], floor[row, best]
        low, high = np.maximum(exponent - step, 0), np.minimum(exponent + step, _STEEPEST)
    shape = errors.shape[:-1]
    return Law(*(values.reshape(shape) for values in (scale * largest**exponent, exponent, floor)))


def _linear(
    relative: np.ndarray, errors: np.ndarray, weights: np.ndarray, exponents: np.ndarray, has_floor: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the best scale and floor for each exponent, and the loss; all (sets, exponents)."""
    powers = np.exp(-exponents[..., None] * relative)  # (sets, exponents, P)
    errors, weights = errors[:, None, :], weights / weights.sum()
    scale = (weights * powers * errors).sum(-1) / (weights * powers**2).sum(-1)
    floor = np.zeros_like(scale)
    if has_floor:
        mean, level = (weights * powers).sum(-1), (weights * errors).sum(-1)
        spread = (weights * powers**2).sum(-1) - mean**2
        slope = ((weights * powers * errors).sum(-1) - mean * level) / np.where(spread > 1e-9, spread, np.inf)
        free = level - slope * mean
        is_used = (slope > 0) & (free > 0)
        scale, floor = np.where(is_used, slope, scale), np.where(is_used, free, 0)
    fitted = scale[..., None] * powers + floor[..., None]
    return scale, floor, (weights * (errors - fitted) ** 2).sum(-1)


def forecast(measured: Sequence[Measured], labels: np.ndarray, metric: str) -> Forecast | str:
    """Fit the law and say what twice the most images would bring, or in a sentence why nothing can be said.

    Args:
        measured: Trainings on parts of one set, all scored on the same images.
        labels: (N,) class of each scored image.
        metric: What the scores are; `mean_per_class` weighs images by their class.
    """
    sizes = by_size(measured)
    errors = np.array([1 - summary.mean for summary in summaries(measured)])
    if len(sizes) < FEWEST_SIZES:
        return f"no law from {len(sizes)} size{'s'[: len(sizes) != 1]}: it takes {FEWEST_SIZES} or more"
    if max(sizes) < LEAST_SPAN * min(sizes):
        return f"no law: {max(sizes)} images are less than {LEAST_SPAN:g} times {min(sizes)}; measure fewer images too"
    if (errors <= 0).all():
        return "no law: nothing is wrong at any size"
    weights = _weights(errors, len(labels))
    drawn, noise = _resampled(sizes, errors, labels, metric)
    # an interval allows for a floor even where none is supported: else it would promise what a floor would take away
    drawn_law = fit_law(list(sizes), drawn, weights, len(sizes) >= FEWEST_FOR_FLOOR)
    has_floor = float(np.quantile(drawn_law.floor, 0.025)) > 0
    law = fit_law(list(sizes), errors, weights, has_floor)
    if law.exponent < _FLATTEST:
        return "no law: more images did not lower the error here; repeat the sizes with other seeds before believing it"
    most = max(sizes)
    gains = drawn_law.error(most) - drawn_law.error(2 * most)
    return Forecast(
        Law(float(law.scale), float(law.exponent), float(law.floor)),
        _middle95(drawn_law.exponent),
        has_floor,
        2 * most,
        float(1 - law.error(2 * most)),
        _middle95(1 - drawn_law.error(2 * most)),
        float(law.error(most) - law.error(2 * most)),
        _middle95(gains),
        noise,
    )


def _weights(errors: np.ndarray, num_scored: int) -> np.ndarray:
    """Return how much each error counts: by the variance of a share of `num_scored` images, kept from 0."""
    smooth = (errors * num_scored + 1) / (num_scored + 2)
    return 1 / (smooth * (1 - smooth))


def _middle95(values: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


def _resampled(
    sizes: dict[int, list[Measured]], errors: np.ndarray, labels: np.ndarray, metric: str
) -> tuple[np.ndarray, str]:
    """Return (RESAMPLES, P) errors as they might have been, and what was varied."""
    rng = np.random.default_rng(_SEED)
    drawn, noise = np.tile(errors, (RESAMPLES, 1)), []
    if all(one.right is not None for same in sizes.values() for one in same):
        right = np.stack([np.mean([one.right for one in same], axis=0) for same in sizes.values()])
        drawn = 1 - over_images(right, labels, metric, rng)
        noise.append(f"the {len(labels)} scored images")
    variance = np.zeros_like(drawn)
    if all(one.spread is not None for same in sizes.values() for one in same):
        # of all sizes as if each had images of its own: they share them, so gains vary less than this says
        spread = np.array([np.mean([one.spread for one in same]) for same in sizes.values()])
        variance += (spread / _kept_from_0(errors, len(labels))) ** 2
        noise.append(f"the {len(labels)} scored images")
    for part, freedom, told in _training_noise(sizes, errors, len(labels)):
        # one draw of Student's scale for all sizes: that a variance itself is not known well is common to them
        variance += part * freedom / rng.chisquare(freedom, (RESAMPLES, 1))
        noise.append(told)
    drawn = drawn * np.exp(np.minimum(np.sqrt(variance) * rng.standard_normal(drawn.shape), _LARGEST))
    return np.minimum(drawn, 1), " and ".join(noise) or "nothing: one training a size, and a score that is no mean"


def over_images(right: np.ndarray, labels: np.ndarray, metric: str, rng: np.random.Generator) -> np.ndarray:
    """Return (RESAMPLES, P) scores of (P, N) shares of right answers on images drawn again, the same ones for all P.

    For mean_per_class an image weighs one over its class's images, and the draw is over all images, not within classes:
    so a class of one image has its variance too.
    """
    weights = np.ones(len(labels))
    if metric == MEAN_PER_CLASS:
        _, place = np.unique(labels, return_inverse=True)
        weights = 1 / np.bincount(place)[place]
    scores = []
    for begin in range(0, RESAMPLES, 100):
        rows = rng.integers(0, len(labels), (min(100, RESAMPLES - begin), len(labels)))
        counts = np.stack([np.bincount(row, minlength=len(labels)) for row in rows]) * weights
        scores.append(counts @ right.T / counts.sum(1, keepdims=True))
    return np.concatenate(scores)


def _training_noise(
    sizes: dict[int, list[Measured]], errors: np.ndarray, num_scored: int
) -> list[tuple[np.ndarray, int, str]]:
    """Return where the logarithms of the mean errors vary from: (P,) variances, degrees of freedom, and what it is.

    From the repeats of all sizes together; and, as far as it is more, from how far the sizes lie from the law, with a
    floor where enough sizes remain to tell the two apart.
    """
    counts = np.array([len(same) for same in sizes.values()])
    logs = [np.log(_kept_from_0(1 - np.array([one.score for one in same]), num_scored)) for same in sizes.values()]
    within, freedom, found = np.zeros(len(sizes)), int((counts - 1).sum()), []
    if freedom:
        squares = sum(float(((log - log.mean()) ** 2).sum()) for log in logs)
        within = squares / freedom / counts
        found.append((within, freedom, f"the noise of training ({sum(counts[counts > 1])} repeats)"))
    has_floor = len(sizes) > FEWEST_FOR_FLOOR
    left = len(sizes) - 2 - has_floor
    if left > 1 or not freedom:  # one degree says too little where repeats say more
        law = fit_law(list(sizes), errors, _weights(errors, num_scored), has_floor)
        fitted = law.error(np.array(list(sizes)))
        off = np.log(_kept_from_0(errors, num_scored) / _kept_from_0(fitted, num_scored))
        extra = max(0.0, float((off**2).sum()) / left - float(within.mean()))
        if extra:
            found.append((np.full(len(sizes), extra), left, "how far the sizes lie from the law"))
    return found


def _kept_from_0(errors: np.ndarray, num_scored: int) -> np.ndarray:
    return (errors * num_scored + 0.5) / (num_scored + 1)
