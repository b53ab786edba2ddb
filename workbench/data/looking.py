"""What an encoded picture is like, and which of many pictures are alike: what the dataset doctor goes by."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageFile
from scipy.fft import dctn

from workbench.data.images import BROKEN_EXIF, open_header, read_pixels
from workbench.specs.errors import UserError

HASH_BYTES, THUMB_SIDE = 8, 16
_DCT_SIDE, _DCT_KEPT = 32, 8
_GREY_SPREAD, _GREY_SIDE = 2, 64
"""A picture is grey if R, G and B differ by no more than 2 (JPEG's rounding), looked at on about 64 x 64 pixels."""
_ORIENTATION = 0x0112


Columns = Mapping[str, Sequence[Any] | np.ndarray]
"""The fields of `looking.Facts` by name, each as long as the table."""

MAX_HASH_BITS = 12
"""Hash bits in which near-duplicates may differ, of 64; see `MIN_CORRELATION` for what was measured."""
MIN_CORRELATION = 0.93
"""Least correlation of two thumbs, either of them zoomed by `_ZOOM` or not, for a near-duplicate.

Measured with both limits on 400 photos of Flowers-102: found are 100 % of the copies at 60 % size, JPEG quality 30,
1.2 times the brightness, or grey, 97.8 % of those cropped by 3 % at each side and 59 % of those cropped by 5 %.
Among all 33.5 million pairs of its 8,189 photos 36 match: 31 are one photo twice, edited or not, or two shots of one
flower in one scene; 3 are the same kind of flower alike before black; 2 are different flowers. Mirrored and turned
copies are not looked for.
"""
MIN_CONTRAST = 4.0
"""Standard deviation of a thumb, in grey levels, under which it is too flat to compare; that of Flowers is 12 up."""
_ZOOM = 0.94
_BLOCK = (1024, 16384)
"""Images compared at a time: 64 MiB of float32."""


@dataclass(frozen=True)
class Facts:
    """One picture.

    Args:
        width: In pixels, of the upright picture; 0 if it does not decode.
        height: As `width`.
        mode: Pillow's name of the file's mode, such as RGB, L or CMYK; empty if not even the header reads.
        orientation: EXIF orientation, 1 to 8; 1 if the file has none.
        grey: It shows no colour.
        phash: 64 bits of its coarse shape: alike pictures differ in few of them. Zeros if it does not decode.
        thumb: 16 x 16 grey bytes, row by row. Zeros if it does not decode.
        sha256: Of the encoded bytes, in hex.
        problem: Why it cannot be trained on; empty if it can.
    """

    width: int
    height: int
    mode: str
    orientation: int
    grey: bool
    phash: bytes
    thumb: bytes
    sha256: str
    problem: str


@dataclass(frozen=True)
class Prints:
    """What near-duplicates are told by: row numbers, hashes as +-1 (n, 64), and unit thumbs, whole and zoomed."""

    rows: np.ndarray
    signs: np.ndarray
    thumbs: np.ndarray
    zoomed: np.ndarray


def look(data: bytes) -> Facts:
    """Return the facts of an encoded picture, decoded as for training. It may be called from several threads."""
    sha256, mode, orientation = hashlib.sha256(data).hexdigest(), "", 1
    try:
        with open_header(data, "") as picture:
            mode = picture.mode
            orientation = _orientation(picture)
            pixels = read_pixels(picture, data, "")
    except UserError as error:
        given = error.problems[0].given
        return Facts(0, 0, mode, orientation, False, bytes(HASH_BYTES), bytes(THUMB_SIDE**2), sha256, given)
    array = pixels.permute(1, 2, 0).numpy()
    height, width = array.shape[:2]
    step = max(1, min(height, width) // _GREY_SIDE)
    red, green, blue = np.moveaxis(array[::step, ::step].astype(np.int16), 2, 0)
    grey = max(int(np.abs(one - two).max()) for one, two in ((red, green), (green, blue), (blue, red))) <= _GREY_SPREAD
    small = Image.fromarray(array).convert("L").resize((_DCT_SIDE, _DCT_SIDE), Image.Resampling.BOX)
    thumb = small.resize((THUMB_SIDE, THUMB_SIDE), Image.Resampling.BOX).tobytes()
    return Facts(width, height, mode, orientation, grey, _phash(np.asarray(small)), thumb, sha256, "")


def _orientation(picture: ImageFile.ImageFile) -> int:
    """Return the EXIF orientation. Of a PNG, whose EXIF may follow its pixels, only what stands before them."""
    if picture.format == "PNG" and "exif" not in picture.info:
        return 1
    try:
        value = picture.getexif().get(_ORIENTATION, 1)
    except BROKEN_EXIF:
        return 1
    return value if value in range(1, 9) else 1


def _phash(small: np.ndarray) -> bytes:
    """Return for each of the 64 lowest frequencies of (32, 32) grey whether it is above the median of all but DC."""
    low = dctn(small.astype(np.float32), type=2)[:_DCT_KEPT, :_DCT_KEPT].ravel()
    return np.packbits(low > np.median(low[1:])).tobytes()


def prints_of(facts: Columns, rows: np.ndarray) -> Prints:
    """Return the prints of those rows that have enough contrast to be compared."""
    side = THUMB_SIDE
    thumbs = np.frombuffer(b"".join(facts["thumb"][row] for row in rows), np.uint8).reshape(-1, side, side)
    enough = thumbs.reshape(-1, side * side).std(axis=1) >= MIN_CONTRAST
    rows, thumbs = rows[enough], thumbs[enough].astype(np.float32)
    bits = np.unpackbits(np.frombuffer(b"".join(facts["phash"][row] for row in rows), np.uint8)).reshape(-1, 64)
    places = (np.arange(side) + 0.5 - side / 2) * _ZOOM + side / 2 - 0.5  # of the zoomed pixels, between whole ones
    zoom = np.maximum(0, 1 - np.abs(places[:, None] - np.arange(side))).astype(np.float32)
    return Prints(rows, bits.astype(np.float32) * 2 - 1, _unit(thumbs), _unit(zoom @ thumbs @ zoom.T))


def _unit(thumbs: np.ndarray) -> np.ndarray:
    flat = thumbs.reshape(len(thumbs), THUMB_SIDE**2)
    flat = flat - flat.mean(axis=1, keepdims=True)
    return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)


def alike(left: Prints, right: Prints) -> Iterator[np.ndarray]:
    """Yield (K, 2) row numbers of alike images of left and right, block by block; of one print, each pair once."""
    least = 64 - 2 * MAX_HASH_BITS
    for top in range(0, len(left.rows), _BLOCK[0]):
        signs = left.signs[top : top + _BLOCK[0]]
        for start in range(top if left is right else 0, len(right.rows), _BLOCK[1]):
            block = right.signs[start : start + _BLOCK[1]]
            one, two = np.divmod(np.flatnonzero(signs @ block.T >= least), len(block))
            one, two = one + top, two + start
            if left is right:
                one, two = one[one < two], two[one < two]
            for part in range(0, len(one), _BLOCK[1]):
                i, j = one[part : part + _BLOCK[1]], two[part : part + _BLOCK[1]]
                views = ((left.thumbs, right.thumbs), (left.zoomed, right.thumbs), (left.thumbs, right.zoomed))
                close = np.max([np.einsum("kd,kd->k", a[i], b[j]) for a, b in views], axis=0) >= MIN_CORRELATION
                yield np.stack([left.rows[i[close]], right.rows[j[close]]], axis=1)
