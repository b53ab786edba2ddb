"""Numpy brushes of the embedded flower set: soft edges, resampling, leaves and the out-of-focus background.

They serve blossoms, which holds the species and draws the flowers; they are no general drawing library.
"""

from functools import lru_cache

import numpy as np

Array = np.ndarray
TAU = np.float32(2 * np.pi)
# A guess at believable greens and browns.
FOLIAGE = (0x2F5A26, 0x4A7A34, 0x6B8F3C, 0x24443A, 0x6A5B38, 0x87A868, 0x3A3A2A)


@lru_cache(maxsize=256)
def rgb(*colours: int) -> Array:
    """Colours in 0 to 1, (colours, 3, 1, 1)."""
    return np.array([(c >> 16, c >> 8 & 255, c & 255) for c in colours], np.float32)[..., None, None] / 255


def ramp(value: Array, low: float, high: float) -> Array:
    """Rises linearly from 0 at low to 1 at high (or falls, where high is the smaller)."""
    return ((value - low) * (1 / (high - low))).clip(0, 1)


def over(image: Array, colour: Array, alpha: Array) -> Array:
    """Blends colour over image, alpha in 0 to 1; shapes broadcast."""
    blend = (colour - image) * alpha
    blend += image
    return blend


@lru_cache(maxsize=64)
def _smoother(rows: int, columns: int, sigma: float) -> Array:
    """Matrix that resamples columns values to rows values under a Gaussian of sigma columns."""
    target = (np.arange(rows) + 0.5) * columns / rows - 0.5
    weights = np.exp(-(((target[:, None] - np.arange(columns)) / sigma) ** 2) / 2)
    return (weights / weights.sum(1, keepdims=True)).astype(np.float32)


def resample(image: Array, size: int, sigma: float) -> Array:
    """Resizes (..., n, n) to (..., size, size) under a Gaussian of sigma source pixels."""
    matrix = _smoother(size, image.shape[-1], sigma)
    return matrix @ image @ matrix.T


@lru_cache(maxsize=8)
def grid(size: int) -> Array:
    """Pixel centres, (2, size, size): x to the right and y downwards, both in -1 to 1."""
    return (((np.mgrid[:size, :size] + 0.5) * 2 - size) / size).astype(np.float32)[::-1]


def leaves(x: Array, y: Array, traits: Array) -> tuple[Array, Array]:
    """Cover and shade of lens-shaped leaves; traits (6, n, 1, 1): x, y, direction, length, width, tone."""
    cosine, sine, length = np.cos(traits[2] * TAU), np.sin(traits[2] * TAU), 0.45 + 0.5 * traits[3]
    x, y = x - (traits[0] * 2.4 - 1.2), y - (traits[1] * 2.4 - 1.2)
    along, across = x * (cosine / length) + y * (sine / length), y * (cosine / length) - x * (sine / length)
    cover = ramp((0.22 + 0.16 * traits[4]) * (1 - along * along) - abs(across), -0.02, 0.04)
    half, rib = np.where(across > 0, 0.16, -0.08), 0.3 * ramp(abs(across), 0.05, 0.0)
    return cover, 0.75 + 0.5 * traits[5] + half + rib


def background(rng: np.random.Generator, size: int, petals: Array) -> Array:
    """Leaves and flowers (petals: their colours), drawn at half size because they are out of focus."""
    x, y = grid(size // 2)
    coarse, greens = rng.random((2, 3, 5, 5), dtype=np.float32), rgb(*FOLIAGE)
    image = over(*greens[rng.integers(len(FOLIAGE), size=2)], resample(coarse[0, :1], size // 2, 0.55))
    image += 0.16 * (resample(coarse[1], size // 2, 0.45) - 0.5)
    discs = rng.random((6, 4, 1, 1), dtype=np.float32)
    dx, dy = x - (discs[0] * 2.4 - 1.2), y - (discs[1] * 2.4 - 1.2)
    distance = np.sqrt(dx * dx + dy * dy) / (0.16 + 0.3 * discs[2])
    lobes = 0.16 * np.cos(np.arctan2(dy, dx) * (3 + np.floor(discs[3] * 6)))
    cover, core = ramp(distance - lobes, 1.15, 0.85), ramp(distance, 0.4, 0.2)
    blades, shade = leaves(x, y, rng.random((6, 5, 1, 1), dtype=np.float32))
    petals = petals[rng.permutation(len(petals))]
    for i in range(5):
        image = over(image, shade[i] * greens[i], blades[i] * 0.85)
        if i < 4 and discs[4, i] < 0.7:
            image = over(image, petals[i] * (0.6 + 0.4 * discs[5, i]), cover[i] * 0.9)
            image = over(image, rgb(0xE8C040)[0], core[i])
    return resample(image, size, (0.45, 0.6, 0.8, 1.0)[rng.integers(4)])
