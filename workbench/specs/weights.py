"""Published weights as data: where they come from, and the preprocessing that belongs to them.

A name is `source/name` as in `torchvision/imagenet1k_v1`; timm's are the hub's without the architecture, as in
`timm/tf_efficientnet.aa_in1k` for `timm/tf_efficientnet_b0.aa_in1k` (which is understood too). Whoever loads weights
also gets their preprocessing and padding: a wrong crop, interpolation or mean is the commonest cause of bad accuracy.
Source of the torchvision rows: `torchvision.models.efficientnet`, `EfficientNet_B*_Weights` (0.29), urls, metas and
transforms; of timm's: `hub_weights.py`.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

from workbench.specs import hub_weights
from workbench.specs.architectures import ARCHS, Scaling, count_parameters
from workbench.specs.errors import UserError, suggestion
from workbench.specs.nearest import nearest_arch

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
EVAL_CROP_SHARE = 224 / 256
"""Centre crop over shorter side, where weights say nothing (Kornblith et al. 2019, as restated in SimCLR B.8)."""

PADDINGS = ("symmetric", "same")
"""How convolutions see beyond the edge: as torchvision does, or as TensorFlow's SAME."""


@dataclass(frozen=True)
class Preprocessing:
    """How a picture becomes a model's input at evaluation.

    Args:
        resize: Shorter side after resizing, pixels.
        crop: Side of the centre crop, pixels.
        interpolation: `bicubic` or `bilinear`, always with antialiasing.
        mean: Per-channel mean of RGB in [0, 1], subtracted.
        std: Per-channel standard deviation of RGB in [0, 1], divided by.
        squash: Resize both sides to `resize`, in place of the shorter one: the picture's shape is not kept.
    """

    resize: int
    crop: int
    interpolation: str = "bicubic"
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    squash: bool = False

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
        sha256_prefix: First digits of the file's SHA-256, checked after download; empty: the hub is asked.
        megabytes: Size of the download in MiB (0 if it comes with the package).
        bn_eps: BatchNorm epsilon that they were trained with.
        bn_momentum: BatchNorm statistics momentum (PyTorch's sense).
        preprocessing: What they expect.
        top1: ImageNet top-1 as published, fraction, or None.
        licence: Terms of the file.
        padding: `symmetric`, or `same` as in TensorFlow.
        repository: `owner/name` on the Hugging Face hub, if that is where they are.
        revision: Its commit, where known.
        num_classes: Outputs of their classifier; 0: they have none.
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
    padding: str = "symmetric"
    repository: str = ""
    revision: str | None = None
    num_classes: int = 1000


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


def _on_hub(row: hub_weights.HubRow) -> WeightsEntry:
    colours = {"mean": (0.5,) * 3, "std": (0.5,) * 3} if row.half else {}
    counted = sum(count_parameters(ARCHS[row.arch], row.num_classes).values())
    return WeightsEntry(
        name=row.name,
        arch=row.arch,
        url=f"https://huggingface.co/{row.repository}/resolve/{row.revision or 'main'}/{hub_weights.FILE}",
        sha256_prefix=row.sha256 or "",
        megabytes=round(4 * counted / 2**20, 3),  # float32; BatchNorm statistics add about one percent
        bn_eps=TF_BN_EPS if row.tf else TORCH_BN_EPS,
        bn_momentum=TF_BN_MOMENTUM if row.tf else TORCH_BN_MOMENTUM,
        preprocessing=Preprocessing(math.floor(row.crop / row.share), row.crop, squash=row.squash, **colours),
        top1=None if row.top1 is None else round(row.top1 / 100, 5),
        licence=hub_weights.LICENCE,
        padding="same" if row.tf else "symmetric",
        repository=row.repository,
        revision=row.revision,
        num_classes=row.num_classes,
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
        num_classes=0,
    ),
    *map(_on_hub, hub_weights.HUB_ROWS),
)


def is_file(weights: str) -> bool:
    """Tell whether `weights` names a local file rather than a published entry."""
    return weights.endswith((".pth", ".pt", ".safetensors"))


def find_weights(weights: str, arch: str) -> WeightsEntry:
    """Look published weights up by name for one architecture.

    Args:
        weights: `source/name`, or a repository of the hub that is listed.
        arch: Architecture name.

    Raises:
        UserError: No such name, or the name exists only for other architectures.
    """
    named = [entry for entry in WEIGHTS if weights in (entry.name, entry.repository or entry.name)]
    if not named:
        names = sorted({entry.name for entry in WEIGHTS})
        allowed = ", ".join(names) + ", a .pth or .safetensors file, or none"
        known = [*names, *(entry.repository for entry in WEIGHTS if entry.repository)]
        raise UserError.of(
            "model.weights", weights, allowed, suggestion(weights, known, "see `workbench list weights`")
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

    A local file is taken for torchvision's weights of that architecture, or for the hub's where torchvision has none
    (b8 and l2: TensorFlow's padding). A scaling of one's own takes the published weights of the nearest architecture,
    at its own resolution (`models/transfer.py` makes them fit); the entry's `arch` says which. No weights, or an
    architecture that has no published ones, get TensorFlow's BatchNorm, symmetric padding and ImageNet preprocessing at
    native size.

    Raises:
        UserError: A name that is not published, or not for this architecture.
    """
    if weights is not None and not is_file(weights):
        archs = [entry.arch for entry in WEIGHTS if weights in (entry.name, entry.repository or entry.name)]
        if scaling.name in ARCHS or not archs:
            return find_weights(weights, scaling.name)
        entry = find_weights(weights, nearest_arch(scaling, archs).name)
        return dataclasses.replace(entry, preprocessing=entry.preprocessing.at(scaling.resolution))
    published = [e for e in WEIGHTS if e.arch == scaling.name and (e.name == f"torchvision/{_V1}" or e.repository)]
    if weights is not None and published:  # torchvision's come first
        unknown = {"url": "", "sha256_prefix": "", "megabytes": 0.0, "top1": None, "repository": "", "revision": None}
        return dataclasses.replace(published[0], name=weights, licence="", **unknown)
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
