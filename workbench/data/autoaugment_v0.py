"""AutoAugment's policy 'v0', with which the published EfficientNet checkpoints were trained, on uint8 tensors.

torchvision's `AutoAugment` has the ImageNet policy of the AutoAugment paper, which is another list. Source of policy,
magnitudes, signs and fill: tensorflow/tpu `models/official/efficientnet/autoaugment.py` @181b860 (policy_v0,
level_to_arg, distort_image_with_autoaugment). Shears, shifts and rotations take the nearest pixel, as there.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torchvision.transforms.v2 import functional

MAX_LEVEL = 10
TRANSLATE_PIXELS = 250
"""Shift at the highest level, at every resolution: of 224 px pictures level 9 leaves nothing (timm shifts by 45 %)."""
FILL = [128.0, 128.0, 128.0]

# (operation, probability, level); the two of a line are applied in turn, and one line is drawn per picture.
POLICY = (
    (("Equalize", 0.8, 1), ("ShearY", 0.8, 4)),
    (("Color", 0.4, 9), ("Equalize", 0.6, 3)),
    (("Color", 0.4, 1), ("Rotate", 0.6, 8)),
    (("Solarize", 0.8, 3), ("Equalize", 0.4, 7)),
    (("Solarize", 0.4, 2), ("Solarize", 0.6, 2)),
    (("Color", 0.2, 0), ("Equalize", 0.8, 8)),
    (("Equalize", 0.4, 8), ("SolarizeAdd", 0.8, 3)),
    (("ShearX", 0.2, 9), ("Rotate", 0.6, 8)),
    (("Color", 0.6, 1), ("Equalize", 1.0, 2)),
    (("Invert", 0.4, 9), ("Rotate", 0.6, 0)),
    (("Equalize", 1.0, 9), ("ShearY", 0.6, 3)),
    (("Color", 0.4, 7), ("Equalize", 0.6, 0)),
    (("Posterize", 0.4, 6), ("AutoContrast", 0.4, 7)),
    (("Solarize", 0.6, 8), ("Color", 0.6, 9)),
    (("Solarize", 0.2, 4), ("Rotate", 0.8, 9)),
    (("Rotate", 1.0, 7), ("TranslateY", 0.8, 9)),
    (("ShearX", 0.0, 0), ("Solarize", 0.8, 4)),
    (("ShearY", 0.8, 0), ("Color", 0.6, 4)),
    (("Color", 1.0, 0), ("Rotate", 0.6, 2)),
    (("Equalize", 0.8, 4), ("Equalize", 0.0, 8)),
    (("Equalize", 1.0, 4), ("AutoContrast", 0.6, 2)),
    (("ShearY", 0.4, 7), ("SolarizeAdd", 0.6, 7)),
    (("Posterize", 0.8, 2), ("Solarize", 0.6, 10)),  # no bit is kept: black, or white with the second
    (("Solarize", 0.6, 8), ("Equalize", 0.6, 1)),
    (("Color", 0.8, 6), ("Rotate", 0.4, 5)),
)

_HIGHEST = {"Rotate": 30.0, "ShearX": 0.3, "ShearY": 0.3, "TranslateY": float(TRANSLATE_PIXELS)}
"""Largest argument of the operations that go either way, with equal chance: degrees, slope, slope, pixels."""
_WHOLE = {"Posterize": 4, "Solarize": 256, "SolarizeAdd": 110}
"""Largest argument of those that take whole numbers: bits kept, threshold, what is added."""


def argument(name: str, level: int) -> float | int | None:
    """Return what an operation gets at a level from 0 to 10, before any change of sign; None if it takes nothing."""
    share = level / MAX_LEVEL
    if name in _HIGHEST:
        return share * _HIGHEST[name]
    if name in _WHOLE:
        return int(share * _WHOLE[name])
    return share * 1.8 + 0.1 if name == "Color" else None


def apply_operation(image: Tensor, name: str, value: float | int | None) -> Tensor:
    """Apply one operation.

    Args:
        image: (3, H, W) uint8.
        name: As in `POLICY`.
        value: From `argument`, possibly negated.

    Returns:
        (3, H, W) uint8.

    Raises:
        ValueError: Unknown operation.
    """
    plain = {"Equalize": functional.equalize, "Invert": functional.invert, "AutoContrast": functional.autocontrast}
    if name in plain:
        return plain[name](image)
    if name == "Posterize":
        return functional.posterize(image, value)
    if name == "Color":
        return functional.adjust_saturation(image, value)
    if name == "Solarize":
        return image if value > 255 else torch.where(image < value, image, 255 - image)
    if name == "SolarizeAdd":
        return torch.where(image < 128, (image.int() + value).clamp(0, 255).to(torch.uint8), image)
    if name == "Rotate":
        return functional.rotate(image, value, fill=FILL)
    degrees = math.degrees(math.atan(value))
    moves = {"ShearX": (0, [degrees, 0.0]), "ShearY": (0, [0.0, degrees]), "TranslateY": (round(-value), [0.0, 0.0])}
    if name not in moves:
        raise ValueError(f"no such operation: {name}")
    shift, shear = moves[name]
    return functional.affine(image, 0.0, [0, shift], 1.0, shear, fill=FILL, center=[0.0, 0.0])


class AutoAugmentV0(nn.Module):
    """Draws one line of `POLICY` per picture; the random numbers are torch's, as those of torchvision's policies."""

    def forward(self, image: Tensor) -> Tensor:
        """Augment one picture: (3, H, W) uint8 to the same."""
        for name, probability, level in POLICY[int(torch.randint(len(POLICY), ()))]:
            if float(torch.rand(())) < probability:
                value = argument(name, level)
                if name in _HIGHEST and float(torch.rand(())) < 0.5:
                    value = -value
                image = apply_operation(image, name, value)
        return image
