"""Where the flower is in a picture of the embedded set: the truth for maps of what a network looks at."""

import dataclasses
from unittest import mock

import numpy as np

from workbench.data import blossoms

CLEARLY = 80
"""Of 255: a pixel that differs by more between a black and a white flower shows mostly flower."""


def flower_mask(kind: blossoms.Species, seed: int, index: int, size: int = 64) -> np.ndarray:
    """Return (size, size) bool: petals and disc, but no leaf before them and no shadow.

    The picture is drawn twice, with a black and with a white flower: everything else stays, noise too.
    """
    name, radius, _, _, low, high = blossoms.CENTRES[kind.centre]
    pictures = []
    for colour in (0x000000, 0xFFFFFF):
        with mock.patch.dict(blossoms.CENTRES, {kind.centre: (name, radius, colour, colour, low, high)}):
            bare = dataclasses.replace(kind, colours=(colour,) * 3)
            pictures.append(blossoms.render(bare, seed, index, size).astype(int))
    return np.abs(pictures[1] - pictures[0]).max(-1) > CLEARLY
