"""The networks that the paper compares EfficientNet with, as data: names, how they scale, who builds them.

Torch is not needed here; `models/compared.py` builds them. What the paper prints about them is in `paper_models.py`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from workbench.specs.architectures import ARCHS, STAGE_NAMES, Scaling, resolve_arch
from workbench.specs.errors import Problem, UserError, suggestion

_TORCH_BN_EPS = 1e-5
_INCEPTION_BN_EPS = 1e-3  # TensorFlow's, kept by torchvision's and timm's ports of these nets; a test holds it to them
_FOUR = ("stem", "stage1", "stage2", "stage3", "stage4", "head")


@dataclass(frozen=True)
class Family:
    """One compared network, as far as it can be built here.

    Args:
        name: What `model.arch` calls it.
        title: What the paper calls it.
        library: `own`, `torchvision` or `timm` (the extra `compare`).
        factory: Its name in that library.
        resolution: Native input size, pixels.
        stages: Names of its parts, input first.
        scalable: Whether width and depth can be given.
        dropout: Before the head, by default.
        bn_eps: BatchNorm epsilon, as its library builds it.
        smallest: Smallest input that it takes, pixels.
    """

    name: str
    title: str
    library: str
    factory: str
    resolution: int = 224
    stages: tuple[str, ...] = _FOUR
    scalable: bool = False
    dropout: float = 0.0
    bn_eps: float = _TORCH_BN_EPS
    smallest: int = 32


_BODY = ("body", "head")
_AMOEBA = {  # dropout: amoeba_net_model.py, beside the source that `amoeba_cells.py` names
    "stages": ("stem", "stage1", "stage2", "stage3", "head"),
    "scalable": True,
    "dropout": 0.5,
    "bn_eps": _INCEPTION_BN_EPS,
}
_TF = {"bn_eps": _INCEPTION_BN_EPS, "stages": _BODY}
# Dropout: as torchvision's builders have it; MobileNetV1's from its paper's code (keep probability 0.999) is left out.
FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        Family(
            "mobilenet_v1",
            "MobileNetV1",
            "own",
            "",
            stages=("stem", *(f"stage{i}" for i in range(1, 6)), "head"),
            scalable=True,
        ),
        Family("mobilenet_v2", "MobileNetV2", "own", "", stages=STAGE_NAMES, scalable=True, dropout=0.2),
        Family("resnet50", "ResNet-50", "own", "", scalable=True),
        Family("resnet34", "ResNet-34", "torchvision", "resnet34"),
        Family("resnet152", "ResNet-152", "torchvision", "resnet152"),
        Family("resnext101_64x4d", "ResNeXt-101", "torchvision", "resnext101_64x4d"),
        Family("resnext101_32x8d", "ResNeXt-101 (32x8d)", "torchvision", "resnext101_32x8d"),
        Family("densenet121", "DenseNet-121", "torchvision", "densenet121"),
        Family("densenet169", "DenseNet-169", "torchvision", "densenet169"),
        Family("densenet201", "DenseNet-201", "torchvision", "densenet201"),
        Family("densenet264", "DenseNet-264", "torchvision", "densenet264"),
        Family(
            "inception_v3",
            "Inception-v3",
            "torchvision",
            "inception_v3",
            resolution=299,
            dropout=0.5,
            bn_eps=_INCEPTION_BN_EPS,
            smallest=75,
        ),
        # 331 pixels: the size at which the counts are the printed ones
        Family("amoebanet_a", "AmoebaNet-A", "own", "", 331, **_AMOEBA),
        # Huang et al. 2018 (arXiv 1811.06965): AmoebaNet-B (18, 512), 480 pixels
        Family("amoebanet_b", "GPipe", "own", "", 480, **_AMOEBA),
        Family("amoebanet_c", "AmoebaNet-C", "own", "", 331, **_AMOEBA),
        Family("mobilenetv1_100", "MobileNetV1 (timm)", "timm", "mobilenetv1_100", stages=_BODY),
        Family("xception", "Xception", "timm", "legacy_xception", 299, _BODY),
        Family("senet154", "SENet", "timm", "legacy_senet154", 224, _BODY),
        Family("nasnetalarge", "NASNet-A", "timm", "nasnetalarge", 331, **_TF),
        Family("pnasnet5large", "PNASNet", "timm", "pnasnet5large", 331, **_TF),
        Family("inception_v4", "Inception-v4", "timm", "inception_v4", 299, **_TF, smallest=75),
        Family("inception_resnet_v2", "Inception-ResNet-v2", "timm", "inception_resnet_v2", 299, **_TF, smallest=75),
    )
}
NOT_BUILT = {
    # counted at 331 px: pytorchcv 0.0.74's has 34.70B multiply-adds but 95.37M parameters, 3.7 % over the printed 92M
    "polynet": "in neither torchvision nor timm; pytorchcv's has 95.4M parameters",
}
"""Networks of the paper's tables that cannot be built here, and why; their published figures are listed anyway."""
_SCALABLE = tuple(family.name for family in FAMILIES.values() if family.scalable)


@dataclass(frozen=True)
class ComparedArch:
    """One compared network at one scaling; takes the place that `Scaling` has for an EfficientNet.

    Args:
        name: The family's, followed by the numbers where they are not its own.
        family: A name from `FAMILIES`.
        width: Channel multiplier.
        depth: Layer multiplier.
        resolution: Native input size, pixels.
        dropout: Probability of dropping a pooled feature before the classifier.
    """

    name: str
    family: str
    width: float
    depth: float
    resolution: int
    dropout: float


Backbone = Scaling | ComparedArch


def resolve_backbone(arch: str | Mapping[str, Any]) -> Backbone:
    """Turn `model.arch` into an EfficientNet's scaling or a compared network.

    Args:
        arch: What `resolve_arch` takes; a name from `FAMILIES`; or `{"family":}` with any of `width`, `depth`
            (multipliers, of a scalable family) and `resolution` (pixels).

    Raises:
        UserError: Unknown name, family or key, or a number outside its range.
    """
    if isinstance(arch, str):
        if arch in ARCHS:
            return resolve_arch(arch)
        _refuse_unknown(arch)
        return _compared(FAMILIES[arch], 1.0, 1.0, FAMILIES[arch].resolution)
    if not isinstance(arch, Mapping) or "family" not in arch:
        return resolve_arch(arch)
    _refuse_unknown(arch["family"])
    family = FAMILIES[arch["family"]]
    allowed = ("width", "depth", "resolution") if family.scalable else ("resolution",)
    odd = [key for key in arch if key not in ("family", *allowed)]
    if odd:
        raise UserError.of(
            "model.arch",
            arch,
            f"{family.name} with {', '.join(allowed)}",
            f"remove {', '.join(odd)}, or take one of {', '.join(_SCALABLE)}",
        )
    width, depth = arch.get("width", 1.0), arch.get("depth", 1.0)
    resolution = arch.get("resolution", family.resolution)
    numbers = (width, depth, resolution)
    plain = all(isinstance(number, int | float) and not isinstance(number, bool) for number in numbers)
    if not plain or not (0.1 <= width <= 10 and 0.1 <= depth <= 10 and family.smallest <= resolution <= 2048):
        allowed_span = f"width and depth 0.1 to 10, resolution {family.smallest} to 2048"
        raise UserError.of("model.arch", arch, allowed_span, "choose numbers inside these ranges")
    if resolution % 1:
        raise UserError.of("model.arch", arch, "a whole number of pixels", "round the resolution")
    return _compared(family, float(width), float(depth), int(resolution))


def _refuse_unknown(name: Any) -> None:
    if name in NOT_BUILT:
        raise UserError.of("model.arch", name, ", ".join(FAMILIES), f"{NOT_BUILT[name]}: take another network")
    if name not in FAMILIES:
        known = (*ARCHS, *FAMILIES)
        raise UserError.of(
            "model.arch", name, ", ".join(known), suggestion(str(name), known, "choose one, or {phi: 1.5}")
        )


def _compared(family: Family, width: float, depth: float, resolution: int) -> ComparedArch:
    own = (width, depth, resolution) == (1.0, 1.0, family.resolution)
    name = family.name if own else f"{family.name}-w{width:g}-d{depth:g}-r{resolution}"
    return ComparedArch(name, family.name, width, depth, resolution, family.dropout)


def backbone_from(stated: Mapping[str, Any]) -> Backbone:
    """Return the backbone that `dataclasses.asdict` was taken of, as a `model.json` states it.

    Raises:
        TypeError, ValueError: Other keys, or a family that is not known.
    """
    if "family" not in stated:
        return Scaling(**stated)
    if stated["family"] not in FAMILIES:
        raise ValueError(f"no such family: {stated['family']}")
    return ComparedArch(**stated)


def arch_of(backbone: Backbone) -> str | dict[str, Any]:
    """Return what `model.arch` would say to get this backbone."""
    if backbone.name in (*ARCHS, *FAMILIES):
        return backbone.name
    stated = dataclasses.asdict(backbone)
    return {key: stated[key] for key in ("family", "width", "depth", "resolution") if key in stated}


def stage_names(backbone: Backbone) -> tuple[str, ...]:
    """Return the names of a backbone's stages, input first."""
    return FAMILIES[backbone.family].stages if isinstance(backbone, ComparedArch) else STAGE_NAMES


def option_problems(name: str, drop_path: float | None, padding: str | None) -> list[Problem]:
    """Return what is wrong with asking a compared network for what only EfficientNets have here."""
    problems = []
    for key, given, plain in (("drop_path", drop_path or 0.0, 0.0), ("padding", padding or "symmetric", "symmetric")):
        if given != plain:
            where, asked = f"model.{key}", f"{given} with model.arch={name}"
            problems.append(Problem(where, asked, f"{plain} or null: only EfficientNets have it", f"set {where}=null"))
    return problems
