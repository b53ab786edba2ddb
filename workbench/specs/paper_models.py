"""What the paper prints about models on ImageNet: its Tables 2, 3, 4 and 7 (Tan & Le 2019, arXiv 1905.11946 v5).

"FLOPS" are the paper's word for multiply-adds. `document` holds what the mission's own section document prints instead,
where that differs. Numbers have as many digits as are printed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

SOURCE = "Tan & Le 2019 (arXiv 1905.11946 v5)"


@dataclass(frozen=True)
class PaperModel:
    """One row of Table 2.

    Args:
        arch: What `model.arch` calls it, or a name from `NOT_BUILT`.
        title: What the paper calls it.
        beside: The EfficientNet that it is compared with.
        top1: Percent, single crop.
        top5: Percent.
        params_m: Millions.
        flops_b: Billions, or None where none is printed.
        resolution: Input at which our count gives the printed FLOPS, pixels, where that is not its native one; the
            paper does not print it.
        document: Fields that the section document prints otherwise.
    """

    arch: str
    title: str
    beside: str
    top1: float
    top5: float
    params_m: float
    flops_b: float | None
    resolution: int | None = None
    document: Mapping[str, float] = field(default_factory=dict)


def _own(arch: str, *printed: float, **other: Any) -> PaperModel:
    return PaperModel(arch, f"EfficientNet-{arch.upper()}", arch, *printed, **other)


TABLE_2 = (
    _own("b0", 77.1, 93.3, 5.3, 0.39),
    PaperModel("resnet50", "ResNet-50", "b0", 76.0, 93.0, 26, 4.1, document={"top1": 76.3}),
    PaperModel("densenet169", "DenseNet-169", "b0", 76.2, 93.2, 14, 3.5),
    _own("b1", 79.1, 94.4, 7.8, 0.70),
    PaperModel("resnet152", "ResNet-152", "b1", 77.8, 93.8, 60, 11, document={"flops_b": 11.3}),
    PaperModel("densenet264", "DenseNet-264", "b1", 77.9, 93.9, 34, 6.0),
    PaperModel("inception_v3", "Inception-v3", "b1", 78.8, 94.4, 24, 5.7),
    PaperModel("xception", "Xception", "b1", 79.0, 94.5, 23, 8.4),
    _own("b2", 80.1, 94.9, 9.2, 1.0),
    PaperModel("inception_v4", "Inception-v4", "b2", 80.0, 95.0, 48, 13),
    PaperModel("inception_resnet_v2", "Inception-ResNet-v2", "b2", 80.1, 95.1, 56, 13),
    _own("b3", 81.6, 95.7, 12, 1.8),
    PaperModel("resnext101_64x4d", "ResNeXt-101", "b3", 80.9, 95.6, 84, 32, 320),
    PaperModel("polynet", "PolyNet", "b3", 81.3, 95.8, 92, 35),
    _own("b4", 82.9, 96.4, 19, 4.2, document={"top1": 83.0}),
    PaperModel("senet154", "SENet", "b4", 82.7, 96.2, 146, 42, 320),
    PaperModel("nasnetalarge", "NASNet-A", "b4", 82.7, 96.2, 89, 24),
    PaperModel("amoebanet_a", "AmoebaNet-A", "b4", 82.8, 96.1, 87, 23, document={"flops_b": 24}),
    PaperModel("pnasnet5large", "PNASNet", "b4", 82.9, 96.2, 86, 23),
    _own("b5", 83.6, 96.7, 30, 9.9),
    PaperModel("amoebanet_c", "AmoebaNet-C", "b5", 83.5, 96.5, 155, 41),
    _own("b6", 84.0, 96.8, 43, 19),
    _own("b7", 84.3, 97.0, 66, 37),
    PaperModel("amoebanet_b", "GPipe", "b7", 84.3, 97.0, 557, None),
)


@dataclass(frozen=True)
class ScaledModel:
    """One row of Table 3 or 7: a network scaled one way.

    Args:
        table: 3 or 7.
        family: What the paper calls the network.
        scaled: In words, as printed.
        arch: What `model.arch` would say; for a compound row without printed numbers, our reading of it.
        flops_b: Billions, as printed.
        top1: Percent, as printed.
        stated: Whether the paper prints the multipliers that `arch` has.
    """

    table: int
    family: str
    scaled: str
    arch: str | dict[str, Any]
    flops_b: float
    top1: float
    stated: bool = True


def _rows(table: int, title: str, name: str, *rows: tuple[str, dict[str, Any], float, float, bool]):
    family = {"family": name} if name else {}
    return tuple(
        ScaledModel(table, title, scaled, {**family, **numbers}, flops, top1, stated)
        for scaled, numbers, flops, top1, stated in rows
    )


# The compound rule d=1.4, w=1.2, r=1.3 is printed for MobileNetV1 and B0; 224 * 1.3 = 291.2 pixels. For MobileNetV1 our
# count gives the printed 2.3B between 288 (2.24) and 291 (2.47): no size is printed. B3, the same rule, uses 300.
_COMPOUND = {"depth": 1.4, "width": 1.2}
TABLE_3 = (
    *_rows(
        3,
        "MobileNetV1",
        "mobilenet_v1",
        ("baseline", {}, 0.6, 70.6, True),
        ("width w=2", {"width": 2}, 2.2, 74.2, True),
        ("resolution r=2", {"resolution": 448}, 2.2, 72.7, True),
        ("compound d=1.4 w=1.2 r=1.3", {**_COMPOUND, "resolution": 288}, 2.3, 75.6, True),
    ),
    *_rows(
        3,
        "MobileNetV2",
        "mobilenet_v2",
        ("baseline", {}, 0.3, 72.0, True),
        ("depth d=4", {"depth": 4}, 1.2, 76.8, True),
        ("width w=2", {"width": 2}, 1.1, 76.4, True),
        ("resolution r=2", {"resolution": 448}, 1.2, 74.8, True),
        ("compound", {**_COMPOUND, "resolution": 288}, 1.3, 77.4, False),
    ),
    *_rows(
        3,
        "ResNet-50",
        "resnet50",
        ("baseline", {}, 4.1, 76.0, True),
        ("depth d=4", {"depth": 4}, 16.2, 78.1, True),
        ("width w=2", {"width": 2}, 14.7, 77.7, True),
        ("resolution r=2", {"resolution": 448}, 16.4, 77.5, True),
        ("compound", {**_COMPOUND, "resolution": 300}, 16.7, 78.8, False),
    ),
)
TABLE_7 = _rows(
    7,
    "EfficientNet-B0",
    "",
    ("baseline", {"resolution": 224}, 0.4, 77.3, True),
    ("depth d=4", {"depth": 4}, 1.8, 79.0, True),
    ("width w=2", {"width": 2}, 1.8, 78.9, True),
    ("resolution r=2", {"resolution": 448}, 1.9, 79.1, True),
    ("compound d=1.4 w=1.2 r=1.3", {**_COMPOUND, "resolution": 300}, 1.8, 81.1, True),
)
"""The models of Figure 7; of the curves in Figure 8, these are the points that are printed as numbers."""

TABLE_4 = (
    ("resnet152", "b1", 0.554, 0.098, 5.7),
    ("amoebanet_b", "b7", 19.0, 3.1, 6.1),
)
"""(compared, EfficientNet, seconds of each, ratio): one core of a Xeon E5-2690, batch 1, mean of 20 runs."""


def paper_model(arch: str) -> PaperModel | None:
    """Return Table 2's row of an architecture, or None if it has none."""
    return next((row for row in TABLE_2 if row.arch == arch), None)


def printed(row: PaperModel, column: str) -> str:
    """Return a figure as the paper prints it, and the section document's beside it where that differs."""
    value = getattr(row, column)
    if value is None:
        return ""
    other = f" (document: {_digits(row.document[column], column)})" if column in row.document else ""
    return _digits(value, column) + other


def _digits(value: float, column: str) -> str:
    if column.startswith("top"):
        return f"{value:.1f}"
    return f"{value:.2f}" if value < 1 else f"{value:.1f}" if value < 10 else f"{value:g}"
