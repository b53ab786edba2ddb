"""From decoded bytes to the model's input: training crops and augmentations, evaluation resize and crop.

Everything runs on uint8 tensors; normalisation happens on the device, in `normalise`. The preprocessing itself is
data and belongs to the weights (`specs/weights.py`).
"""

from __future__ import annotations

from torch import Tensor, nn, tensor, uint8
from torchvision.transforms import InterpolationMode, v2

from workbench.data.autoaugment_v0 import AutoAugmentV0
from workbench.specs.weights import Preprocessing


def train_transform(
    resolution: int,
    interpolation: str,
    *,
    min_crop_area: float = 0.08,
    max_crop_aspect: float = 4 / 3,
    flip: float = 0.5,
    policy: str = "none",
    num_ops: int = 2,
    magnitude: int = 9,
    cutout: float = 0.0,
) -> nn.Module:
    """Build the training transform: random crop with resize, flip, and what was asked for beyond.

    Args:
        resolution: Side of the crop, pixels.
        interpolation: `bicubic` or `bilinear`.
        min_crop_area: Least share of the picture's area that a crop covers.
        max_crop_aspect: Widest crop, width over height; the narrowest is its inverse.
        flip: Probability of a horizontal flip.
        policy: `none`, `randaugment`, `autoaugment` (ImageNet policy of torchvision), `autoaugment_v0` (that of the
            published checkpoints) or `trivialaugment`.
        num_ops: RandAugment's operations per image.
        magnitude: RandAugment's strength, 0 to 30.
        cutout: Probability of erasing a rectangle with the mean colour of ImageNet.

    Returns:
        A module from (3, H, W) uint8 to (3, resolution, resolution) uint8.
    """
    mode = InterpolationMode(interpolation)
    policies = {
        "none": (),
        "randaugment": (v2.RandAugment(num_ops, magnitude, interpolation=InterpolationMode.BILINEAR),),
        "autoaugment": (v2.AutoAugment(interpolation=InterpolationMode.BILINEAR),),
        "autoaugment_v0": (AutoAugmentV0(),),
        "trivialaugment": (v2.TrivialAugmentWide(interpolation=InterpolationMode.BILINEAR),),
    }
    steps = [
        v2.RandomResizedCrop(
            resolution,
            scale=(min_crop_area, 1.0),
            ratio=(1 / max_crop_aspect, max_crop_aspect),
            interpolation=mode,
            antialias=True,
        ),
        v2.RandomHorizontalFlip(flip),
        *policies[policy],
    ]
    if cutout:
        steps.append(v2.RandomErasing(cutout, value=[124, 116, 104]))  # ImageNet's mean colour in bytes
    return v2.Compose(steps)


def eval_transform(preprocessing: Preprocessing) -> nn.Module:
    """Build the evaluation transform: resize the shorter side (both, if it squashes), crop the centre.

    Returns:
        A module from (3, H, W) uint8 to (3, crop, crop) uint8.
    """
    return v2.Compose(
        [
            v2.Resize(
                [preprocessing.resize] * (2 if preprocessing.squash else 1),
                interpolation=InterpolationMode(preprocessing.interpolation),
                antialias=True,
            ),
            v2.CenterCrop(preprocessing.crop),
        ]
    )


def normalise(images: Tensor, preprocessing: Preprocessing) -> Tensor:
    """Turn bytes into the model's input.

    Args:
        images: (N, 3, H, W) uint8.
        preprocessing: Gives mean and std.

    Returns:
        (N, 3, H, W) float32, normalised, on the same device.
    """
    if images.dtype != uint8:
        raise TypeError(f"normalise takes uint8 images, got {images.dtype}")
    mean = tensor(preprocessing.mean, device=images.device).view(1, 3, 1, 1)
    std = tensor(preprocessing.std, device=images.device).view(1, 3, 1, 1)
    return (images.float() / 255 - mean) / std
