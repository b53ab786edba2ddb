"""Find, download, check and load weights; say which tensors were loaded, skipped and new.

Which weights are published is data, in `specs/weights.py`. Files are read without running code in them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError

import torch
from torch import Tensor

from workbench.models import portable
from workbench.models.efficientnet import EfficientNet
from workbench.models.tensor_files import read_tensors
from workbench.specs.architectures import ARCHS, Scaling, scaled_stages, top_channels
from workbench.specs.errors import UserError
from workbench.specs.weights import WeightsEntry, facts_of, find_weights, is_file

EMBEDDED = Path(__file__).parent / "embedded"


@dataclass(frozen=True)
class LoadReport:
    """What became of each tensor.

    Args:
        source: Name or file of the weights.
        loaded: Keys that the model took over.
        skipped: Keys of the file that it did not: the head of another task.
        new: Keys of the model that keep their initialisation: its own head.
    """

    source: str
    loaded: tuple[str, ...]
    skipped: tuple[str, ...]
    new: tuple[str, ...]

    def __str__(self) -> str:
        parts = [f"{len(self.loaded)} tensors loaded from {self.source}"]
        if self.skipped:
            parts.append(f"{len(self.skipped)} skipped ({', '.join(self.skipped)})")
        if self.new:
            parts.append(f"{len(self.new)} new ({', '.join(self.new)})")
        return "; ".join(parts)


def facts_of_weights(weights: str | None, scaling: Scaling) -> WeightsEntry:
    """Return `facts_of`, or for a portable model's own file what the `model.json` beside it says.

    Raises:
        UserError: Unknown weights, or a damaged description.
    """
    facts = facts_of(weights, scaling)
    if weights is None or Path(weights).name != portable.TENSORS or not is_file(weights):
        return facts
    if not (Path(weights).parent / portable.DESCRIPTION).is_file():
        return facts
    _, stated = portable.read_description(weights)
    batchnorm = {key: stated[key] for key in ("bn_eps", "bn_momentum")}
    return dataclasses.replace(facts, preprocessing=portable.preprocessing_from(stated), **batchnorm)


def load_weights(model: EfficientNet, weights: str) -> LoadReport:
    """Load pretrained weights into a model, in place. The backbone must fit whole; only a head may differ.

    Args:
        model: The model.
        weights: `source/name`, or a .pth or .safetensors file with torchvision's keys (whole, or backbone only).

    Returns:
        Which tensors were loaded, skipped and new.

    Raises:
        UserError: Unknown name, missing or damaged file, failed download, or tensors of another architecture.
    """
    if is_file(weights):
        tensors = read_tensors(Path(weights))
    else:
        tensors = _published(find_weights(weights, model.scaling.name))
    own = model.state_dict()
    backbone = {name for name in own if name.startswith("features.")}
    wrong = [n for n in backbone if n not in tensors or tensors[n].shape != own[n].shape]
    foreign = [n for n in tensors if n not in own and not n.startswith("classifier.")]
    if wrong or foreign:
        raise UserError.of(
            "model.weights",
            f"{weights}: {len(wrong)} of {len(backbone)} backbone tensors missing or of another shape, "
            f"{len(foreign)} unknown (such as {', '.join(sorted(wrong + foreign)[:2])})",
            f"weights of {model.scaling.name} with torchvision's keys",
            _advice(tensors),
        )
    same_head = all(n in tensors and tensors[n].shape == own[n].shape for n in own if n not in backbone)
    taken = set(own) if same_head else backbone
    model.load_state_dict({name: tensors[name] for name in taken}, strict=False)
    return LoadReport(
        source=weights,
        loaded=tuple(name for name in own if name in taken),
        skipped=tuple(name for name in tensors if name not in taken),
        new=tuple(name for name in own if name not in taken),
    )


def _published(entry: WeightsEntry) -> dict[str, Tensor]:
    """Return published tensors, from the package, the cache or the network."""
    if "://" not in entry.url:
        path = EMBEDDED / entry.url
        tensors = read_tensors(path)
        if not hashlib.sha256(path.read_bytes()).hexdigest().startswith(entry.sha256_prefix):
            raise UserError.of(
                "model.weights", f"{path} is not the file it was", entry.sha256_prefix, "install the package again"
            )
        return tensors
    cache = Path(torch.hub.get_dir()) / "checkpoints"
    try:
        # Downloads beside, checks the hash prefix in the file's name, then renames.
        return torch.hub.load_state_dict_from_url(
            entry.url, model_dir=os.fspath(cache), map_location="cpu", check_hash=True, weights_only=True
        )
    except (URLError, OSError, RuntimeError, pickle.UnpicklingError) as error:
        raise UserError.of(
            "model.weights",
            f"{entry.name} for {entry.arch}: {error}",
            f"{entry.url} (SHA-256 begins {entry.sha256_prefix})",
            f"put that file into {cache}, or give model.weights=FILE",
        ) from error


def _advice(tensors: Mapping[str, Tensor]) -> str:
    """Name the architecture that tensors belong to, if one fits."""
    stem, top = tensors.get("features.0.0.weight"), tensors.get("features.8.0.weight")
    if stem is not None and top is not None:
        blocks = len({tuple(name.split(".")[1:3]) for name in tensors if name.startswith("features.")}) - 4
        for name, scaling in ARCHS.items():
            stages = scaled_stages(scaling)
            fits = (stem.shape[0], top.shape[0]) == (stages[0].in_channels, top_channels(scaling))
            if fits and blocks == sum(stage.repeats for stage in stages):
                return f"these look like {name}: set model.arch={name}"
    return "give weights of this architecture, or model.weights=none"
