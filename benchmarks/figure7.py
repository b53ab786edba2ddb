"""The paper's Figure 7 in small: five networks fitted on embedded blossoms, and what share of their maps is on flowers.

python benchmarks/figure7.py                    # fits recipes/figure7_*.yaml, then draws and measures
python benchmarks/figure7.py RUN RUN RUN ...    # finished runs of these recipes

It draws docs/cam.png and appends two rows for each network to results/figure7.csv: the maps drawn, and the exact ones.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import measured
import numpy as np
import torch
from PIL import Image
from torch import nn

from workbench import EfficientNetClassifier, fit, load_recipe
from workbench.analysis.cam_grid import cam_grid, headings, load_models
from workbench.data import blossoms
from workbench.models.activation_maps import FINE
from workbench.models.backbones import build_backbone
from workbench.models.counting import count
from workbench.training import machine, run_folder
from workbench.training.cam_pictures import look

sys.path.insert(0, str(measured.ROOT / "tests"))
from blossom_masks import flower_mask

RECIPES = tuple(f"figure7_{name}" for name in ("baseline", "deeper", "wider", "higher_resolution", "compound"))
SHOWN = ("Pallidora vera", "Fuchsiola polypetala")
"""Species of the picture's two rows, as many as the paper has; of each the first test picture."""
NATIVE = 256
"""Pixels of the blossoms_large card."""
TRAIN, TEST = 0, 2
"""Seeds of the blossoms' splits."""


def pictures(seed: int, each: int, size: int = NATIVE) -> list[np.ndarray]:
    """Render the first `each` pictures of every species, (size, size, 3) uint8, species by species."""
    return [blossoms.render(kind, seed, i, size) for kind in blossoms.species("downstream") for i in range(each)]


def on_flower(
    model: EfficientNetClassifier, shown: Sequence[np.ndarray], masks: Sequence[np.ndarray], method: str
) -> tuple[float, float]:
    """Return the mean share of a map's mass on the flower, and the share of maps whose hottest point is on it.

    A map of nothing has no mass on a flower and no hottest point there.

    Args:
        model: The maps are of its most probable class.
        shown: (H, W, 3) uint8 pictures.
        masks: (crop, crop) bool, where the flower is in what the model sees.
        method: See `activation_maps`.
    """
    shares, hits = [], []
    for found, mask in zip(look(model, shown, None, method), masks, strict=True):
        total = float(found.heat.sum())
        shares.append(float(found.heat[mask].sum()) / total if total else 0.0)
        hits.append(bool(mask.flat[found.heat.argmax()]) if total else False)
    return float(np.mean(shares)), float(np.mean(hits))


def untrained(model: EfficientNetClassifier, run: Path) -> EfficientNetClassifier:
    """Return a network of the same shape with random weights; BatchNorm statistics fit the training pictures."""
    torch.manual_seed(0)
    made = EfficientNetClassifier.load(run)
    made.net = build_backbone(model.net.scaling, len(model.classes), drop_path=0.0)
    for module in made.net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        made.net.train()(torch.stack([model.preprocess(picture) for picture in pictures(TRAIN, 4)]))
    return made.eval()


def draw(models: Sequence[EfficientNetClassifier], out: Path) -> None:
    """Draw the grid of maps over the test pictures of `SHOWN`."""
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{name}.png" for name in SHOWN]
        kinds = {kind.name: kind for kind in blossoms.species("downstream")}
        for file, name in zip(files, SHOWN, strict=True):
            Image.fromarray(blossoms.render(kinds[name], TEST, 0, NATIVE)).save(file)
        cam_grid(models, files).save(out, optimize=True)


def main() -> None:
    """Fit or load, draw, measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", type=Path)
    parser.add_argument("--each", type=int, default=25, help="Test pictures of each of the 16 species.")
    arguments = parser.parse_args()
    runs = arguments.runs or [fit(load_recipe(name).recipe).folder for name in RECIPES]
    models = load_models(runs)
    draw(models, measured.ROOT / "docs" / "cam.png")
    titles = headings([m.net.scaling for m in models], [m.preprocessing.crop for m in models])
    shown = pictures(TEST, arguments.each)
    kinds = blossoms.species("downstream")
    for run, model, title in zip(runs, models, titles, strict=True):
        size = model.preprocessing.crop
        masks = [flower_mask(kind, TEST, i, size) for kind in kinds for i in range(arguments.each)]
        control = untrained(model, run)
        result = json.loads((run / "result.json").read_text())
        for method in (FINE, "cam"):
            trained, random = (on_flower(net, shown, masks, method) for net in (model, control))
            row = {
                "scaling": title.split("\n")[0],
                "arch": model.net.scaling.name,
                "madds": count(model.net, size).madds,
                "selection_top1": round(result["selection"]["top1"], 4),
                "test_top1": round(result["test"]["top1"], 4),
                "test_n": result["test"]["n"],
                "seed": result["seed"],
                "steps": result["steps"],
                "method": method,
                "share_on_flower": round(trained[0], 4),
                "hottest_on_flower": round(trained[1], 4),
                "untrained_share": round(random[0], 4),
                "untrained_hottest": round(random[1], 4),
                "flower_area": round(float(np.mean(masks)), 4),
                "pictures": len(shown),
            }
            measured.append("figure7.csv", row, run_folder.command_line(), machine.describe())
            print(row)


if __name__ == "__main__":
    main()
