"""Thumbs of test images by id, for a page; of sets that are at hand only: nothing is fetched or prepared for them."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from workbench import recipe_files, shipped
from workbench.data.images import load_image
from workbench.data.prepared import place_name, read_manifest
from workbench.specs.errors import UserError
from workbench.training import building, run_folder

_SIDE, _JPEG_QUALITY = 128, 80


def thumbs(folder: Path, ids: Sequence[str]) -> tuple[dict[str, str], str]:
    """Return `id -> data URI` of a run's test images.

    Args:
        folder: A run folder; its recipe says where the set is.
        ids: Images that are wanted.

    Returns:
        The thumbs that could be made, and why there are none if so.
    """
    try:
        stored = shipped.read_yaml(folder / run_folder.RECIPE)
        loaded = recipe_files.load_layers([(str(folder / run_folder.RECIPE), stored)], ["data.download=false"], "")
        data = building.build_data(loaded.recipe, loaded.card)
        root = data.prepared_root or data.root / "prepared"
        if data.card.layout != "blossoms" and read_manifest(root / place_name(data.card, data.path)) is None:
            return {}, f"no pictures: the set is not prepared under {root} here"
        rows = {name: row for row, name in enumerate(data.table.ids)}
        made = {name: _thumb(data.table.images[rows[name]]) for name in ids if name in rows}
        return made, "" if made else "no pictures: the set that is prepared here has other images"
    except (UserError, OSError) as error:
        said = error.problems[0].given if isinstance(error, UserError) else str(error)
        return {}, f"no pictures: {said}"


def _thumb(source: object) -> str:
    image = Image.fromarray(load_image(source).permute(1, 2, 0).numpy())
    image.thumbnail((_SIDE, _SIDE))
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=_JPEG_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
