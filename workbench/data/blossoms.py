"""Draws the embedded fine-grained image set of the workbench: stylised flowers, rendered on demand in numpy.

It is meant for demonstrating and testing transfer learning without a download, not for judging how well a
method does on photographs. Arrays become training batches in the dataset modules next to this one.
"""

import zlib
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from workbench.data.brushes import FOLIAGE, TAU, Array, background, grid, leaves, over, ramp, resample, rgb

__all__ = ["DOWNSTREAM_CLASSES", "UPSTREAM_CLASSES", "Species", "render", "species"]


@dataclass(frozen=True)
class Species:
    """What sets one kind of flower apart; pose, light and surroundings vary per image instead.

    Attributes:
        name: Unique Latin-like name, which also seeds the images.
        colours: 0xRRGGBB of the petal base, the petal tip and the marking.
        petals: Petals per ring: 3, 4, 5, 6, 8 or 12.
        shape: Petal outline: round, pointed, notched, lance, spoon or fringed.
        rings: Petal rings, 1 or 2.
        marking: plain, striped, spotted, veined, margined, blotched or banded.
        centre: Disc size, colour and texture together: button, cushion, stamen, eye or crown.
    """

    name: str
    colours: tuple[int, int, int]
    petals: int
    shape: str
    rings: int
    marking: str
    centre: str


# Every number below is a design guess, tuned by eye and by the accuracy of a small network. Each table begins
# its rows with the epithet of a species that got the trait in place of its genus's own.
PETALS = {3: ("tripetala",), 4: ("tetrapetala",), 5: ("pentapetala",), 6: ("hexapetala",)}
PETALS |= {8: ("octopetala",), 12: ("polypetala",)}
RINGS = {1: ("simplex",), 2: ("plena",)}
SHAPES = {  # then: half-width against the one that touches the neighbour, widest point, power of base and tip
    "round": ("rotunda", 1.12, 0.62, 0.9, 0.5), "pointed": ("acuta", 1.02, 0.46, 0.9, 1.15),
    "notched": ("cordata", 1.12, 0.68, 0.9, 0.5), "lance": ("lanceata", 0.58, 0.40, 0.9, 0.9),
    "spoon": ("spathulata", 0.86, 0.78, 1.8, 0.5), "fringed": ("dentata", 1.08, 0.74, 0.9, 0.4),
}  # fmt: skip
MARKINGS = {  # then: cover of the accent colour at place t along the petal (0 to 1) and s across it (-1 to 1)
    "plain": ("pura", lambda t, s: 0 * t),
    "striped": ("striata", lambda t, s: ramp(abs(s), 0.34, 0.16) * ramp(t, 0.95, 0.8)),
    "spotted": ("maculata", lambda t, s: ramp(np.cos(t * 19) * np.cos(s * 4.4), 0.2, 0.55) * (t > 0.25)),
    "veined": ("venosa", lambda t, s: 0.9 * ramp(np.cos(s * 9.4), 0.2, 0.8) * ramp(t, 0.92, 0.75)),
    "margined": ("marginata", lambda t, s: np.maximum(ramp(abs(s), 0.62, 0.8), ramp(t, 0.82, 0.9))),
    "blotched": ("oculata", lambda t, s: ramp(t + 0.12 * abs(s), 0.52, 0.44)),
    "banded": ("zonata", lambda t, s: ramp(abs(t - 0.66), 0.13, 0.07)),
}
CENTRES = {  # then: radius in petal lengths, rim colour, middle colour, radii between which they blend
    "button": ("gemmata", 0.15, 0xD98A12, 0xFFE25A, 1.0, 0.1),
    "cushion": ("pulvinata", 0.30, 0x4A2A14, 0x8A5A22, 1.0, 0.1),
    "stamen": ("staminea", 0.12, 0x8FB83A, 0xC8E070, 1.0, 0.1),
    "eye": ("ocellata", 0.22, 0xF6F0DC, 0x2A1630, 0.62, 0.48),
    "crown": ("coronata", 0.27, 0xF08A1C, 0x9A4A10, 0.62, 0.48),
}
# The type species of each genus; others share its colours and differ in one trait. The last 4 are downstream.
GENERA = (
    Species("Rosalba", (0xFFD9E0, 0xE8447E, 0x8E1045), 5, "round", 1, "plain", "button"),
    Species("Aurelia", (0xF08A10, 0xFFD93B, 0xA03A08), 8, "pointed", 1, "blotched", "cushion"),
    Species("Nivaria", (0xE9F2D0, 0xFBFAF4, 0xC03A78), 6, "notched", 2, "plain", "crown"),
    Species("Violetta", (0xE6CCFF, 0x6A35B8, 0x2C0E60), 4, "spoon", 1, "striped", "eye"),
    Species("Cyanella", (0xE4F4FF, 0x3F78DC, 0x142C86), 5, "fringed", 1, "veined", "stamen"),
    Species("Rubicola", (0xF2602C, 0xC4121E, 0x4C0410), 12, "lance", 2, "banded", "button"),
    Species("Corallina", (0xFFE6B0, 0xFF7A4C, 0xB01E34), 3, "pointed", 2, "margined", "stamen"),
    Species("Lilacea", (0xFFF0FA, 0xC67ADA, 0x6E1C8C), 6, "round", 2, "spotted", "cushion"),
    Species("Mellitia", (0xFFF3C4, 0xF7B24A, 0xB4400E), 5, "pointed", 1, "striped", "eye"),
    Species("Fuchsiola", (0xFF9ED0, 0xC41488, 0x560A50), 8, "notched", 1, "banded", "stamen"),
    Species("Pallidora", (0xFFFBEA, 0xF3D6E2, 0x8C2A8A), 4, "fringed", 1, "spotted", "button"),
    Species("Indigofa", (0xA9C4FF, 0x3A3CB4, 0xF4F0FF), 6, "lance", 1, "margined", "crown"),
)


def _genus(kind: Species, step: int, members: int) -> list[Species]:
    """Returns the type species of a genus and relatives that each move one trait on in its table."""
    moves = {"petals": (PETALS, 1), "shape": (SHAPES, step), "marking": (MARKINGS, step)}
    moves |= {"centre": (CENTRES, 1 + step % 4), "rings": (RINGS, 1)}
    found = [replace(kind, name=f"{kind.name} vera")]
    for trait, (table, move) in list(moves.items())[: members - 1]:
        value = list(table)[(list(table).index(getattr(kind, trait)) + move) % len(table)]
        found.append(replace(kind, name=f"{kind.name} {table[value][0]}", **{trait: value}))
    return found


_TABLE = {
    "upstream": tuple(s for i, kind in enumerate(GENERA[:8]) for s in _genus(kind, 1 + i % 5, 6)),
    "downstream": tuple(s for i, kind in enumerate(GENERA[8:]) for s in _genus(kind, 2 + i % 3, 4)),
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


@lru_cache(maxsize=16)
def _profile(shape: str) -> Array:
    """Half-width at 256 places along a petal, and the factor that turns a gap to its edge into a distance."""
    widest, base, tip = SHAPES[shape][2:]
    t = np.linspace(0, 1, 256)
    half = 0.05 + 0.95 * np.sin(np.pi / 2 * np.minimum(t / widest, 1)) ** base
    half = np.where(t < widest, half, np.cos(np.pi / 2 * np.clip((t - widest) / (1 - widest), 0, 1)) ** tip)
    # 0.4 is a usual petal's half-width over its length.
    return np.stack([half, 1 / np.hypot(1, np.gradient(half, t) * 0.4)]).astype(np.float32)


def _ring(image: Array, kind: Species, polar: tuple, ring: tuple, rolls: Array) -> Array:
    """Paints a ring of petals: ring is its petal length, turn and pixels per outer petal, rolls (4, 12)."""
    radius, angle, (inner, outer, accent) = polar
    scale, turn, pixel = ring
    n = kind.petals
    place = angle * (n / TAU) + turn
    # Each petal overlaps the one before it, so two candidates per pixel are enough: the lower and the upper.
    slot = np.floor(place) + np.array([0, 1], np.float32)[:, None, None]
    own = np.stack([0.16 * (rolls[0] - 0.5), 1 / (scale * (0.92 + 0.12 * rolls[1])), 0.8 + 0.2 * rolls[2]])
    swing, shrink, shade = own[:, :n].take(slot.astype(np.intp), axis=1, mode="wrap")
    bend, reach = (place - slot + swing) * (TAU / n), radius * shrink
    across, t = reach * np.sin(bend), reach * np.cos(bend)
    breadth = SHAPES[kind.shape][1] * min(float(np.sin(np.pi / n)), 0.42)  # 0.42: few petals stay slender
    if kind.shape == "notched":
        t += 0.26 * ramp(abs(across), 0.6 * breadth, 0.0)
    elif kind.shape == "fringed":
        t += 0.09 * (1 + np.cos(across * (11 / breadth)))
    half, factor = _profile(kind.shape).take((t * 255).clip(0, 255).astype(np.intp), axis=1)
    half *= breadth
    gap = (half - abs(across)) * factor
    cover = (gap * (pixel * scale) + 0.5).clip(0, 1) * (t < 1)
    side = (across / (half + 0.05 * breadth)).clip(-1, 1)
    light = rolls[3, 0] * TAU
    shade += side * (0.12 * np.sin(angle - light) - 0.1 * side)
    shade[0] *= 1 - 0.32 * ramp(gap[1], -0.16, 0.0)  # shadow of the upper petal
    tone, mark = ramp(t, 0.15, 0.95), MARKINGS[kind.marking][1](t, side)
    shade, tone, mark = (over(value[0], value[1], cover[1]) for value in (shade, tone, mark))
    shade *= (1 + 0.12 * np.cos(angle - light)) * (0.8 + 0.25 * ramp(radius, 0.1, 0.5 * scale))
    colour = inner + (outer - inner) * tone
    colour += (accent - colour) * mark
    return over(image, colour * shade, 1 - (1 - cover[0]) * (1 - cover[1]))


def _disc(image: Array, kind: Species, radius: Array, angle: Array, pixel: float, light: float) -> Array:
    """Paints the centre: a shaded disc whose size, colours and texture tell the kinds apart."""
    _, edge, *colours, low, high = CENTRES[kind.centre]
    rim, middle, cream, gold = rgb(*colours, 0xFFF6D0, 0xF2C21E)
    if kind.centre == "stamen":  # anthers on filaments around a small green pistil
        spokes = np.cos(angle * 9)
        image = over(image, cream, ramp(spokes, 0.7, 0.95) * ramp(radius, 0.27, 0.22) * 0.8)
        image = over(image, gold, ramp(spokes, 0.0, 0.7) * ramp(abs(radius - 0.27), 0.07, 0.03))
    elif kind.centre == "crown":
        edge = edge * (1 + 0.16 * np.cos(angle * 10))
    inside = radius / edge
    shade = 0.95 + 0.22 * inside * np.cos(angle - light)
    if kind.centre == "cushion":  # seeds in crossing spirals
        shade += 0.2 * (np.cos(angle * 16) + np.cos(radius * 80)) * ramp(inside, 0.2, 0.6)
    image = image * (1 - 0.4 * ramp(radius - edge, 0.09, 0.0))
    colour = over(rim, middle, ramp(inside, low, high)) * shade
    return over(image, colour, ramp((edge - radius) * pixel, -0.5, 0.5))


def _flower(image: Array, kind: Species, rng: np.random.Generator) -> None:
    """Paints the flower into the scene: position, scale, rotation, tilt, drop shadow, petals and disc."""
    size = image.shape[-1]
    roll, petals = rng.random(12, dtype=np.float32), rng.random((2, 4, 12), dtype=np.float32)
    petals[:, 3] = petals[0, 3]  # one light for both rings
    length, shift = float(0.54 + 0.3 * roll[0]), 0.5 * (roll[1:3] - 0.5)
    # Only the box around the flower and its shadow is worked on, which halves the time.
    ends = (shift + 1 + 1.25 * length * np.array([[-1], [1]])) * (size / 2)
    (left, top), (right, bottom) = ends.clip(0, size - 1).astype(int)
    box = (slice(None), slice(top, bottom + 1), slice(left, right + 1))
    x, y = grid(size)[box] - shift[:, None, None]
    lean, squash = roll[3] * TAU, 1 - 0.32 * roll[4]  # seen from the side: squashed across the lean
    cosine, sine = np.cos(lean), np.sin(lean)
    u, v = x * cosine + y * sine, y * (cosine / squash) - x * (sine / squash)
    depth = 1 / (length + (0.35 * length * (roll[5] - 0.5)) * v)  # the near side is drawn larger
    u, v = u * depth, v * depth
    radius, angle = np.sqrt(u * u + v * v), np.arctan2(v, u) + lean
    part = image[box] * (1 - 0.5 * ramp(radius - 0.1 * (u + v), 1.08, 0.6))
    colours = rgb(*kind.colours)
    grey = colours.mean(1, keepdims=True)
    # Hue by about 6 degrees either way, saturation and value; guesses that keep the genera apart.
    hue = 0.2 * (roll[6] - 0.5) * (colours[:, [2, 0, 1]] - colours[:, [1, 2, 0]])
    colours = (grey + (colours - grey) * (0.8 + 0.3 * roll[7]) + hue) * (0.85 + 0.2 * roll[8])
    pixel, turn, polar = length * size / 2, roll[9] * kind.petals, (radius, angle, colours)
    part = _ring(part, kind, polar, (1.0, turn, pixel), petals[0])
    if kind.rings == 2:
        part = part * (1 - 0.3 * ramp(radius, 0.75, 0.5))
        part = _ring(part, kind, polar, (0.62, turn + 0.5, pixel), petals[1])
    image[box] = _disc(part, kind, radius, angle, pixel, petals[0, 3, 0] * TAU)


def render(species: Species, seed: int, index: int, size: int = 64) -> np.ndarray:
    """Draws one image: a pure function of the arguments, up to float rounding between platforms.

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
    image = background(rng, size, rgb(*(kind.colours[1] for kind in GENERA)))
    _flower(image, species, rng)
    (x, y), roll = grid(size), rng.random(12, dtype=np.float32)
    traits = rng.random((6, 2, 1, 1), dtype=np.float32)
    # Up to two leaves in front lie around the flower, so that they rarely hide its middle.
    place = TAU * (roll[0] + np.array([[[0]], [[0.3]]], np.float32))
    traits[:2] = 0.5 + (0.42 + 0.1 * traits[:2]) * np.stack([np.cos(place), np.sin(place)])
    for i in range(int(roll[1] < 0.6) + int(roll[1] < 0.2)):
        cover, shade = leaves(x, y, traits[:, i])
        image = over(image, shade * rgb(FOLIAGE[int(roll[3 + i] * 3)])[0], cover)
    light = 1 + 0.3 * ((roll[5] - 0.5) * x + (roll[6] - 0.5) * y + (roll[7] - 0.5))
    image = image * (light * (1 + 0.12 * (roll[8:11, None, None] - 0.5)))
    image = resample(image, size, (0.3, 0.4, 0.5, 0.6, 0.75)[int(roll[11] * 5)])
    # Uniform noise, because normal numbers take four times as long; grey, like sensor noise in low light.
    image += (rng.random((size, size), dtype=np.float32) - 0.5) * (0.017 + 0.087 * roll[2])
    return np.ascontiguousarray((image.clip(0, 1) * 255 + 0.5).astype(np.uint8).transpose(1, 2, 0))
