"""What a classifier looks at, as pictures: class activation maps over the evaluation crop, and grids of them.

The maps themselves are in `models/activation_maps.py`. Drawn with Pillow alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from workbench.data.images import load_image
from workbench.data.transforms import eval_transform, normalise
from workbench.models.activation_maps import activation_maps

if TYPE_CHECKING:
    from workbench.training.classifier import EfficientNetClassifier

BATCH = 16
TILE, GAP, LINE = 160, 6, 15
"""Side of a tile, space around it and height of a line of text, pixels."""
_STOPS = np.array([(30, 30, 140), (200, 30, 90), (255, 130, 20), (255, 250, 120)], np.float32)
"""Colours of heat 0, 1/3, 2/3 and 1."""


@dataclass(frozen=True)
class Look:
    """What a classifier made of one picture.

    Args:
        crop: (H, W, 3) uint8, what it saw.
        heat: (H, W) float32, 0 or more: how much each place speaks for the class.
        name: The class that `heat` is of.
        probability: Its probability, in [0, 1].
        method: How the map was made, see `activation_maps`.
    """

    crop: np.ndarray
    heat: np.ndarray
    name: str
    probability: float
    method: str

    def overlay(self) -> np.ndarray:
        """Return the crop, paled so that its own colours are not taken for heat, under its heat: (H, W, 3) uint8."""
        heat = (self.heat / max(float(self.heat.max()), 1e-12))[..., None]
        place = heat[..., 0] * (len(_STOPS) - 1)
        colours = np.stack([np.interp(place, range(len(_STOPS)), stops) for stops in _STOPS.T], -1)
        pale = 0.2 * self.crop + 0.8 * self.crop.mean(-1, keepdims=True)
        alpha = 0.15 + 0.55 * heat
        return ((1 - alpha) * pale + alpha * colours + 0.5).astype(np.uint8)


@dataclass(frozen=True)
class Tile:
    """One cell of a grid: a picture, (H, W, 3) uint8, and the lines under it."""

    picture: np.ndarray
    lines: tuple[str, ...] = ()


def look(
    model: EfficientNetClassifier,
    pictures: Sequence[str | Path | np.ndarray | bytes],
    name: str | None = None,
    method: str = "auto",
) -> list[Look]:
    """Return what a classifier looks at.

    Args:
        model: Used in evaluation mode and left in the mode that it was in.
        pictures: Files, encoded pictures or (H, W, 3) uint8 arrays.
        name: The class to map; the most probable of each picture if None.
        method: See `activation_maps`.

    Raises:
        UserError: A file is missing or does not decode.
        ValueError: Not a class of the model, or a method that its head does not allow.
    """
    transform, found = eval_transform(model.preprocessing), []
    for start in range(0, len(pictures), BATCH):
        sources = [Path(p) if isinstance(p, str) else p for p in pictures[start : start + BATCH]]
        crops = torch.stack([transform(load_image(source)) for source in sources])
        inputs = normalise(crops, model.preprocessing).to(model.device)
        classes = None if name is None else torch.full((len(inputs),), model.classes.index(name))
        made = activation_maps(model.net, inputs, classes, method)
        logits = made.logits.float()
        shares = logits.sigmoid() if model.multi_label else logits.softmax(1)
        heats = made.upsampled(crops.shape[-1]).cpu().numpy()
        for crop, heat, share, index in zip(crops, heats, shares.cpu(), made.classes.tolist(), strict=True):
            seen = crop.permute(1, 2, 0).numpy()
            found.append(Look(seen, heat, model.classes[index], float(share[index]), made.method))
    return found


def map_sheet(model: EfficientNetClassifier, pictures: Sequence[str | Path | np.ndarray | bytes]) -> Image.Image:
    """Draw each picture beside the map of its most probable class, two pictures in a row.

    Raises:
        UserError: A file is missing or does not decode.
    """
    cells = [[Tile(seen.crop), labelled(seen, seen.method)] for seen in look(model, pictures)]
    cells += [[Tile(np.full((1, 1, 3), 255, np.uint8))] * 2] * (len(cells) % 2)
    return draw_grid([[*left, *right] for left, right in zip(cells[::2], cells[1::2], strict=True)])


def labelled(seen: Look, note: str) -> Tile:
    """Return the overlay with class and probability under it, and a note."""
    return Tile(seen.overlay(), (f"{seen.name}  {seen.probability:.0%}", note))


def draw_grid(rows: Sequence[Sequence[Tile]], headings: Sequence[str] = ()) -> Image.Image:
    """Draw tiles in rows of the same length, with a heading over each column.

    Args:
        rows: Tiles, at least one.
        headings: Texts of one or more lines, or none.
    """
    font = ImageFont.load_default(LINE - 4)
    heads = [text.split("\n") for text in headings]
    top = LINE * max(map(len, heads)) + GAP if heads else 0
    heights = [TILE + LINE * max(len(tile.lines) for tile in row) + 2 * GAP for row in rows]
    grid = Image.new("RGB", (len(rows[0]) * (TILE + GAP) + GAP, top + sum(heights)), "white")
    pen = ImageDraw.Draw(grid)

    def write(column: int, y: int, text: str) -> None:
        pen.text((GAP + column * (TILE + GAP), y), _shortened(text, font), fill="black", font=font)

    for column, texts in enumerate(heads):
        for number, text in enumerate(texts):
            write(column, GAP + number * LINE, text)
    y = top
    for row, height in zip(rows, heights, strict=True):
        for column, tile in enumerate(row):
            picture = Image.fromarray(tile.picture).resize((TILE, TILE), Image.Resampling.BICUBIC)
            grid.paste(picture, (GAP + column * (TILE + GAP), y + GAP))
            for number, text in enumerate(tile.lines):
                write(column, y + GAP + TILE + number * LINE, text)
        y += height
    return grid


def _shortened(text: str, font: ImageFont.ImageFont) -> str:
    """Cut a text to the width of a tile."""
    if font.getlength(text) <= TILE:
        return text
    while text and font.getlength(text + "...") > TILE:
        text = text[:-1]
    return text + "..."
