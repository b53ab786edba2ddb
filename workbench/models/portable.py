"""The portable model: `model.safetensors` + `model.json`, loadable with neither lightning nor wandb installed.

The JSON carries what the tensors cannot: architecture, classes, preprocessing and where the model came from.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from workbench.atomic import replacing
from workbench.models.backbones import build_backbone
from workbench.models.description import check_description
from workbench.models.model_sources import DESCRIPTION, TENSORS, fitting_classes, local_path
from workbench.models.staged import StagedNet
from workbench.models.tensor_files import read_tensors, save_tensors
from workbench.specs.compared import backbone_from
from workbench.specs.errors import UserError
from workbench.specs.weights import Preprocessing

FORMAT = 1
_KEYS = (
    *("arch", "head", "task", "num_classes", "classes", "bn_eps", "bn_momentum", "dropout", "drop_path"),
    *("preprocessing", "sha256", "provenance"),
)


def save_model(
    folder: Path,
    model: StagedNet,
    *,
    head: str,
    task: str,
    classes: tuple[str, ...],
    preprocessing: Preprocessing,
    provenance: dict[str, Any],
    calibration: dict[str, Any] | None = None,
) -> None:
    """Write both files, each whole or not at all.

    Args:
        folder: Where to; made if missing.
        model: The network.
        head: Its head's name, or `custom`.
        task: `single_label` or `multi_label`.
        classes: Class names; the index is the output.
        preprocessing: How pictures become its input.
        provenance: Plain values: recipe, weights, dataset, scores, versions.
        calibration: `{"temperature", "n", ...}`: what its logits are divided by to be believed, where that is known.
    """
    folder.mkdir(parents=True, exist_ok=True)
    save_tensors(folder / TENSORS, model.state_dict())
    batchnorm = model.batchnorm
    description = {
        "format": FORMAT,
        "arch": dataclasses.asdict(model.scaling),
        "head": head,
        "task": task,
        "num_classes": len(classes),
        "classes": list(classes),
        "bn_eps": batchnorm.eps,
        "bn_momentum": batchnorm.momentum,
        "padding": model.padding,
        "dropout": model.dropout,
        "drop_path": model.drop_path,
        "preprocessing": dataclasses.asdict(preprocessing),
        "sha256": hashlib.sha256((folder / TENSORS).read_bytes()).hexdigest(),
        "provenance": provenance,
        **({"calibration": calibration} if calibration else {}),
    }
    with replacing(folder / DESCRIPTION) as beside:
        beside.write_text(json.dumps(description, indent=1), encoding="utf-8")


def read_description(path: str | Path) -> tuple[Path, dict[str, Any]]:
    """Find a portable model and read its description.

    Args:
        path: A run folder, a folder with both files, or either file; `hub:owner/name[@revision]` or
            `wandb:entity/project/name[:alias]`, which are fetched.

    Returns:
        The folder and the parsed `model.json`.

    Raises:
        UserError: No model there, or a damaged description.
    """
    path = local_path(path)
    folder = path if path.is_dir() else path.parent
    missing = [name for name in (TENSORS, DESCRIPTION) if not (folder / name).is_file()]
    if not path.exists() or missing:
        raise UserError.of(
            "model",
            f"{path}: " + (f"no {' and no '.join(missing)}" if path.exists() else "no such file or folder"),
            f"a finished run folder, or a folder with {TENSORS} and {DESCRIPTION}",
            "check the path; an unfinished run can be continued with `fit --resume RUN`",
        )
    try:
        description = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
        made_by = description.get("format") if isinstance(description, dict) else None
        if isinstance(made_by, int) and made_by > FORMAT:
            given = f"format {made_by}, of a newer workbench"
            remedy = "pip install -U efficientnet-workbench"
            raise UserError.of(folder / DESCRIPTION, given, f"format {FORMAT}, which this one reads", remedy)
        if made_by != FORMAT:
            raise ValueError("not such a description")
        lacking = [key for key in _KEYS if key not in description]
        if lacking:
            raise ValueError(f"no {', '.join(lacking)} in it")
        description.setdefault("padding", "symmetric")  # older files do not say
        check_description(description)
    except (ValueError, OSError, RecursionError) as error:
        raise UserError.of(
            folder / DESCRIPTION, error, f"a description of format {FORMAT}", "save the model again"
        ) from error
    return folder, description


def preprocessing_from(description: dict[str, Any]) -> Preprocessing:
    """Return the preprocessing that a description states."""
    stated = description["preprocessing"]
    return Preprocessing(**{**stated, "mean": tuple(stated["mean"]), "std": tuple(stated["std"])})


def load_model(
    path: str | Path, head: nn.Module | None = None, classes: Sequence[str] | Mapping[str, str] | None = None
) -> StagedNet:
    """Load a portable model as a plain module in evaluation mode.

    Args:
        path: What `read_description` takes.
        head: The module to put the head's tensors into, for a model that was saved with a head of the user's own.

        classes: The model's class names, to be sure of them; or a map from old names to new ones.

    Returns:
        The network, with attributes `classes` (tuple of names), `preprocessing`, `provenance` and `calibration`.

    Raises:
        UserError: Missing or damaged files, a server that does not give them, or classes that are not the model's.
    """
    folder, description = read_description(path)
    tensors = read_tensors(folder / TENSORS, "model")
    if hashlib.sha256((folder / TENSORS).read_bytes()).hexdigest() != description["sha256"]:
        raise UserError.of(
            folder / TENSORS,
            "not the file that its description was written for (SHA-256 differs)",
            description["sha256"],
            f"bring {TENSORS} and {DESCRIPTION} of the same model together",
        )
    if description["head"] == "custom" and head is None:
        raise UserError.of(folder, "a head of the user's own", "load_model(path, head=module)", "give the head")
    build = functools.partial(
        build_backbone,
        backbone_from(description["arch"]),
        description["num_classes"],
        "none" if head is not None else description["head"],
        bn_eps=description["bn_eps"],
        bn_momentum=description["bn_momentum"],
        padding=description["padding"],
        dropout=description["dropout"],
        drop_path=description["drop_path"],
    )
    with torch.device("meta"):  # no memory is taken by the word of a description alone
        shapes = {name: tensor.shape for name, tensor in build().state_dict().items()}
    odd = [name for name, shape in shapes.items() if name not in tensors or tensors[name].shape != shape]
    odd += [] if head is not None else [name for name in tensors if name not in shapes]
    if odd:
        given = f"{len(odd)} tensors that do not fit {DESCRIPTION}, such as {odd[0]:.80}"
        raise UserError.of(folder / TENSORS, given, "the tensors of that model", "save the model again")
    model = build()
    if head is not None:
        model.replace_head(head)
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        given = f"a head of other tensors: {' '.join(str(error).split())[:300]}"
        raise UserError.of(
            folder / TENSORS, given, "the head that the model was saved with", "give that head"
        ) from error
    model.classes = fitting_classes(description["classes"], classes)
    model.preprocessing = preprocessing_from(description)
    model.provenance = description["provenance"]
    model.calibration = description.get("calibration")
    return model.eval()
