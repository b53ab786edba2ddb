"""The most confident mistakes of a run's page, with what the model saw and where it looked."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from workbench.training.cam_pictures import look
from workbench.training.page_classes import Outputs, data_uri

if TYPE_CHECKING:
    from workbench.training.classifier import EfficientNetClassifier

log = logging.getLogger("workbench")

MOST_MISTAKES = 20
MOST_SECONDS = 20.0
"""How long drawing may take: a B7's twenty maps would take minutes on a CPU. A choice of this project."""
_SIDE = 176
"""Of a thumbnail, pixels."""


def mistakes(outputs: Outputs) -> list[dict[str, Any]]:
    """Return the most confident mistakes as `place`, `id`, `actual`, `predicted`, `confidence`, `own`, in [0, 1]."""
    found = []
    for place in outputs.worst(MOST_MISTAKES):
        actual, guess = int(outputs.targets[place]), int(outputs.predicted[place])
        shares = outputs.probabilities[place]
        names = {"actual": outputs.classes[actual], "predicted": outputs.classes[guess]}
        sure = {"confidence": float(shares[guess]), "own": float(shares[actual])}
        found.append({"place": place, "id": outputs.ids[place], **names, **sure})
    return found


def add_pictures(found: list[dict[str, Any]], model: EfficientNetClassifier, images: Sequence[Any]) -> str:
    """Give mistakes a `crop` and a `map` as data URIs of JPEGs, for as long as `MOST_SECONDS` allow.

    Args:
        found: As `mistakes` returns them; changed in place.
        model: That made them.
        images: A file, encoded picture or (H, W, 3) uint8 array of each.

    Returns:
        What a reader must know: why pictures are missing, or an empty text.
    """
    end = time.monotonic() + MOST_SECONDS
    for number, (mistake, image) in enumerate(zip(found, images, strict=True)):
        if time.monotonic() > end:
            return f"Pictures of the first {number}: drawing more would have taken over {MOST_SECONDS:.0f} seconds."
        try:
            (seen,) = look(model, [image])
        except Exception as error:  # a page is no reason to lose a fit
            log.warning("a picture for report.html was not drawn: %s: %s", type(error).__name__, error)
            return "Some pictures could not be drawn; the log says why."
        mistake["crop"], mistake["map"] = _thumbnail(seen.crop), _thumbnail(seen.overlay())
    return ""


def _thumbnail(pixels: np.ndarray) -> str:
    picture = Image.fromarray(pixels)
    picture.thumbnail((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    return data_uri(picture, "JPEG", quality=82, optimize=True)
