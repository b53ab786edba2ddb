"""EfficientNet scalings as data: coefficients, rounding rules, and exact parameter and multiply-add counts.

Torch is not needed here; `models/efficientnet.py` builds the modules from the same numbers, and a test holds the
two to each other. Sources: Tan & Le 2019 (arXiv 1905.11946) section 3.3, 4 and Table 1; coefficients from
tensorflow/tpu `efficientnet_builder.py`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from workbench.specs.errors import UserError, suggestion


@dataclass(frozen=True)
class Scaling:
    """Width, depth and resolution of one EfficientNet.

    Args:
        name: `b0`...`b7`, `b8`, `l2`, `tiny`, or a name made from the numbers.
        width: Channel multiplier on B0.
        depth: Layer multiplier on B0.
        resolution: Native input size in pixels.
        dropout: Probability of dropping a pooled feature before the classifier.
    """

    name: str
    width: float
    depth: float
    resolution: int
    dropout: float


ARCHS: dict[str, Scaling] = {
    scaling.name: scaling
    for scaling in (
        Scaling("b0", 1.0, 1.0, 224, 0.2),
        Scaling("b1", 1.0, 1.1, 240, 0.2),
        Scaling("b2", 1.1, 1.2, 260, 0.3),
        Scaling("b3", 1.2, 1.4, 300, 0.3),
        Scaling("b4", 1.4, 1.8, 380, 0.4),
        Scaling("b5", 1.6, 2.2, 456, 0.4),
        Scaling("b6", 1.8, 2.6, 528, 0.5),
        Scaling("b7", 2.0, 3.1, 600, 0.5),
        Scaling("b8", 2.2, 3.6, 672, 0.5),
        Scaling("l2", 4.3, 5.3, 800, 0.5),
        # Ours, for tests and the quickstart: small enough for 2 cores, same stages and strides.
        Scaling("tiny", 0.25, 0.5, 64, 0.2),
    )
}


@dataclass(frozen=True)
class Stage:
    """One row of the paper's Table 1 (stages 2 to 8), before or after scaling."""

    expand: int
    kernel: int
    stride: int
    in_channels: int
    out_channels: int
    repeats: int


B0_STAGES = (
    Stage(1, 3, 1, 32, 16, 1),
    Stage(6, 3, 2, 16, 24, 2),
    Stage(6, 5, 2, 24, 40, 2),
    Stage(6, 3, 2, 40, 80, 3),
    Stage(6, 5, 1, 80, 112, 3),
    Stage(6, 5, 2, 112, 192, 4),
    Stage(6, 3, 1, 192, 320, 1),
)
B0_TOP_CHANNELS = 1280
STAGE_NAMES = ("stem", *(f"stage{i}" for i in range(1, 8)), "top", "head")
"""The stages of every EfficientNet here, input first. `top` is the 1x1 convolution before pooling."""


def round_filters(filters: float) -> int:
    """Round a scaled channel count to a multiple of 8, never more than 10 % down (tensorflow/tpu round_filters)."""
    rounded = max(8, int(filters + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * filters else rounded


def scaled_stages(scaling: Scaling) -> tuple[Stage, ...]:
    """Return B0's seven stages with channels and repeats of `scaling`."""
    return tuple(
        Stage(
            stage.expand,
            stage.kernel,
            stage.stride,
            round_filters(stage.in_channels * scaling.width),
            round_filters(stage.out_channels * scaling.width),
            math.ceil(stage.repeats * scaling.depth),
        )
        for stage in B0_STAGES
    )


def top_channels(scaling: Scaling) -> int:
    """Return the number of pooled features."""
    return round_filters(B0_TOP_CHANNELS * scaling.width)


def resolve_arch(arch: str | dict[str, float]) -> Scaling:
    """Turn an architecture's name or numbers into a `Scaling`.

    Args:
        arch: A name from `ARCHS`; `{"phi": 1.5}` for the paper's compound rule (width 1.1^phi, depth 1.2^phi,
            resolution 224 * 1.15^phi rounded up to a multiple of 4, which gives B2's and B3's resolutions for 1 and 2);
            or any of `width`, `depth` (multipliers, default 1) and `resolution` (pixels, default 224). These are on B0;
            with `base`, a name from `ARCHS`, they are on that architecture, and its resolution is the default.

    Raises:
        UserError: Unknown name or key, or a number outside its range.
    """
    if isinstance(arch, str):
        if arch not in ARCHS:
            raise UserError.of(
                "model.arch", arch, ", ".join(ARCHS), suggestion(arch, ARCHS, "choose one, or {phi: 1.5}")
            )
        return ARCHS[arch]
    keys = set(arch) if isinstance(arch, Mapping) else set()
    if not keys or not (keys == {"phi"} or keys <= {"base", "width", "depth", "resolution"}):
        raise UserError.of(
            "model.arch",
            arch,
            "{phi: ...} or any of {base:, width:, depth:, resolution:}",
            "write one of these forms",
        )
    given = {key: value for key, value in arch.items() if key != "base"}
    numbers = [v for v in given.values() if isinstance(v, int | float) and not isinstance(v, bool) and abs(v) < 1e4]
    if len(numbers) < len(given) or given.get("resolution", 0) % 1 or abs(given.get("phi", 0)) > 20:
        allowed = "numbers; resolution a whole one, phi -20 to 20"
        raise UserError.of("model.arch", arch, allowed, "give each key such a number")
    if keys == {"phi"}:
        phi = arch["phi"]
        width, depth = 1.1**phi, 1.2**phi
        resolution = math.ceil(round(224 * 1.15**phi / 4, 6)) * 4
        name = f"phi{phi:g}"
    else:
        base = resolve_arch(arch.get("base", "b0"))
        width, depth = given.get("width", 1.0), given.get("depth", 1.0)
        resolution = given.get("resolution", base.resolution)
        name = f"{base.name}-" * ("base" in keys) + f"w{width:g}-d{depth:g}-r{resolution:g}"
        width, depth = width * base.width, depth * base.depth
    if not (0.1 <= width <= 10 and 0.1 <= depth <= 10 and 32 <= resolution <= 2048):
        raise UserError.of(
            "model.arch",
            arch,
            "width and depth 0.1 to 10 times B0's, resolution 32 to 2048",
            "choose numbers inside these ranges",
        )
    # Dropout grows with size in the paper (0.2 for B0 to 0.5 for B7): take that of the nearest named width.
    nearest = min(ARCHS.values(), key=lambda known: (abs(known.width - width), known.dropout))
    return Scaling(name, float(width), float(depth), int(resolution), nearest.dropout)


def _convolutions(scaling: Scaling) -> Iterator[tuple[str, int, int, int, int, int]]:
    """Yield (stage, kernel, stride, in, out, groups) of every normalised convolution, input first."""
    stages = scaled_stages(scaling)
    yield "stem", 3, 2, 3, stages[0].in_channels, 1
    for number, stage in enumerate(stages, 1):
        name, channels = f"stage{number}", stage.in_channels
        for repeat in range(stage.repeats):
            expanded = channels * stage.expand
            if stage.expand != 1:
                yield name, 1, 1, channels, expanded, 1
            yield name, stage.kernel, stage.stride if repeat == 0 else 1, expanded, expanded, expanded
            yield name, 1, 1, expanded, stage.out_channels, 1
            channels = stage.out_channels
    yield "top", 1, 1, stages[-1].out_channels, top_channels(scaling), 1


def _squeeze_excitations(scaling: Scaling) -> Iterator[tuple[str, int, int]]:
    """Yield (stage, channels, squeezed channels) of every squeeze-and-excitation, input first."""
    for number, stage in enumerate(scaled_stages(scaling), 1):
        channels = stage.in_channels
        for _ in range(stage.repeats):
            yield f"stage{number}", channels * stage.expand, max(1, channels // 4)
            channels = stage.out_channels


def count_parameters(scaling: Scaling, num_classes: int) -> dict[str, int]:
    """Count the parameters of each stage of an EfficientNet with a linear head.

    Args:
        scaling: The architecture.
        num_classes: Outputs of the head; 0 for no head.

    Returns:
        Parameters by stage name, input first.
    """
    counts = dict.fromkeys(STAGE_NAMES, 0)
    for stage, kernel, _, channels_in, channels_out, groups in _convolutions(scaling):
        counts[stage] += kernel * kernel * channels_in * channels_out // groups + 2 * channels_out
    for stage, channels, squeezed in _squeeze_excitations(scaling):
        counts[stage] += 2 * channels * squeezed + channels + squeezed
    counts["head"] = (top_channels(scaling) + 1) * num_classes
    return counts


def count_madds(scaling: Scaling, num_classes: int, resolution: int | None = None) -> int:
    """Count multiply-adds of one forward pass of one image (the paper's "FLOPS").

    Args:
        scaling: The architecture.
        num_classes: Outputs of a linear head; 0 for no head.
        resolution: Input size in pixels; the architecture's own if None.
    """
    size = resolution or scaling.resolution
    total = top_channels(scaling) * num_classes
    for _, kernel, stride, channels_in, channels_out, groups in _convolutions(scaling):
        size = math.ceil(size / stride)
        total += kernel * kernel * channels_in * channels_out // groups * size * size
    return total + sum(2 * channels * squeezed for _, channels, squeezed in _squeeze_excitations(scaling))
