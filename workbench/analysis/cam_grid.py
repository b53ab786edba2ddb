"""The grid of the paper's Figure 7: pictures by models, each with its class activation map."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from workbench.data.images import IMAGE_ENDINGS
from workbench.models import portable
from workbench.models.activation_maps import FINE, has_exact_maps
from workbench.models.counting import count
from workbench.specs.architectures import ARCHS, Scaling
from workbench.specs.compared import Backbone
from workbench.specs.errors import UserError, suggestion
from workbench.training.cam_pictures import Tile, draw_grid, labelled, look
from workbench.training.classifier import EfficientNetClassifier

FIGURE_7 = {
    "baseline": {"base": "b0"},
    "deeper": {"base": "b0", "depth": 4},
    "wider": {"base": "b0", "width": 2},
    "higher resolution": {"base": "b0", "resolution": 448},
    "compound": {"base": "b0", "depth": 1.4, "width": 1.2, "resolution": 291},
}
"""The models of the paper's Figure 7 and Table 7 as `model.arch`: B0, and B0 scaled to about 1.8 billion MAdds.
291 is the paper's 1.3 x 224, rounded. `recipes/figure7_*.yaml` are a small row of the same kind."""
_SCALED = {"d": "deeper", "w": "wider", "r": "higher resolution"}
MOST_PICTURES = 50
"""Rows of one grid; a choice of this project."""


def find_inputs(paths: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Sort paths into models (folders with a model.json) and pictures (anything else; of folders, all in them).

    Raises:
        UserError: No model, no picture, a path that is not there, a folder with neither, or too many pictures.
    """
    models, pictures = [], []
    for path in paths:
        if (path / portable.DESCRIPTION).is_file() or path.name in (portable.DESCRIPTION, portable.TENSORS):
            models.append(path)
        elif path.is_dir():
            inside = sorted(f for f in path.rglob("*") if f.suffix.lower() in IMAGE_ENDINGS)
            if not inside:
                raise UserError.of(
                    "cam",
                    f"{path}: no {portable.DESCRIPTION} and no picture in it",
                    "a finished run, a saved model, or a folder of pictures",
                    "check the path; an unfinished run has no model yet",
                )
            pictures += inside
        elif path.is_file():
            pictures.append(path)
        else:
            raise UserError.of("cam", f"{path}: no such file or folder", "an existing path", "check the path")
    for kind, found in (("model", models), ("picture", pictures)):
        if not found:
            given = " ".join(map(str, paths))
            remedy = "workbench cam RUN_OR_MODEL... PICTURE_OR_FOLDER... --out grid.png"
            raise UserError.of("cam", f"no {kind} among {given}", f"at least one {kind}", remedy)
    if len(pictures) > MOST_PICTURES:
        allowed = f"at most {MOST_PICTURES} pictures in one grid"
        raise UserError.of("cam", f"{len(pictures)} pictures", allowed, "name fewer, or several grids")
    return models, pictures


def load_models(paths: Sequence[Path]) -> list[EfficientNetClassifier]:
    """Load models that answer with the same classes.

    Raises:
        UserError: Damaged files, or different classes.
    """
    models = [EfficientNetClassifier.load(path) for path in paths]
    for path, model in zip(paths, models, strict=True):
        if model.classes != models[0].classes:
            odd = sorted(set(model.classes) ^ set(models[0].classes))
            raise UserError.of(
                "cam",
                f"{path} with {len(model.classes)} classes" + (f", not the same ones ({odd[0]})" if odd else ""),
                f"the {len(models[0].classes)} classes of {paths[0]}, in their order",
                "show models of one dataset in one grid",
            )
    return models


def cam_grid(
    models: Sequence[EfficientNetClassifier],
    pictures: Sequence[Path],
    name: str | None = None,
    method: str = "auto",
    overlay_only: bool = False,
) -> Image.Image:
    """Draw a row for each picture: the picture, then each model's map over it, with class, probability and MAdds.

    Args:
        models: Of the same classes.
        pictures: Files.
        name: The class whose maps these are; each model's most probable one if None.
        method: See `activation_maps`; `auto` takes the finer maps for all where one model needs them.
        overlay_only: Leave the first column out.

    Raises:
        UserError: Not a class of the models, a picture that does not decode, or a head without exact maps.
    """
    if name is not None and name not in models[0].classes:
        remedy = suggestion(name, models[0].classes, "choose a class of the model")
        raise UserError.of("cam --class", name, f"one of {len(models[0].classes)} classes", remedy)
    if method == "cam" and not all(has_exact_maps(model.net) for model in models):
        allowed = "gradcam, layercam or auto for a head that is not one linear or cosine layer"
        raise UserError.of("cam --method", method, allowed, "choose another method")
    if method == "auto" and any(look(model, pictures[:1], name)[0].method == FINE for model in models):
        method = FINE  # one method for all, or columns could not be compared
    rows: list[list[Tile]] = [[] for _ in pictures]
    for number, model in enumerate(models):
        counted = count(model.net, model.preprocessing.crop).madds
        for row, picture, seen in zip(rows, pictures, look(model, pictures, name, method), strict=True):
            if number == 0 and not overlay_only:
                row.append(Tile(seen.crop, (picture.name,)))
            row.append(labelled(seen, f"{amount(counted)} MAdds, {seen.method}"))
    titles = headings([model.net.scaling for model in models], [model.preprocessing.crop for model in models])
    return draw_grid(rows, titles if overlay_only else ["picture", *titles])


def headings(scalings: Sequence[Backbone], sizes: Sequence[int]) -> list[str]:
    """Name models as the paper's Figure 7 does: by what was scaled against the one that all others are larger than.

    Args:
        scalings: Their architectures.
        sizes: The inputs that they see, pixels.

    Returns:
        Two lines for each model: its title, and factors and size. The title is the architecture where no model is
        the smallest in depth, width and size, where all are alike, and for networks that are no EfficientNets.
    """
    measures = [(s.depth, s.width, size) for s, size in zip(scalings, sizes, strict=True)]
    least = tuple(map(min, zip(*measures, strict=True)))
    alike = all(isinstance(scaling, Scaling) for scaling in scalings)
    if not alike or least not in measures or len(set(measures)) == 1:
        return [f"{scaling.name}\n{size} px" for scaling, size in zip(scalings, sizes, strict=True)]
    titles = []
    for scaling, measure in zip(scalings, measures, strict=True):
        factors = {k: m / one for k, m, one in zip(_SCALED, measure, least, strict=True) if m > one}
        title = "baseline" if not factors else _SCALED[next(iter(factors))] if len(factors) == 1 else "compound"
        title += f" ({scaling.name})" * (scaling.name in ARCHS)
        details = [f"{measure[2]} px", *(f"{key}={factor:.3g}" for key, factor in factors.items())]
        titles.append(f"{title}\n{', '.join(details)}")
    return titles


def amount(madds: int) -> str:
    """Write a count with its thousands, millions or billions."""
    for power, letter in ((9, "B"), (6, "M"), (3, "K")):
        if madds >= 10**power:
            return f"{madds / 10**power:.3g}{letter}"
    return str(madds)
