"""Draws the embedded fine-grained image set of the workbench: stylised flowers, rendered on demand with numpy.

It is meant for demonstrating and testing transfer learning without a download, not for judging how well a
method does on photographs. Arrays become training batches in the dataset modules next to this one.
"""

import zlib
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

__all__ = ["DOWNSTREAM_CLASSES", "UPSTREAM_CLASSES", "Species", "render", "species"]

Array = np.ndarray
TAU = np.float32(2 * np.pi)


@dataclass(frozen=True)
class Species:
    """What sets one kind of flower apart; pose, light and surroundings vary per image instead.

    Attributes:
        name: Unique Latin-like name, which also seeds the images.
        inner: Petal colour at the base, 0xRRGGBB.
        outer: Petal colour at the tip, 0xRRGGBB.
        accent: Colour of the marking, 0xRRGGBB.
        petals: Petals per ring, 3 to 12.
        shape: Petal outline: round, pointed, notched, lance, spoon or fringed.
        rings: Petal rings, 1 or 2.
        marking: plain, striped, spotted, veined, margined, blotched or banded.
        centre: Disc size, colour and texture together: button, cushion, stamen, eye or crown.
    """

    name: str
    inner: int
    outer: int
    accent: int
    petals: int
    shape: str
    rings: int
    marking: str
    centre: str


# Every number in the tables below is a design choice, tuned by eye and by the accuracy of a small network.
COUNTS = {
    3: "tripetala",
    4: "tetrapetala",
    5: "pentapetala",
    6: "hexapetala",
    8: "octopetala",
    12: "polypetala",
}
# Outline: epithet, half-width against the half-width that touches the neighbour, widest point, tip power.
SHAPES = {
    "round": ("rotunda", 1.12, 0.62, 0.5),
    "pointed": ("acuta", 1.02, 0.46, 1.15),
    "notched": ("cordata", 1.12, 0.68, 0.5),
    "lance": ("lanceata", 0.58, 0.40, 0.9),
    "spoon": ("spathulata", 0.86, 0.78, 0.5),
    "fringed": ("dentata", 1.08, 0.74, 0.4),
}
MARKINGS = dict(plain="pura", striped="striata", spotted="maculata", veined="venosa")
MARKINGS |= dict(margined="marginata", blotched="oculata", banded="zonata")
# Centre: epithet, radius in petal lengths, rim colour, middle colour.
CENTRES = {
    "button": ("gemmata", 0.15, 0xD98A12, 0xFFE25A),
    "cushion": ("pulvinata", 0.30, 0x4A2A14, 0x8A5A22),
    "stamen": ("staminea", 0.12, 0x8FB83A, 0xC8E070),
    "eye": ("ocellata", 0.22, 0xF6F0DC, 0x2A1630),
    "crown": ("coronata", 0.27, 0xF08A1C, 0x9A4A10),
}
# One genus per row: name, inner, outer and accent colour, then the traits of its type species. The other
# members share its colours and differ from the type species in one trait each. The last 4 are downstream.
GENERA = (
    ("Rosalba", 0xFFD9E0, 0xE8447E, 0x8E1045, 5, "round", 1, "plain", "button"),
    ("Aurelia", 0xF08A10, 0xFFD93B, 0xA03A08, 8, "pointed", 1, "blotched", "cushion"),
    ("Nivaria", 0xE9F2D0, 0xFBFAF4, 0xC03A78, 6, "notched", 2, "plain", "crown"),
    ("Violetta", 0xE6CCFF, 0x6A35B8, 0x2C0E60, 4, "spoon", 1, "striped", "eye"),
    ("Cyanella", 0xE4F4FF, 0x3F78DC, 0x142C86, 5, "fringed", 1, "veined", "stamen"),
    ("Rubicola", 0xF2602C, 0xC4121E, 0x4C0410, 12, "lance", 2, "banded", "button"),
    ("Corallina", 0xFFE6B0, 0xFF7A4C, 0xB01E34, 3, "pointed", 2, "margined", "stamen"),
    ("Lilacea", 0xFFF0FA, 0xC67ADA, 0x6E1C8C, 6, "round", 2, "spotted", "cushion"),
    ("Mellitia", 0xFFF3C4, 0xF7B24A, 0xB4400E, 5, "pointed", 2, "striped", "eye"),
    ("Fuchsiola", 0xFF9ED0, 0xC41488, 0x560A50, 8, "notched", 1, "banded", "stamen"),
    ("Pallidora", 0xFFFBEA, 0xF3D6E2, 0x8C2A8A, 4, "fringed", 1, "spotted", "button"),
    ("Indigofa", 0xA9C4FF, 0x3A3CB4, 0xF4F0FF, 6, "lance", 1, "margined", "crown"),
)
FOLIAGE = (0x2F5A26, 0x4A7A34, 0x6B8F3C, 0x24443A, 0x6A5B38, 0x87A868, 0x3A3A2A)
PROFILE_POINTS = 255


def _genus(row: tuple, step: int, members: int) -> list[Species]:
    """Returns the type species of a genus and relatives that each change one trait."""

    def other(table: dict, trait: object, by: int) -> object:
        return list(table)[(list(table).index(trait) + by) % len(table)]

    kind = Species(f"{row[0]} vera", *row[1:])
    count, shape = other(COUNTS, kind.petals, 1), other(SHAPES, kind.shape, step)
    marking, centre = other(MARKINGS, kind.marking, step), other(CENTRES, kind.centre, 1 + step % 4)
    relatives = (
        (COUNTS[count], {"petals": count}),
        (SHAPES[shape][0], {"shape": shape}),
        (MARKINGS[marking], {"marking": marking}),
        (CENTRES[centre][0], {"centre": centre}),
        ("plena" if kind.rings == 1 else "simplex", {"rings": 3 - kind.rings}),
    )
    return [kind] + [replace(kind, name=f"{row[0]} {name}", **trait) for name, trait in relatives[: members - 1]]


_TABLE = {
    "upstream": tuple(s for i, row in enumerate(GENERA[:8]) for s in _genus(row, 1 + i % 5, 6)),
    "downstream": tuple(s for i, row in enumerate(GENERA[8:]) for s in _genus(row, 2 + i % 3, 4)),
}
UPSTREAM_CLASSES: tuple[str, ...] = tuple(s.name for s in _TABLE["upstream"])
DOWNSTREAM_CLASSES: tuple[str, ...] = tuple(s.name for s in _TABLE["downstream"])


def species(task: str) -> tuple[Species, ...]:
    """Returns the species of a task, in class-index order.

    Args:
        task: "upstream" (48 species, for pretraining) or "downstream" (16 others, for transfer).

    Raises:
        ValueError: If the task is neither of the two.
    """
    if task not in _TABLE:
        raise ValueError(f"task must be one of {sorted(_TABLE)}, got {task!r}")
    return _TABLE[task]


def _rgb(*colours: int) -> Array:
    """Colours as (3, 1, 1) planes in 0 to 1, stacked when there are several."""
    planes = np.array([(c >> 16, c >> 8 & 255, c & 255) for c in colours], np.float32)[..., None, None] / 255
    return planes if len(colours) > 1 else planes[0]


def _ramp(value: Array, low: float, high: float) -> Array:
    """Rises linearly from 0 at low to 1 at high (or falls, where high is the smaller)."""
    return ((value - low) * (1 / (high - low))).clip(0, 1)


def _over(image: Array, colour: Array, alpha: Array) -> Array:
    return image + (colour - image) * alpha


@lru_cache(maxsize=64)
def _smoother(rows: int, columns: int, sigma: float) -> Array:
    """Matrix that resamples columns values to rows values under a Gaussian of sigma columns."""
    target = (np.arange(rows) + 0.5) * columns / rows - 0.5
    weights = np.exp(-(((target[:, None] - np.arange(columns)) / sigma) ** 2) / 2)
    return (weights / weights.sum(1, keepdims=True)).astype(np.float32)


def _resample(image: Array, size: int, sigma: float) -> Array:
    matrix = _smoother(size, image.shape[-1], sigma)
    return matrix @ image @ matrix.T


@lru_cache(maxsize=8)
def _grid(size: int) -> Array:
    """Pixel centres, (2, size, size): x to the right and y downwards, both in -1 to 1."""
    return (((np.mgrid[:size, :size] + 0.5) * 2 - size) / size).astype(np.float32)[::-1]


@lru_cache(maxsize=16)
def _profile(shape: str) -> tuple[Array, Array]:
    """Relative half-width along a petal, base to tip, and the factor that turns its gap into a distance."""
    widest, power = SHAPES[shape][2:]
    t = np.linspace(0, 1, PROFILE_POINTS + 1)
    base = 0.05 + 0.95 * np.sin(np.pi / 2 * np.minimum(t / widest, 1)) ** (1.8 if shape == "spoon" else 0.9)
    half = np.where(t < widest, base, np.cos(np.pi / 2 * np.clip((t - widest) / (1 - widest), 0, 1)) ** power)
    factor = 1 / np.hypot(1, np.gradient(half, t) * 0.4)  # 0.4: a usual petal's half-width over its length
    return half.astype(np.float32), factor.astype(np.float32)


def _leaves(x: Array, y: Array, traits: Array) -> tuple[Array, Array]:
    """Cover and shade of lens-shaped leaves; traits (6, n): x, y, direction, length, width, tone in 0 to 1."""
    traits = traits[:, :, None, None]
    cosine, sine, length = np.cos(traits[2] * TAU), np.sin(traits[2] * TAU), 0.45 + 0.5 * traits[3]
    x, y = x - (traits[0] * 2.4 - 1.2), y - (traits[1] * 2.4 - 1.2)
    along, across = x * (cosine / length) + y * (sine / length), y * (cosine / length) - x * (sine / length)
    away = abs(across)
    cover = _ramp((0.22 + 0.16 * traits[4]) * (1 - along * along) - away, -0.02, 0.04)
    return cover, 0.75 + 0.5 * traits[5] + np.where(across > 0, 0.16, -0.08) + 0.3 * _ramp(away, 0.05, 0.0)


def _background(rng: np.random.Generator, size: int) -> Array:
    """Foliage, other flowers and leaves, drawn at half size because they are out of focus."""
    x, y = _grid(size // 2)
    coarse = rng.random((2, 3, 5, 5), dtype=np.float32)
    greens = _rgb(*FOLIAGE)
    low, high = greens[rng.integers(len(FOLIAGE), size=2)]
    image = _over(low, high, _resample(coarse[0, :1], size // 2, 0.55))
    image += 0.16 * (_resample(coarse[1], size // 2, 0.45) - 0.5)
    discs = rng.random((6, 4, 1, 1), dtype=np.float32)
    dx, dy = x - (discs[0] * 2.4 - 1.2), y - (discs[1] * 2.4 - 1.2)
    distance = np.sqrt(dx * dx + dy * dy) / (0.16 + 0.3 * discs[2])
    lobes = 0.16 * np.cos(np.arctan2(dy, dx) * (3 + np.floor(discs[3] * 6)))
    cover, core = _ramp(distance - lobes, 1.15, 0.85), _ramp(distance, 0.4, 0.2)
    leaves, shade = _leaves(x, y, rng.random((6, 5), dtype=np.float32))
    petals = _rgb(*(row[2] for row in GENERA))[rng.permutation(len(GENERA))]
    for i in range(5):
        image = _over(image, shade[i] * greens[i], leaves[i] * 0.85)
        if i < 4 and discs[4, i] < 0.7:
            image = _over(image, petals[i] * (0.6 + 0.4 * discs[5, i]), cover[i] * 0.9)
            image = _over(image, _rgb(0xE8C040), core[i])
    return _resample(image, size, (0.45, 0.6, 0.8, 1.0)[rng.integers(4)])


def _marking(kind: str, t: Array, side: Array) -> Array | float:
    """Cover of the accent colour at place t along the petal (0 to 1) and side across it (-1 to 1)."""
    away = abs(side)
    match kind:
        case "striped":
            return _ramp(away, 0.34, 0.16) * _ramp(t, 0.95, 0.8)
        case "spotted":
            return _ramp(np.cos(t * 19) * np.cos(side * 4.4), 0.2, 0.55) * _ramp(t, 0.2, 0.3)
        case "veined":
            return 0.9 * _ramp(np.cos(side * 9.4), 0.2, 0.8) * _ramp(t, 0.92, 0.75)
        case "margined":
            return np.maximum(_ramp(away, 0.62, 0.8), _ramp(t, 0.82, 0.9))
        case "blotched":
            return _ramp(t + 0.12 * away, 0.52, 0.44)
        case "banded":
            return _ramp(abs(t - 0.66), 0.13, 0.07)
    return 0 * t


def _ring(image: Array, kind: Species, polar: tuple, scale: float, turn: float, pixel: float, rolls: Array) -> Array:
    """Paints a ring of petals: scale is its petal length, pixel the pixels per outer petal, rolls (4, 12)."""
    radius, angle, (inner, outer, accent) = polar
    n = kind.petals
    place = angle * (n / TAU) + turn
    # Each petal overlaps the one before it, so two candidates per pixel are enough: the lower and the upper.
    slot = np.floor(place) + np.array([0, 1], np.float32)[:, None, None]
    petal = slot.astype(np.intp) % n
    bend = (place - slot + (0.16 * (rolls[0, :n] - 0.5))[petal]) * (TAU / n)
    reach = radius * (1 / (scale * (0.92 + 0.12 * rolls[1, :n])))[petal]
    across, t = reach * np.sin(bend), reach * np.cos(bend)
    breadth = SHAPES[kind.shape][1] * min(float(np.sin(np.pi / n)), 0.42)  # 0.42: few petals stay slender
    if kind.shape == "notched":
        t += 0.26 * _ramp(abs(across), 0.6 * breadth, 0.0)
    elif kind.shape == "fringed":
        t += 0.09 * (1 + np.cos(across * (11 / breadth)))
    profile, factor = _profile(kind.shape)
    place = (t * PROFILE_POINTS).clip(0, PROFILE_POINTS).astype(np.intp)
    half = profile[place] * breadth
    gap = (half - abs(across)) * factor[place]
    cover = (gap * (pixel * scale) + 0.5).clip(0, 1) * (t < 1)
    side = (across / (half + 0.05 * breadth)).clip(-1, 1)
    light = rolls[3, 0] * TAU
    shade = 0.9 + 0.2 * (rolls[2, :n] - 0.5)[petal] + 0.12 * side * np.sin(angle - light) - 0.1 * side * side
    shade[0] *= 1 - 0.32 * _ramp(gap[1], -0.16, 0.0)  # shadow of the upper petal
    lower, upper = np.stack([shade, _ramp(t, 0.15, 0.95), _marking(kind.marking, t, side)], 1)
    shade, tone, mark = _over(lower, upper, cover[1])
    shade *= (1 + 0.12 * np.cos(angle - light)) * (0.8 + 0.25 * _ramp(radius, 0.1, 0.5 * scale))
    colour = _over(_over(inner, outer, tone), accent, mark) * shade
    return _over(image, colour, 1 - (1 - cover[0]) * (1 - cover[1]))


def _disc(image: Array, kind: Species, radius: Array, angle: Array, pixel: float, light: float) -> Array:
    """Paints the centre: a shaded disc whose size, colours and texture tell the kinds apart."""
    _, edge, *colours = CENTRES[kind.centre]
    rim, middle, cream, gold = _rgb(*colours, 0xFFF6D0, 0xF2C21E)
    if kind.centre == "stamen":  # anthers on filaments around a small green pistil
        spokes = np.cos(angle * 9)
        image = _over(image, cream, _ramp(spokes, 0.7, 0.95) * _ramp(radius, 0.27, 0.22) * 0.8)
        image = _over(image, gold, _ramp(spokes, 0.0, 0.7) * _ramp(abs(radius - 0.27), 0.07, 0.03))
    elif kind.centre == "crown":
        edge = edge * (1 + 0.16 * np.cos(angle * 10))
    inside = radius / edge
    tone = _ramp(inside, 0.62, 0.48) if kind.centre in ("eye", "crown") else _ramp(inside, 1.0, 0.1)
    shade = 0.95 + 0.22 * inside * np.cos(angle - light)
    if kind.centre == "cushion":  # seeds in crossing spirals
        seeds = np.cos(angle * 8 + radius * 40) * np.cos(angle * 8 - radius * 40)
        shade += 0.4 * seeds * _ramp(inside, 0.2, 0.6)
    image = image * (1 - 0.4 * _ramp(radius - edge, 0.09, 0.0))
    return _over(image, _over(rim, middle, tone) * shade, _ramp((edge - radius) * pixel, -0.5, 0.5))


def _flower(image: Array, kind: Species, rng: np.random.Generator) -> None:
    """Paints the flower into the scene: position, scale, rotation, tilt, drop shadow, petals and disc."""
    size = image.shape[-1]
    roll, petals = rng.random(12, dtype=np.float32), rng.random((2, 4, 12), dtype=np.float32)
    petals[:, 3] = petals[0, 3]  # one light for both rings
    length, shift = float(0.54 + 0.3 * roll[0]), 0.5 * (roll[1:3] - 0.5)
    # Only the box around the flower and its shadow is worked on, which halves the time.
    first = [max(0, int((s + 1 - 1.25 * length) * size / 2)) for s in shift]
    last = [int((s + 1 + 1.25 * length) * size / 2) + 1 for s in shift]
    box = (slice(None), slice(first[1], last[1]), slice(first[0], last[0]))
    x, y = _grid(size)[box] - shift[:, None, None]
    lean, squash = roll[3] * TAU, 1 - 0.32 * roll[4]  # seen from the side: squashed across the lean
    u, v = x * np.cos(lean) + y * np.sin(lean), (y * np.cos(lean) - x * np.sin(lean)) / squash
    depth = 1 / (length * (1 + 0.35 * (roll[5] - 0.5) * v))  # the near side is drawn larger
    u, v = u * depth, v * depth
    radius, angle = np.sqrt(u * u + v * v), np.arctan2(v, u) + lean
    part = image[box] * (1 - 0.5 * _ramp(radius - 0.1 * (u + v), 1.08, 0.6))
    colours = _rgb(kind.inner, kind.outer, kind.accent)
    grey = colours.mean(1, keepdims=True)
    # Hue by about 6 degrees either way, saturation and value; guesses that keep the genera apart.
    hue = 0.2 * (roll[6] - 0.5) * (colours[:, [2, 0, 1]] - colours[:, [1, 2, 0]])
    colours = (grey + (colours - grey) * (0.8 + 0.3 * roll[7]) + hue) * (0.85 + 0.2 * roll[8])
    pixel, turn, polar = length * size / 2, roll[9] * kind.petals, (radius, angle, colours)
    part = _ring(part, kind, polar, 1.0, turn, pixel, petals[0])
    if kind.rings == 2:
        part = part * (1 - 0.3 * _ramp(radius, 0.75, 0.5))
        part = _ring(part, kind, polar, 0.62, turn + 0.5, pixel, petals[1])
    image[box] = _disc(part, kind, radius, angle, pixel, petals[0, 3, 0] * TAU)


def render(species: Species, seed: int, index: int, size: int = 64) -> np.ndarray:
    """Draws one image of a species.

    The image is a pure function of the arguments; between platforms float rounding may move a value by one.

    Args:
        species: What to draw.
        seed: Seed of the image set, 0 or more; use one per split.
        index: Which image of the species within the set, 0 or more.
        size: Height and width in pixels, even and at least 16; the tables are tuned for 64.

    Returns:
        (size, size, 3) uint8 RGB image in 0 to 255.

    Raises:
        ValueError: If size is odd or under 16, or seed or index is negative.
    """
    if size < 16 or size % 2:
        raise ValueError(f"size must be even and at least 16, got {size}")
    # crc32 rather than hash(), which differs from one process to the next.
    entropy = np.random.SeedSequence([zlib.crc32(species.name.encode()), seed, index])
    rng = np.random.Generator(np.random.PCG64(entropy))
    image = _background(rng, size)
    _flower(image, species, rng)
    (x, y), roll = _grid(size), rng.random(12, dtype=np.float32)
    traits = rng.random((6, 2), dtype=np.float32)
    # Up to two leaves in front lie around the flower, so that they rarely hide its middle.
    place = TAU * (roll[0] + np.array([0, 0.3], np.float32))
    traits[:2] = 0.5 + (0.42 + 0.1 * traits[:2]) * np.stack([np.cos(place), np.sin(place)])
    count = int(roll[1] < 0.6) + int(roll[1] < 0.2)
    cover, shade = _leaves(x, y, traits[:, :count])
    for i in range(count):
        image = _over(image, shade[i] * _rgb(FOLIAGE[int(roll[3 + i] * 3)]), cover[i])
    light = 1 + 0.3 * ((roll[5] - 0.5) * x + (roll[6] - 0.5) * y + roll[7] - 0.5)
    image = image * (light * (1 + 0.12 * (roll[8:11, None, None] - 0.5)))
    image = _resample(image, size, (0.3, 0.4, 0.5, 0.6, 0.75)[int(roll[11] * 5)])
    image += rng.standard_normal((1, size, size), dtype=np.float32) * (0.005 + 0.025 * roll[2])
    return np.ascontiguousarray((image.clip(0, 1) * 255 + 0.5).astype(np.uint8).transpose(1, 2, 0))
