"""Published weights of the networks that the paper compares with, and what must be known of any backbone's weights.

Source of the rows: `torchvision.models` 0.29, the `_Weights` of each builder: urls, metas and transforms.
"""

from __future__ import annotations

from workbench.specs.compared import FAMILIES, Backbone, ComparedArch
from workbench.specs.errors import UserError, suggestion
from workbench.specs.weights import (
    EVAL_CROP_SHARE,
    TORCH_BN_MOMENTUM,
    Preprocessing,
    WeightsEntry,
    facts_of,
    is_file,
)

_HALF = (0.5, 0.5, 0.5)


def _torchvision(version: int, file: str, mb: float, resize: int, crop: int, top1: float, **other) -> WeightsEntry:
    arch = file.rsplit("-", 1)[0].removesuffix("_google")
    return WeightsEntry(
        name=f"torchvision/imagenet1k_v{version}",
        arch=arch,
        url=f"https://download.pytorch.org/models/{file}.pth",
        sha256_prefix=file.rsplit("-", 1)[-1],
        megabytes=mb,
        bn_eps=FAMILIES[arch].bn_eps,
        bn_momentum=TORCH_BN_MOMENTUM,
        preprocessing=Preprocessing(resize, crop, "bilinear", **other),
        top1=top1,
        licence="BSD-3-Clause (torchvision); trained on ImageNet-1k",
    )


COMPARED_WEIGHTS: tuple[WeightsEntry, ...] = (
    _torchvision(1, "mobilenet_v2-b0353104", 13.555, 256, 224, 0.71878),
    _torchvision(2, "mobilenet_v2-7ebf99e0", 13.598, 232, 224, 0.72154),
    _torchvision(1, "resnet34-b627a593", 83.275, 256, 224, 0.73314),
    _torchvision(1, "resnet50-0676ba61", 97.781, 256, 224, 0.7613),
    _torchvision(2, "resnet50-11ad3fa6", 97.79, 232, 224, 0.80858),
    _torchvision(1, "resnet152-394f9c45", 230.434, 256, 224, 0.78312),
    _torchvision(2, "resnet152-f82ba261", 230.474, 232, 224, 0.82284),
    _torchvision(1, "densenet121-a639ec97", 30.845, 256, 224, 0.74434),
    _torchvision(1, "densenet169-b2777c0a", 54.708, 256, 224, 0.756),
    _torchvision(1, "densenet201-c1103571", 77.373, 256, 224, 0.76896),
    # torchvision's model turns ImageNet's statistics into these by itself; ours takes them as its preprocessing
    _torchvision(1, "inception_v3_google-0cc3c7bd", 103.903, 342, 299, 0.77294, mean=_HALF, std=_HALF),
    _torchvision(1, "resnext101_64x4d-173b62eb", 319.318, 232, 224, 0.83246),
    _torchvision(1, "resnext101_32x8d-8ba56ff5", 339.586, 256, 224, 0.79312),
    _torchvision(2, "resnext101_32x8d-110c445d", 339.673, 232, 224, 0.82834),
)


def backbone_facts(weights: str | None, backbone: Backbone) -> WeightsEntry:
    """Return what must be known of any weights: BatchNorm settings, preprocessing, origin.

    Of a compared network, no weights or a local file get its library's BatchNorm and the preprocessing of its first
    published weights, at its own resolution; those of an EfficientNet are `facts_of`.

    Raises:
        UserError: A name that is not published, or not for this network.
    """
    if not isinstance(backbone, ComparedArch):
        return facts_of(weights, backbone)
    named = [entry for entry in COMPARED_WEIGHTS if entry.arch == backbone.name]
    if weights is not None and not is_file(weights):
        for entry in named:
            if entry.name == weights:
                return entry
        names = [entry.name for entry in named]
        raise UserError.of(
            "model.weights",
            f"{weights} with model.arch={backbone.name}",
            ", ".join([*names, "a .pth or .safetensors file", "none"]),
            suggestion(weights, names, "set model.weights=none to train from random initialisation"),
        )
    resolution = backbone.resolution
    preprocessing = Preprocessing(round(resolution / EVAL_CROP_SHARE), resolution)
    if weights is not None and named:
        preprocessing = named[0].preprocessing
    return WeightsEntry(
        name=weights or "none",
        arch=backbone.name,
        url="",
        sha256_prefix="",
        megabytes=0.0,
        bn_eps=FAMILIES[backbone.family].bn_eps,
        bn_momentum=TORCH_BN_MOMENTUM,
        preprocessing=preprocessing,
        top1=None,
        licence="",
    )
