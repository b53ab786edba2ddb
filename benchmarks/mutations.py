"""Damaged inputs at random: pictures, YAML, CSV and JSON. Every choice comes from the `Random` that is given."""

from __future__ import annotations

import io
import re
import struct
import zlib
from random import Random
from typing import Any

import numpy as np
from PIL import Image

EXTREMES = (0, 1, 0x7F, 0x80, 0xFE, 0xFF)
NUMBERS = (0, 1, -1, 2**31 - 1, 2**31, 2**32, 2**63, -(2**63), 10**30, 10**400, 0.0, 1e-320, 1e308, 0.5)
WORDS = (
    *("", " ", "null", "None", "~", "true", "off", "yes", ".nan", ".inf", "-.inf", "1e999", "1_000", "0x1F", "0o17"),
    *(
        "0x" + "f" * 6000,
        "9" * 6000,
        "1:30:00",
        "2026-11-23",
        "=",
        "<<",
        "-",
        "...",
        "---",
        "%YAML 9.9",
        "\0",
        "\x1b[2J",
    ),
    *(
        "\u202e",
        "\ufeff",
        "\ud800",
        "\U0001f338",
        "é" * 300,
        "a/../../b",
        "..",
        "/",
        "con",
        "x" * 5000,
        "{",
        "[",
        "]",
        "}",
    ),
    *(
        "&a",
        "*a",
        "&a [*a]",
        "!!python/object/apply:os.system [id]",
        "!x",
        "${oc.env:HOME}",
        "$",
        "|",
        ">",
        "'",
        '"',
        "#",
    ),
    *("[" * 400, "{a: " * 300, "? [a]: b", ": :", "- - -", "\t", "\r", "a: b: c", "@", "`", "!!binary x", "!!set {a}"),
)
"""What YAML, people and programs write into files and nobody expects there."""


def sample_pictures() -> dict[str, bytes]:
    """Return small whole pictures by kind, in every format that the workbench reads."""
    ramp = np.linspace(0, 255, 40 * 48 * 3).reshape(40, 48, 3)
    noise = np.random.default_rng(0).integers(0, 60, ramp.shape)
    photo = Image.fromarray((ramp * 0.7 + noise).astype(np.uint8))
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a picture"
    frames = {"save_all": True, "append_images": [photo.rotate(90, expand=False)]}
    deep = Image.fromarray((ramp[..., 0] * 257).astype(np.uint16))
    made = {
        "jpeg": (photo, {"format": "JPEG", "quality": 90, "exif": exif}),
        "jpeg-big": (photo.resize((192, 160)), {"format": "JPEG", "quality": 80}),  # large enough to be read smaller
        "jpeg-progressive": (photo, {"format": "JPEG", "progressive": True}),
        "jpeg-grey": (photo.convert("L"), {"format": "JPEG"}),
        "jpeg-cmyk": (photo.convert("CMYK"), {"format": "JPEG"}),
        "png": (photo, {"format": "PNG", "exif": exif}),
        "png-palette": (photo.convert("P"), {"format": "PNG", "transparency": bytes(range(256))}),
        "png-16": (deep, {"format": "PNG"}),
        "png-animated": (photo, {"format": "PNG", **frames}),
        "webp": (photo, {"format": "WEBP", "exif": exif}),
        "webp-lossless": (photo.convert("RGBA"), {"format": "WEBP", "lossless": True}),
        "webp-animated": (photo, {"format": "WEBP", **frames}),
        "gif": (photo.convert("P"), {"format": "GIF"}),
        "gif-animated": (photo.convert("P"), {"format": "GIF", **frames}),
        "bmp": (photo, {"format": "BMP"}),
        "ppm": (photo, {"format": "PPM"}),
        "tiff-lzw": (photo, {"format": "TIFF", "compression": "tiff_lzw"}),
        "tiff-jpeg": (photo, {"format": "TIFF", "compression": "jpeg"}),
    }
    encoded = {}
    for name, (picture, options) in made.items():
        buffer = io.BytesIO()
        picture.save(buffer, **options)
        encoded[name] = buffer.getvalue()
    return encoded


def damaged_bytes(data: bytes, random: Random, others: tuple[bytes, ...] = ()) -> bytes:
    """Return a file's bytes with one to six damages; a PNG's checksums are mostly made right again.

    Args:
        data: The whole file.
        random: Every choice.
        others: Files of which pieces may be put in.
    """
    made = bytearray(data)
    for _ in range(random.choice((1, 1, 1, 2, 3, 6))):
        _damage(made, random, others)
    is_png = made[:4] == b"\x89PNG"
    return _checksummed(bytes(made)) if is_png and random.random() < 0.7 else bytes(made)


def _damage(made: bytearray, random: Random, others: tuple[bytes, ...]) -> None:
    # Headers are short, and most of what can go wrong is in them.
    top = len(made) if random.random() < 0.5 else min(len(made), 96)
    place = random.randrange(top + 1)
    length = random.choice((1, 2, 4, 16, 200))
    match random.randrange(9):
        case 0:
            made[place : place + 1] = bytes([random.randrange(256)])
        case 1:
            made[place : place + 1] = bytes([random.choice(EXTREMES)])
        case 2:
            del made[place:]
        case 3:
            del made[place : place + length]
        case 4:
            made[place:place] = made[place : place + length] * random.choice((1, 2, 50))
        case 5:
            made[place:place] = random.randbytes(length)
        case 6:
            number = random.choice((0, 1, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 100_000))
            made[place : place + 4] = struct.pack(random.choice((">I", "<I")), number)
        case 7 if others:
            other = random.choice(others)
            start = random.randrange(len(other))
            made[place:place] = other[start : start + 10 * length]
        case _:
            made[place : place + length] = bytes(length)


def _checksummed(png: bytes) -> bytes:
    """Return a PNG with the checksum of each whole chunk as it should be, so that its content is what is looked at."""
    made, place = bytearray(png), 8
    while place + 12 <= len(made):
        (length,) = struct.unpack(">I", made[place : place + 4])
        end = place + 8 + length
        if end + 4 > len(made):
            break
        made[end : end + 4] = struct.pack(">I", zlib.crc32(made[place + 4 : end]))
        place = end + 4
    return bytes(made)


def damaged_text(text: str, random: Random) -> str:
    """Return a text file's content with one to four damages to its lines, values and characters."""
    for _ in range(random.choice((1, 1, 2, 4))):
        lines = text.split("\n")
        row = random.randrange(len(lines))
        line = lines[row]
        place = random.randrange(len(line) + 1)
        match random.randrange(9):
            case 0:
                del lines[row]
            case 1:
                lines.insert(random.randrange(len(lines) + 1), line)
            case 2:
                lines[row] = " " * random.randrange(8) + line.lstrip()
            case 3:
                lines[row] = line[:place] + random.choice(WORDS) + line[place:]
            case 4:
                lines[row] = line[:place] + line[place + random.randrange(1, 5) :]
            case 5 | 6:  # another value for a key, or another cell
                value = random.choice(WORDS) if random.random() < 0.5 else repr(odd_value(random))
                lines[row] = re.sub(r"([:,]) ?[^:,]*$", lambda found, value=value: f"{found[1]} {value}", line)
            case 7:
                lines[row] = (
                    line[:place] + random.choice("\x00\x07\x1b\x85\u2028\ufeff{}[]:#&*!|>'\"%@`,\t") + line[place:]
                )
            case _:
                lines[row:] = lines[row : row + 1] if random.random() < 0.3 else lines[row:] + lines[row:]
        text = "\n".join(lines)
    return text


def odd_value(random: Random, depth: int = 0) -> Any:
    """Return a value that YAML or JSON can hold, seldom one that is right."""
    kind = random.randrange(8 if depth < 3 else 5)
    if kind == 0:
        return random.choice(NUMBERS)
    if kind == 1:
        return random.choice(WORDS)[:200]
    if kind == 2:
        return random.choice((None, True, False))
    if kind == 3:
        return random.choice((float("nan"), float("inf"), -float("inf")))
    if kind == 4:
        return random.randrange(-10, 1000)
    if kind == 5:
        return [odd_value(random, depth + 1) for _ in range(random.randrange(4))]
    if kind == 6:
        return {str(odd_value(random, 3)): odd_value(random, depth + 1) for _ in range(random.randrange(3))}
    return [odd_value(random, depth + 1)]


def changed(values: Any, random: Random) -> Any:
    """Return nested plain values with one of them, anywhere, removed, renamed or put in another's place."""
    if not isinstance(values, dict | list) or not values or random.random() < 0.15:
        return odd_value(random)
    if isinstance(values, list):
        place = random.randrange(len(values))
        return [*values[:place], changed(values[place], random), *values[place + 1 :]]
    key = random.choice(list(values))
    rest = {name: value for name, value in values.items() if name != key}
    kind = random.random()
    if kind < 0.1:
        return rest
    if kind < 0.2:
        return {**rest, random.choice((key + "s", key[:-1], key.upper(), random.choice(WORDS)[:50])): values[key]}
    return {**values, key: changed(values[key], random)}
