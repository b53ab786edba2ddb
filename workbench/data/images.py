"""Decode one picture to RGB bytes, in one defined way. What is done to it afterwards is in `transforms.py`.

- Formats: JPEG, PNG, GIF, WebP, BMP, PPM and TIFF, told by their first bytes and not by the file's name.
- Turned upright by its EXIF orientation, where that can be read.
- Of an animation or a file of several pages, the first picture.
- Alpha is dropped, not blended: a hidden pixel shows the colour stored for it, as in the published pipelines.
- Palette, grey, 1-bit, CMYK and YCbCr become RGB as Pillow has it. Colour profiles are not applied.
- 16-bit channels keep their high byte: they are scaled, never clipped. 32-bit grey counts as 16-bit, and a value
  outside 0 to 65535 is refused, because nothing says what would be white. So are floating-point pictures.
- Whatever ends before its last pixel is refused, and so is more than `MAX_PIXELS`, or a strip longer than `MAX_ASPECT`
  times its width, before it is decoded.
- A JPEG of which a training crop needs only a smaller copy is decoded smaller: `load_for_crop`.

torchvision announces that its decoders will go, in favour of torchcodec's. Those gave the same pixels, and 786 pictures
a second where torchvision's gave 817 (500 x 375 photos, one core, torchcodec 0.17, median of 6), but importing them
takes half a second more in every process; so they wait until they are needed.
"""

from __future__ import annotations

import io
import struct
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageFile, ImageOps
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.PpmImagePlugin import PpmImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile
from torch import Tensor
from torchvision.io import ImageReadMode, decode_image

from workbench.specs.errors import UserError

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".gif", ".webp", ".bmp", ".ppm", ".tif", ".tiff")
MAX_PIXELS = 100_000_000
"""A choice of this project: far above any photo of the eight sets, and 300 MB once decoded."""
MAX_ASPECT = 50
"""A choice of this project. Of a strip 1 pixel wide, resizing the shorter side to 256 would make 256 times as many in
each direction: a file of some kilobytes would fill the memory."""

_READERS: dict[bytes, type[ImageFile.ImageFile]] = {
    b"\xff\xd8\xff": JpegImageFile,
    b"\x89PNG": PngImageFile,
    b"GIF8": GifImageFile,
    b"RIFF": WebPImageFile,
    b"BM": BmpImageFile,
    **dict.fromkeys((b"P1", b"P2", b"P3", b"P4", b"P5", b"P6", b"Pf", b"PF"), PpmImageFile),
    **dict.fromkeys((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), TiffImageFile),
}
# The readers themselves rather than Image.open, which warns of big pictures before their size can be asked for.
# Pillow's TIFF reader warns too, on loading: `MAX_PIXELS` has the say, so nobody needs to hear of a second limit.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)

BROKEN_EXIF = (SyntaxError, struct.error, LookupError, ValueError, TypeError)
_BROKEN = (OSError, EOFError, *BROKEN_EXIF)


class Box(NamedTuple):
    """A region of a picture, pixels."""

    top: int
    left: int
    height: int
    width: int


def load_image(source: Path | np.ndarray | bytes) -> Tensor:
    """Return a picture as RGB.

    Args:
        source: An image file, an encoded picture, or an (H, W, 3) uint8 array.

    Returns:
        (3, H, W) uint8, upright.

    Raises:
        UserError: The file is missing, does not decode or is too large; or the array is another one.
    """
    if isinstance(source, np.ndarray):
        if source.dtype != np.uint8 or source.ndim != 3 or source.shape[2] != 3 or not source.size:
            given, allowed = f"an array of {source.shape} of {source.dtype}", "(height, width, 3) of uint8, as RGB"
            raise UserError.of("picture", given, allowed, "convert it, for instance by PIL.Image's convert('RGB')")
        return torch.from_numpy(np.ascontiguousarray(source)).permute(2, 0, 1)
    if isinstance(source, bytes):
        return decode(source, "encoded picture")
    return decode(read_bytes(Path(source)), source)


def load_for_crop(
    source: Path | np.ndarray | bytes, side: int, choose: Callable[[int, int], Box]
) -> tuple[Tensor, Box, tuple[int, int]]:
    """Return a picture as RGB with a region chosen from its size; a JPEG perhaps smaller, as libjpeg can decode it.

    Args:
        source: As for `load_image`.
        side: What the region is resized to, pixels: the region keeps at least as many, both ways.
        choose: From (height, width) to a region.

    Returns:
        (3, h, w) uint8 of the whole picture, upright; the region; the picture's height and width.

    Raises:
        UserError: As `load_image`.
    """
    if isinstance(source, np.ndarray):
        image = load_image(source)
    else:
        data, name = (source, "encoded picture") if isinstance(source, bytes) else (read_bytes(source), source)
        with open_header(data, name) as picture:
            if picture.format == "JPEG" and picture.mode in ("L", "RGB") and min(picture.size) >= 2 * side:
                size = _upright_size(picture)
                box = choose(*size)
                divisor = next((d for d in (8, 4, 2) if min(box.height, box.width) >= d * side), 1)
                image = _read_smaller(picture, data, name, divisor) if divisor > 1 else read_pixels(picture, data, name)
                if divisor > 1 or image.shape[1:] == size:  # else the two readers disagree about a broken EXIF
                    return image, box, size
            else:
                image = read_pixels(picture, data, name)
    height, width = image.shape[1:]
    return image, choose(height, width), (height, width)


def read_bytes(path: Path) -> bytes:
    """Return a file's bytes.

    Raises:
        UserError: It is missing or not readable.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError.of(path, error, "a readable image file", "restore the file or take it out") from error


def decode(data: bytes, name: object) -> Tensor:
    """Return encoded bytes as (3, H, W) uint8 RGB; `name` is for the error text.

    Raises:
        UserError: The bytes do not decode, or would be more than `MAX_PIXELS`.
    """
    with open_header(data, name) as picture:
        return read_pixels(picture, data, name)


def open_header(data: bytes, name: object) -> ImageFile.ImageFile:
    """Return a picture of which only the header was read, for its size, mode and EXIF.

    Raises:
        UserError: No known format, a broken header, or more than `MAX_PIXELS`.
    """
    reader = next((reader for magic, reader in _READERS.items() if data.startswith(magic)), None)
    if reader is None:
        raise _does_not_decode(data, name, "no JPEG, PNG, GIF, WebP, BMP, PPM or TIFF")
    try:
        picture = reader(io.BytesIO(data), "")
    except Image.DecompressionBombError as error:
        raise _too_large(name, "too many") from error
    except _BROKEN as error:
        raise _does_not_decode(data, name, error) from error
    if picture.width * picture.height > MAX_PIXELS:
        raise _too_large(name, f"{picture.width} x {picture.height}")
    if max(picture.size) > MAX_ASPECT * min(picture.size):
        allowed = f"sides of which one is at most {MAX_ASPECT} times the other"
        given = f"{picture.width} x {picture.height} pixels"
        raise UserError.of(name, given, allowed, "cut it into pictures, or take it out of the set")
    return picture


def read_pixels(picture: ImageFile.ImageFile, data: bytes, name: object) -> Tensor:
    """Decode a picture from `open_header` to (3, H, W) uint8 RGB.

    Args:
        picture: Its header.
        data: The bytes it was read from.
        name: For the error text.

    Raises:
        UserError: The bytes do not decode, or have no defined way to RGB.
    """
    if picture.format == "JPEG":
        try:
            encoded = torch.frombuffer(bytearray(data), dtype=torch.uint8)
            return decode_image(encoded, mode=ImageReadMode.RGB, apply_exif_orientation=True)
        except RuntimeError as error:
            if picture.mode in ("L", "RGB"):  # Pillow might read it, and fill up what is missing
                raise _does_not_decode(data, name, _last_words(error)) from error
    try:
        picture.load()
        rgb = _to_rgb(_upright(picture), name)
    except (*_BROKEN, Image.DecompressionBombError) as error:
        raise _does_not_decode(data, name, error) from error
    return torch.from_numpy(rgb).permute(2, 0, 1)


def _upright_size(picture: ImageFile.ImageFile) -> tuple[int, int]:
    """Return (height, width) after EXIF's orientation, from the header."""
    try:
        turned = "exif" in picture.info and picture.getexif().get(0x0112, 1) in (5, 6, 7, 8)
    except BROKEN_EXIF:
        turned = False
    return picture.size if turned else picture.size[::-1]


def _read_smaller(picture: ImageFile.ImageFile, data: bytes, name: object, divisor: int) -> Tensor:
    """Decode a grey or RGB JPEG at 1/`divisor` of its size, rounded up."""
    picture.draft(picture.mode, (picture.width // divisor, picture.height // divisor))
    try:
        picture.load()
        rgb = np.array(_upright(picture).convert("RGB"))
    except _BROKEN as error:
        raise _does_not_decode(data, name, error) from error
    return torch.from_numpy(rgb).permute(2, 0, 1)


def _upright(picture: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(picture)
    except BROKEN_EXIF:
        return picture.copy()


def _to_rgb(picture: Image.Image, name: object) -> np.ndarray:
    """Return a loaded picture as (H, W, 3) uint8."""
    if picture.mode.startswith("I"):
        values = np.asarray(picture)
        low, high = int(values.min()), int(values.max())
        if low < 0 or high > 65535:
            raise _no_way_to_rgb(name, f"grey values from {low} to {high}")
        picture = Image.fromarray((values // 256).astype(np.uint8))
    if picture.mode == "F":
        raise _no_way_to_rgb(name, "a floating-point picture")
    picture.info.pop("transparency", None)  # dropped anyway, and Pillow warns about some kinds of it
    return np.array(picture.convert("RGB"))


def _last_words(error: RuntimeError) -> str:
    """Return torchvision's message without its own source file and stack."""
    return str(error).splitlines()[0].rsplit(", ", 1)[-1]


def _does_not_decode(data: bytes, name: object, why: object) -> UserError:
    given = f"{len(data)} bytes that do not decode: {why}"
    return UserError.of(name, given, "a complete image", "fetch the file again, or take it out of the set")


def _too_large(name: object, size: str) -> UserError:
    allowed = f"at most {MAX_PIXELS // 1_000_000} million pixels"
    return UserError.of(name, f"{size} pixels", allowed, "save it smaller, or take it out of the set")


def _no_way_to_rgb(name: object, given: str) -> UserError:
    return UserError.of(name, given, "8 or 16 bits a channel", "save it as an 8-bit PNG, or take it out of the set")
