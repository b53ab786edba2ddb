"""Published weights as data: where they come from, and the preprocessing that belongs to them.

A name is `source/name` as in `torchvision/imagenet1k_v1`. Whoever loads weights also gets their preprocessing:
the wrong crop, interpolation or mean is the commonest cause of bad accuracy. Source of the torchvision rows:
`torchvision.models.efficientnet`, `EfficientNet_B*_Weights` (0.29), urls, metas and transforms.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from workbench.specs.architectures import Scaling
from workbench.specs.errors import UserError, suggestion

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
EVAL_CROP_SHARE = 224 / 256
"""Centre crop over shorter side, where weights say nothing (Kornblith et al. 2019, as restated in SimCLR B.8)."""


@dataclass(frozen=True)
class Preprocessing:
    """How a picture becomes a model's input at evaluation.

    Args:
        resize: Shorter side after resizing, pixels.
        crop: Side of the centre crop, pixels.
        interpolation: `bicubic` or `bilinear`, always with antialiasing.
        mean: Per-channel mean of RGB in [0, 1], subtracted.
        std: Per-channel standard deviation of RGB in [0, 1], divided by.
    """

    resize: int
    crop: int
    interpolation: str = "bicubic"
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    def at(self, crop: int, resize: int | None = None) -> Preprocessing:
        """Return the same preprocessing for another input size.

        Args:
            crop: New side of the centre crop, pixels.
            resize: New shorter side, pixels; if None, the old share of crop to resize is kept.
        """
        return dataclasses.replace(self, crop=crop, resize=resize or round(crop * self.resize / self.crop))


@dataclass(frozen=True)
class WeightsEntry:
    """One published set of weights for one architecture.

    Args:
        name: `source/name`.
        arch: The architecture whose tensors these are.
        url: Where to get them, or a file inside the package.
        sha256_prefix: First digits of the file's SHA-256, checked after download.
        megabytes: Size of the download (0 if it comes with the package).
        bn_eps: BatchNorm epsilon that they were trained with.
        bn_momentum: BatchNorm statistics momentum (PyTorch's sense).
        preprocessing: What they expect.
        top1: ImageNet top-1 as published, fraction, or None.
        licence: Terms of the file.
    """

    name: str
    arch: str
    url: str
    sha256_prefix: str
    megabytes: float
    bn_eps: float
    bn_momentum: float
    preprocessing: Preprocessing
    top1: float | None
    licence: str


# BatchNorm in TF: decay 0.99, eps 1e-3. PyTorch's momentum is 1 - decay.
TF_BN_EPS, TF_BN_MOMENTUM = 1e-3, 1 - 0.99
TORCH_BN_EPS, TORCH_BN_MOMENTUM = 1e-5, 0.1


def _torchvision(version: str, file: str, mb: float, resize: int, crop: int, top1: float, **other):
    # B0-B4 were trained natively in PyTorch, B5-B7 are TF ports: their BatchNorms differ.
    tf_port = "lukemelas" in file
    return WeightsEntry(
        name=f"torchvision/{version}",
        arch=file[:2],
        url=f"https://download.pytorch.org/models/efficientnet_{file}.pth",
        sha256_prefix=file.rsplit("-", 1)[-1],
        megabytes=mb,
        bn_eps=TF_BN_EPS if tf_port else TORCH_BN_EPS,
        bn_momentum=TF_BN_MOMENTUM if tf_port else TORCH_BN_MOMENTUM,
        preprocessing=Preprocessing(resize, crop, **other),
        top1=top1,
        licence="BSD-3-Clause (torchvision); trained on ImageNet-1k",
    )


_V1, _V2 = "imagenet1k_v1", "imagenet1k_v2"
WEIGHTS: tuple[WeightsEntry, ...] = (
    _torchvision(_V1, "b0_rwightman-7f5810bc", 20.451, 256, 224, 0.77692),
    _torchvision(_V1, "b1_rwightman-bac287d4", 30.134, 256, 240, 0.78642),
    _torchvision(_V2, "b1-c27df63c", 30.136, 255, 240, 0.79838, interpolation="bilinear"),
    _torchvision(_V1, "b2_rwightman-c35c1473", 35.174, 288, 288, 0.80608),
    _torchvision(_V1, "b3_rwightman-b3899882", 47.184, 320, 300, 0.82008),
    _torchvision(_V1, "b4_rwightman-23ab8bcd", 74.489, 384, 380, 0.83384),
    _torchvision(_V1, "b5_lukemelas-1a07897c", 116.864, 456, 456, 0.83444),
    _torchvision(_V1, "b6_lukemelas-24a108a5", 165.362, 528, 528, 0.84008),
    _torchvision(_V1, "b7_lukemelas-c5b4e57e", 254.675, 600, 600, 0.84122),
    WeightsEntry(
        name="embedded/blossoms",
        arch="tiny",
        url="tiny_blossoms.safetensors",
        sha256_prefix="5638492ab78632f80e9e297ce3ee0bc09c03d66b801fd8cf322ce6d850530538",
        megabytes=0.0,
        bn_eps=TF_BN_EPS,
        bn_momentum=TORCH_BN_MOMENTUM,
        preprocessing=Preprocessing(64, 64, "bilinear"),
        top1=None,
        licence="this project's own (recipes/upstream_blossoms.yaml)",
    ),
)


def is_file(weights: str) -> bool:
    """Tell whether `weights` names a local file rather than a published entry."""
    return weights.endswith((".pth", ".pt", ".safetensors"))


def find_weights(weights: str, arch: str) -> WeightsEntry:
    """Look published weights up by name for one architecture.

    Args:
        weights: `source/name`.
        arch: Architecture name.

    Raises:
        UserError: No such name, or the name exists only for other architectures.
    """
    named = [entry for entry in WEIGHTS if entry.name == weights]
    if not named:
        names = sorted({entry.name for entry in WEIGHTS})
        allowed = ", ".join(names) + ", a .pth or .safetensors file, or none"
        raise UserError.of(
            "model.weights", weights, allowed, suggestion(weights, names, "see `workbench list weights`")
        )
    for entry in named:
        if entry.arch == arch:
            return entry
    archs = ", ".join(entry.arch for entry in named)
    raise UserError.of(
        "model.weights",
        f"{weights} with model.arch={arch}",
        f"{weights} exists for {archs}",
        "change model.arch, or set model.weights=none to train from random initialisation",
    )


def facts_of(weights: str | None, scaling: Scaling) -> WeightsEntry:
    """Return what must be known of any weights: BatchNorm settings, preprocessing, origin.

    A local file is taken for torchvision's weights of that architecture, whose keys it has. No weights, or an
    architecture that has no published ones, get TensorFlow's BatchNorm and ImageNet preprocessing at native size.

    Raises:
        UserError: A name that is not published, or not for this architecture.
    """
    if weights is not None and not is_file(weights):
        return find_weights(weights, scaling.name)
    sibling = next((e for e in WEIGHTS if e.arch == scaling.name and e.name == f"torchvision/{_V1}"), None)
    if weights is not None and sibling is not None:
        return dataclasses.replace(sibling, name=weights, url="", sha256_prefix="", megabytes=0.0, top1=None)
    resolution = scaling.resolution
    return WeightsEntry(
        name=weights or "none",
        arch=scaling.name,
        url="",
        sha256_prefix="",
        megabytes=0.0,
        bn_eps=TF_BN_EPS,
        bn_momentum=TF_BN_MOMENTUM,
        preprocessing=Preprocessing(round(resolution / EVAL_CROP_SHARE), resolution),
        top1=None,
        licence="",
    )
