"""The real images that an export is compared on, and that 8-bit ranges are chosen by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from workbench import recipe_files
from workbench.data import splits
from workbench.data.images import load_image
from workbench.data.transforms import eval_transform
from workbench.models.staged import StagedNet
from workbench.specs.errors import UserError
from workbench.training import building


@dataclass(frozen=True)
class Pictures:
    """Images as a model takes them, before normalising.

    Args:
        checked: (N, 3, H, W) uint8, which exports are compared on.
        calibration: (M, 3, H, W) uint8, which 8-bit ranges are chosen by; none of `checked` where there are enough.
        source: What they are, for people.
    """

    checked: Tensor
    calibration: Tensor
    source: str


def pictures_for(
    net: StagedNet, where: Path, files: Sequence[Path], count: int, overrides: Sequence[str] = ()
) -> Pictures:
    """Return images of the model's own selection split, or the files given. Test is never looked at.

    Args:
        net: The loaded model.
        where: Its folder, for words.
        files: Pictures to use in place of the selection split.
        count: Images to compare on, and as many again to calibrate by.
        overrides: Changes to the model's recipe, as `data.root=DIR`.

    Raises:
        UserError: Neither pictures nor a recipe whose set can be had.
    """
    if files:
        transform = eval_transform(net.preprocessing)
        images = torch.stack([transform(load_image(path)) for path in files[: 2 * count]])
        return _halved(images, count, f"{len(images)} given pictures")
    stored = net.provenance.get("recipe")
    if stored is None:
        remedy = "name pictures of the kind it is for: --images photos/"
        raise UserError.of("export", f"{where}: a model without its recipe", "images to compare on", remedy)
    try:
        return _of_selection(net, where, stored, count, overrides)
    except UserError as error:
        problem = error.problems[0]
        remedy = f"{problem.remedy}; or name pictures: --images photos/"
        raise UserError.of(problem.where, problem.given, problem.allowed, remedy) from error


def _of_selection(
    net: StagedNet, where: Path, stored: dict[str, Any], count: int, overrides: Sequence[str]
) -> Pictures:
    loaded = recipe_files.load_layers([(str(where / "model.json"), stored)], overrides, "unnamed")
    data = building.build_data(loaded.recipe, loaded.card, net.preprocessing)
    if data.classes != net.classes:
        given = f"{data.num_classes} classes that are not the model's {len(net.classes)}"
        raise UserError.of(f"dataset {data.card.name}", given, "the set of the model", "check data.root and data.path")
    rows = data.table.indices(splits.SELECTION)
    if not len(rows):
        raise UserError.of("export", f"{data.card.name} has no selection split", "images to compare on", "give some")
    wanted = np.unique(np.linspace(0, len(rows) - 1, 2 * count).round().astype(int))
    batches = list(data.eval_dataloader(splits.SELECTION, rows[wanted]))
    images = torch.cat([data.on_before_batch_transfer(batch, 0).images for batch in batches])
    trained = ", which were trained on too" if loaded.recipe.data.train_on == "train+selection" else ""
    return _halved(images, count, f"{data.card.name}'s selection split{trained}")


def _halved(images: Tensor, count: int, source: str) -> Pictures:
    """Every other image to each use; a single one to both."""
    calibration = images[1::2] if len(images) > 1 else images
    return Pictures(images[::2][:count], calibration[:count], source)
