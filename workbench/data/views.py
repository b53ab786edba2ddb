"""Several looks at one picture, for answers that are the mean of them: mirrored, and cropped at the corners."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional

from workbench.data.transforms import eval_transform
from workbench.specs.errors import UserError
from workbench.specs.weights import Preprocessing

VIEWS = {"none": 1, "flip": 2, "five-crop": 5, "ten-crop": 10}
"""How many looks each way takes. Five and ten as Krizhevsky et al. 2012, section 4.1: the four corners and the centre,
without and with their mirror images."""


def view_transform(preprocessing: Preprocessing, views: str) -> Callable[[Tensor], Tensor]:
    """Build a function from a picture to its views.

    Args:
        preprocessing: The model's own. Crops are cut from the picture resized as it says.
        views: One of `VIEWS`.

    Returns:
        From (3, H, W) uint8 to (V, 3, crop, crop) uint8; the first view of `none` and `flip` is the centre crop.

    Raises:
        UserError: Crops that would all be the same, or that do not fit into the resized picture.
    """
    crop, whole = preprocessing.crop, eval_transform(preprocessing)
    resize = whole.crop[0]
    if views == "none":
        return lambda image: whole(image)[None]
    if views == "flip":
        return lambda image: _with_mirrored(whole(image)[None])
    same = preprocessing.squash and preprocessing.resize == crop
    if same or preprocessing.resize < crop:
        given = f"{views} with a model that resizes to {preprocessing.resize} and crops {crop}"
        allowed = "a model whose pictures are larger than its crop"
        raise UserError.of("--tta", given, allowed, "take --tta flip")

    def cropped(image: Tensor) -> Tensor:
        crops = torch.stack(functional.five_crop(resize(image), [crop, crop]))
        return _with_mirrored(crops) if views == "ten-crop" else crops

    return cropped


def _with_mirrored(images: Tensor) -> Tensor:
    return torch.cat([images, images.flip(-1)])
