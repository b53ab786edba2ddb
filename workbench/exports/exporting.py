"""`export(model, ...)`: write a model in other forms, open each in its own runtime, compare, keep what holds."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from workbench import __version__
from workbench.atomic import disk_errors, replacing
from workbench.data.transforms import normalise
from workbench.exports import formats
from workbench.exports.formats import FORMATS, Answers
from workbench.exports.opening import open_export
from workbench.exports.pictures import Pictures, pictures_for
from workbench.models.portable import load_model, read_description
from workbench.specs.errors import UserError

RECORD = "exports.json"
TOLERANCE = 1e-4
"""Largest difference of a probability that a float32 form may have; measured on B0: under 1e-5."""
AGREEMENT = 0.95
"""Least share of images on which an 8-bit form must name the same class; a choice of this project."""
COUNT = 200
_BATCH = 20


@dataclass(frozen=True)
class ExportOptions:
    """How to export.

    Args:
        takes_bytes: Put normalising inside: the input is uint8 RGB, resized and cropped.
        images: Pictures to compare on in place of the model's selection split.
        count: Images to compare on; as many others choose 8-bit ranges.
        tolerance: Largest difference of a probability for float32 forms.
        agreement: Least share of the same classes for 8-bit forms.
        overrides: Changes to the model's recipe, as `data.root=DIR`.
    """

    takes_bytes: bool = False
    images: tuple[Path, ...] = ()
    count: int = COUNT
    tolerance: float = TOLERANCE
    agreement: float = AGREEMENT
    overrides: tuple[str, ...] = ()


def export(
    model: str | Path, names: Sequence[str], out: Path, options: ExportOptions | None = None
) -> list[dict[str, Any]]:
    """Write a finished run or portable model in other forms; none stays that is not what the model computes.

    Args:
        model: A run folder or a model folder.
        names: Keys of `formats.FORMATS`.
        out: Where to; made if missing. exports.json in it tells of every form that was ever put there.
        options: The defaults if None.

    Returns:
        A row per form: `format`, `file`, `bytes`, `sha256`, `images`, `of`, `max_probability_difference`,
        `max_logit_difference`, `top1_agreement`, and what was written with it.

    Raises:
        UserError: A missing extra, no images, or a form that answers otherwise than the model.
    """
    options = options or ExportOptions()
    formats.check_installed(list(names))
    folder, description = read_description(model)
    net = load_model(folder)
    if options.takes_bytes and "safetensors" in names:
        given, remedy = "safetensors --with-preprocessing", "leave one of the two out"
        raise UserError.of("export", given, "a form that holds a computation", remedy)
    pictures = pictures_for(net, folder, options.images, options.count, options.overrides)
    facts = _facts(description, options.takes_bytes)
    expected = _logits(net, pictures.checked)
    answers = formats.answers_of(net, options.takes_bytes)
    rows = []
    with disk_errors(out):
        out.mkdir(parents=True, exist_ok=True)
        for name in names:
            with tempfile.TemporaryDirectory(dir=out, prefix=".export-") as beside:
                path = Path(beside) / FORMATS[name].file
                _write(name, answers, net, path, facts, pictures)
                row = _compared(name, path, pictures, expected, options)
                row |= {"model_sha256": description["sha256"], "workbench": __version__, "torch": torch.__version__}
                for part in sorted(Path(beside).iterdir()):
                    shutil.move(part, out / part.name)
            rows.append(row)
            _keep(out / RECORD, row)
    return rows


def _facts(description: dict[str, Any], takes_bytes: bool) -> dict[str, Any]:
    """Return what travels with a form: what the input is, what the outputs mean, where it came from."""
    told = {key: description[key] for key in ("task", "classes", "preprocessing")}
    return {
        **told,
        "takes_bytes": takes_bytes,
        "calibration": description.get("calibration"),
        "model": {**description, "provenance": {}},
    }


def _write(name: str, answers: Answers, net: Any, path: Path, facts: dict[str, Any], pictures: Pictures) -> None:
    if name == "safetensors":
        formats.write_safetensors(answers, path, facts, net)
    elif name == "int8":
        given = _inputs(net, pictures.calibration, answers.takes_bytes)
        formats.write_int8(answers, path, facts, [image[None] for image in given])
    else:
        formats.WRITERS[name](answers, path, facts)


def _inputs(net: Any, images: Tensor, takes_bytes: bool) -> np.ndarray:
    return (images if takes_bytes else normalise(images, net.preprocessing)).numpy()


@torch.inference_mode()
def _logits(net: Any, images: Tensor) -> Tensor:
    return torch.cat([net(normalise(part, net.preprocessing)) for part in images.split(_BATCH)])


def _compared(name: str, path: Path, pictures: Pictures, expected: Tensor, options: ExportOptions) -> dict[str, Any]:
    """Open a form again and compare its answers with the model's.

    Raises:
        UserError: They are further apart than allowed.
    """
    opened = open_export(path)
    parts = [_inputs_of(opened.facts, part) for part in pictures.checked.split(_BATCH)]
    found = torch.from_numpy(np.concatenate([opened.answer(part) for part in parts]))
    is_multi = opened.facts["task"] == "multi_label"
    shares = [logits.sigmoid() if is_multi else logits.softmax(1) for logits in (found, expected)]
    apart = float((shares[0] - shares[1]).abs().max())
    same = ((found > 0) == (expected > 0)).all(1) if is_multi else found.argmax(1) == expected.argmax(1)
    agreement = float(same.float().mean())
    row = {
        "format": name,
        "file": path.name,
        "bytes": sum(part.stat().st_size for part in path.parent.iterdir()),
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "with_preprocessing": bool(opened.facts["takes_bytes"]),
        "images": len(expected),
        "of": pictures.source,
        "max_probability_difference": apart,
        "max_logit_difference": float((found - expected).abs().max()),
        "top1_agreement": agreement,
    }
    rounded = FORMATS[name].is_rounded
    holds = agreement >= options.agreement if rounded else apart <= options.tolerance
    if not holds:  # also of what is not a number
        given = f"the same class on {agreement:.2%} of {len(expected)} images" if rounded else f"{apart:.2g} apart"
        allowed = (
            f"{options.agreement:.2%} or more" if rounded else f"probabilities at most {options.tolerance:g} apart"
        )
        remedy = "take another format; or allow more: " + ("--agreement" if rounded else "--tolerance")
        raise UserError.of(f"export {name}", given, allowed, remedy)
    return row


def _inputs_of(facts: dict[str, Any], images: Tensor) -> np.ndarray:
    """Return images as an opened form says that it takes them."""
    if facts["takes_bytes"]:
        return images.numpy()
    stated = facts["preprocessing"]
    mean, std = (torch.tensor(stated[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    return ((images / 255 - mean) / std).numpy()


def _keep(path: Path, row: dict[str, Any]) -> None:
    """Put a row into exports.json, in place of an earlier one of its format."""
    earlier: list[dict[str, Any]] = []
    if path.is_file():
        with_others = json.loads(path.read_text(encoding="utf-8"))
        earlier = [other for other in with_others if other["format"] != row["format"]]
    with replacing(path) as beside:
        beside.write_text(json.dumps([*earlier, row], indent=1) + "\n", encoding="utf-8")
