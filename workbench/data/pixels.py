"""A pixel store: pictures of a prepared set decoded and scaled once, in one file that every process maps.

The file holds the pictures, then an index, then a trailer that makes the file whole: what was cut off or is of another
make is not opened. Each picture has a checksum; one that does not fit, or is not there, is made anew from the set, so a
store can only change how long a run takes, never what it computes.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional

from workbench.atomic import replacing
from workbench.data.images import decode, load_image
from workbench.data.prepared import PreparedImages
from workbench.data.transforms import eval_transform
from workbench.specs.weights import Preprocessing

log = logging.getLogger("workbench")
FORMAT = 1
"""Number of the layout below, and of how pictures are made; another one is made again."""
JPEG_QUALITY, JPEG_SUBSAMPLING = 90, "4:2:0"
"""On 65 photos of Pets, scaling to 256 px changed the bytes of 224 px crops by 2.4 on average; encoding like this made
it 3.3 with 24 KB a picture, 92 without subsampling 3.0 with 34 KB, 85 with it 3.5 with 20 KB."""
_MAGIC = b"WBPIXELS"
_TRAILER = 8 + 8 + 32
_INDEX = np.dtype(
    [(name, "<i8") for name in ("row", "start", "length", "height", "width", "whole_height", "whole_width")]
    + [("sum", "<u8")]
)
_CHUNK = 64


@dataclass(frozen=True)
class Kept:
    """What is kept of each picture.

    Args:
        form: `raw` or `jpeg`.
        side: Its shorter side, pixels, if it is larger; smaller ones stay as they are.
        interpolation: `bicubic` or `bilinear`.
        crop: In place of all that: what evaluation by this leaves of it.
    """

    form: str
    side: int
    interpolation: str
    crop: Preprocessing | None = None

    def scales(self, height: int, width: int) -> bool:
        """Whether a picture of this size is kept as something else than it is."""
        return self.crop is not None or min(height, width) > self.side

    def shape(self, height: int, width: int) -> tuple[int, int]:
        """Return (height, width) of what is kept of a picture of this size."""
        if self.crop is not None:
            return self.crop.crop, self.crop.crop
        if not self.scales(height, width):
            return height, width
        short = min(height, width)
        return tuple(self.side if edge == short else int(self.side * edge / short) for edge in (height, width))

    def pixels(self, image: Tensor) -> Tensor:
        """Return what is kept, (3, h, w) uint8, before any encoding."""
        if self.crop is not None:
            return eval_transform(self.crop)(image)
        if not self.scales(*image.shape[1:]):
            return image
        mode = InterpolationMode(self.interpolation)
        return functional.resize(image, list(self.shape(*image.shape[1:])), interpolation=mode, antialias=True)

    def pack(self, image: Tensor) -> bytes:
        """Return the bytes that are kept of a picture."""
        array = np.ascontiguousarray(self.pixels(image).permute(1, 2, 0).numpy())
        if self.form == "raw":
            return array.tobytes()
        buffer = io.BytesIO()
        Image.fromarray(array).save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=JPEG_SUBSAMPLING)
        return buffer.getvalue()

    def unpack(self, data: Tensor, height: int, width: int) -> Tensor:
        """Return kept bytes, (n,) uint8, as (3, height, width) uint8."""
        if self.form == "raw":
            return data.view(height, width, 3).permute(2, 0, 1)
        return decode(data.numpy().tobytes(), "kept picture")


def file_name(place: Path, fingerprint: str, kept: Kept, rows: np.ndarray) -> str:
    """Return the name of a store: its second part is of the set and the code, its third of what is kept."""
    made_by = [FORMAT, fingerprint, torch.__version__, torchvision.__version__, Image.__version__]
    told = [
        asdict(kept),
        JPEG_QUALITY,
        JPEG_SUBSAMPLING,
        hashlib.sha256(np.sort(rows).astype("<i8").tobytes()).hexdigest(),
    ]
    return f"{place.name}.pixels-{_digest(made_by)}-{_digest([made_by, told])}.bin"


def _digest(values: Any) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]


class PixelStore:
    """Kept pictures of some rows of a prepared set, by their place in a table's `images`.

    Args:
        images: The set's pictures; where a picture is not in the file, it is made from these.
        kept: What is kept of each.
        path: The file; None: every picture is made anew, each time.
    """

    def __init__(self, images: PreparedImages, kept: Kept, path: Path | None):
        self.images, self.kept, self.path = images, kept, path
        self._index = self._rows = self._bytes = None
        self._told = False

    def __getitem__(self, position: int) -> tuple[Tensor, tuple[int, int]]:
        """Return (3, h, w) uint8 of what is kept, not to be written to, and the whole picture's height and width."""
        if self.path is not None and self._bytes is None and not self.open():
            self._say(f"{self.path} is gone; pictures are read from the set, which is slower")
            self.path = None
        if self.path is not None and (found := self._find(int(self.images.rows[position]))):
            return found
        image = load_image(self.images[position])
        return self._made(image), tuple(image.shape[1:])

    def _made(self, image: Tensor) -> Tensor:
        if self.kept.form == "raw":
            return self.kept.pixels(image)
        if not self.kept.scales(*image.shape[1:]):
            return image
        data = torch.frombuffer(bytearray(self.kept.pack(image)), dtype=torch.uint8)
        return self.kept.unpack(data, 0, 0)

    def _find(self, row: int) -> tuple[Tensor, tuple[int, int]] | None:
        at = int(np.searchsorted(self._rows, row))
        if at == len(self._rows) or self._rows[at] != row:
            return None
        _, start, length, height, width, *whole, checksum = self._index[at].item()
        data = self._bytes[start : start + length]
        if _checksum(self._bytes[start : start + _padded(length)]) != checksum:
            self._say(f"a damaged picture in {self.path}; it is read from the set, which is slower: remove that file")
            return None
        return self.kept.unpack(data, height, width), tuple(whole)

    def _say(self, text: str) -> None:
        if not self._told:
            log.warning("prepared pixels: %s", text)
        self._told = True

    def open(self) -> bool:
        """Map the file; return whether it is there and whole."""
        try:
            size = self.path.stat().st_size
            if size < _TRAILER:
                return False
            self._bytes = torch.from_file(str(self.path), shared=False, size=size, dtype=torch.uint8)
        except (OSError, RuntimeError):
            return False
        trailer = self._bytes[size - _TRAILER :].numpy().tobytes()
        start = int.from_bytes(trailer[8:16], "little")
        index = self._bytes[start : size - _TRAILER].numpy().tobytes() if start <= size - _TRAILER else b""
        if trailer[:8] != _MAGIC or hashlib.sha256(index).digest() != trailer[16:]:
            self._bytes = None
            return False
        self._index = np.frombuffer(index, dtype=_INDEX)
        self._rows = np.ascontiguousarray(self._index["row"])
        return True

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_index": None, "_rows": None, "_bytes": None}

    def write(self, positions: Sequence[int], advance: Any) -> None:
        """Make the file, whole or not at all.

        Args:
            positions: Which of the set's pictures; of a JPEG store, those that are kept smaller.
            advance: Called with the number of pictures that are done.

        Raises:
            OSError: The disk refuses.
            UserError: A picture does not decode.
        """
        entries, start = [], 0
        order = iter(sorted(positions, key=lambda position: int(self.images.rows[position])))
        with (
            replacing(self.path) as beside,
            beside.open("wb") as file,
            ThreadPoolExecutor(os.cpu_count() or 1) as pool,
        ):
            while chunk := list(itertools.islice(order, _CHUNK)):
                for position, (data, whole) in zip(chunk, pool.map(self._packed, chunk), strict=True):
                    shape, length = self.kept.shape(*whole), len(data)
                    data += bytes(_padded(length) - length)
                    checksum = _checksum(torch.frombuffer(bytearray(data), dtype=torch.uint8))
                    entries.append((int(self.images.rows[position]), start, length, *shape, *whole, checksum))
                    file.write(data)
                    start += len(data)
                advance(len(chunk))
            index = np.array(entries, dtype=_INDEX).tobytes()
            file.write(index + _MAGIC + start.to_bytes(8, "little") + hashlib.sha256(index).digest())

    def _packed(self, position: int) -> tuple[bytes, tuple[int, int]]:
        image = load_image(self.images[position])
        return self.kept.pack(image), tuple(image.shape[1:])


def _padded(length: int) -> int:
    return -(-length // 8) * 8


def _checksum(data: Tensor) -> int:
    """Return the sum of 8-byte words: 6 us for a picture of 256 KB, where a CRC took 98."""
    return int(data.numpy().view("<u8").sum())
