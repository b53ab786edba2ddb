"""Decode one picture to RGB bytes, in one defined way. What is done to it afterwards is in `transforms.py`."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torchvision.io import ImageReadMode, decode_image

from workbench.specs.errors import UserError

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".gif", ".webp", ".bmp", ".ppm", ".tif", ".tiff")


def load_image(source: Path | np.ndarray) -> Tensor:
    """Return a picture as RGB.

    Args:
        source: An image file, or an (H, W, 3) uint8 array.

    Returns:
        (3, H, W) uint8. EXIF orientation is applied; of an animation, the first frame.

    Raises:
        UserError: The file is missing or does not decode.
    """
    if isinstance(source, np.ndarray):
        return torch.from_numpy(source).permute(2, 0, 1)
    try:
        data = Path(source).read_bytes()
    except OSError as error:
        raise UserError.of(source, error, "a readable image file", "restore the file or take it out") from error
    return decode(data, source)


def decode(data: bytes, name: object) -> Tensor:
    """Return encoded bytes as (3, H, W) uint8 RGB; `name` is for the error text.

    Raises:
        UserError: The bytes do not decode.
    """
    if data[:3] == b"\xff\xd8\xff":
        try:
            encoded = torch.frombuffer(bytearray(data), dtype=torch.uint8)
            return decode_image(encoded, mode=ImageReadMode.RGB, apply_exif_orientation=True)
        except RuntimeError:
            pass  # CMYK and other rare JPEGs: Pillow reads them, or says what is wrong
    try:
        with Image.open(io.BytesIO(data)) as picture:
            upright = ImageOps.exif_transpose(picture)
            if upright.mode.startswith("I"):  # 16-bit grey, which Pillow would clip instead of scale
                upright = Image.fromarray((np.array(upright) // 256).clip(0, 255).astype(np.uint8))
            rgb = upright.convert("RGB")
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError.of(
            name,
            f"{len(data)} bytes that do not decode: {error}",
            "a complete image",
            "fetch the file again, or take it out of the set",
        ) from error
    return torch.from_numpy(np.array(rgb)).permute(2, 0, 1)
