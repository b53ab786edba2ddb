"""From decoded bytes to the model's input: training crops and augmentations, evaluation resize and crop.

Everything runs on uint8 tensors; normalisation happens on the device, in `normalise`. The preprocessing itself is
data and belongs to the weights (`specs/weights.py`).
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor, nn, tensor, uint8
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional

from workbench.data.autoaugment_v0 import AutoAugmentV0
from workbench.data.images import Box
from workbench.specs.weights import Preprocessing


class RandomCrop(nn.Module):
    """A random region of a picture, resized. It is chosen by the picture's size alone, so before it is decoded.

    Args:
        side: Side of the result, pixels.
        scale: Least and largest share of the picture's area.
        ratio: Narrowest and widest, width over height.
        mode: How it is resized.
    """

    def __init__(self, side: int, scale: tuple[float, float], ratio: tuple[float, float], mode: InterpolationMode):
        super().__init__()
        self.side, self.mode = side, mode
        self.random = v2.RandomResizedCrop(side, scale=scale, ratio=ratio)

    def choose(self, height: int, width: int) -> Box:
        """Draw a region of a picture of this size, as torchvision's own transform would."""
        return Box(**self.random.make_params([torch.empty(3, height, width, device="meta")]))

    def cut(self, image: Tensor, box: Box, size: tuple[int, int]) -> Tensor:
        """Return a region, resized.

        Args:
            image: (3, h, w) uint8: the picture, or all of it in a smaller copy.
            box: The region, in pixels of the whole size.
            size: The picture's height and width.
        """
        if image.shape[1:] != size:
            top, height = _span(box.top, box.height, image.shape[1], size[0])
            left, width = _span(box.left, box.width, image.shape[2], size[1])
            box = Box(top, left, height, width)
        return functional.resized_crop(image, *box, [self.side] * 2, interpolation=self.mode, antialias=True)

    def forward(self, image: Tensor) -> Tensor:
        """Choose and cut: (3, H, W) uint8 to (3, side, side) uint8."""
        size = image.shape[1:]
        return self.cut(image, self.choose(*size), size)


class Transform(nn.Module):
    """What makes an input of a picture, in two parts, so that another reader can do the first.

    Args:
        crop: From (3, H, W) uint8 to (3, side, side) uint8.
        after: What follows.
    """

    def __init__(self, crop: nn.Module, after: nn.Module):
        super().__init__()
        self.crop, self.after = crop, after

    def forward(self, image: Tensor) -> Tensor:
        """Do both."""
        return self.after(self.crop(image))


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
    center: Preprocessing | None = None,
) -> Transform:
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
        center: Resize and crop as evaluation does by this, in place of the random crop; its side is then that crop's.

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
    ratio = (1 / max_crop_aspect, max_crop_aspect)
    random_crop = RandomCrop(resolution, (min_crop_area, 1.0), ratio, mode)
    steps = [v2.RandomHorizontalFlip(flip), *policies[policy]]
    if cutout:
        steps.append(v2.RandomErasing(cutout, value=[124, 116, 104]))  # ImageNet's mean colour in bytes
    return Transform(random_crop if center is None else eval_transform(center), nn.Sequential(*steps))


def eval_transform(preprocessing: Preprocessing) -> Transform:
    """Build the evaluation transform: resize the shorter side (both, if it squashes), crop the centre.

    Returns:
        A module from (3, H, W) uint8 to (3, crop, crop) uint8.
    """
    resize = v2.Resize(
        [preprocessing.resize] * (2 if preprocessing.squash else 1),
        interpolation=InterpolationMode(preprocessing.interpolation),
        antialias=True,
    )
    return Transform(nn.Sequential(resize, v2.CenterCrop(preprocessing.crop)), nn.Identity())


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
    mean, std = _mean_and_std(tuple(preprocessing.mean), tuple(preprocessing.std), images.device)
    return images.div(255).sub_(mean).div_(std)


@functools.cache
def _mean_and_std(mean: tuple[float, ...], std: tuple[float, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    """Return both as (1, 3, 1, 1), sent to the device once."""
    return tensor(mean, device=device).view(1, 3, 1, 1), tensor(std, device=device).view(1, 3, 1, 1)


def _span(start: int, length: int, smaller: int, whole: int) -> tuple[int, int]:
    """Return (start, length) of a span in a smaller copy, at least 1 pixel."""
    first = min(round(start * smaller / whole), smaller - 1)
    return first, max(1, round((start + length) * smaller / whole) - first)
