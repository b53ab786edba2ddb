"""Find, download, check and load weights; say which tensors were loaded, skipped and new.

Which weights are published is data, in `specs/weights.py`. Files are read without running code in them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError

import torch
from torch import Tensor

from workbench.hub_client import HubError, cache_folder, model_file
from workbench.models import portable
from workbench.models.compared import ComparedNet, renamed
from workbench.models.key_names import COUNTER, HEADS, STYLES, convert, module_names, style_of
from workbench.models.staged import StagedNet
from workbench.models.tensor_files import read_tensors
from workbench.models.transfer import transfer_tensors
from workbench.specs.architectures import ARCHS, Scaling, scaled_stages, top_channels
from workbench.specs.compared import Backbone
from workbench.specs.compared_weights import backbone_facts
from workbench.specs.errors import UserError
from workbench.specs.hub_weights import FILE
from workbench.specs.weights import TF_BN_EPS, TF_BN_MOMENTUM, WeightsEntry, is_file

EMBEDDED = Path(__file__).parent / "embedded"
TIMEOUT_SECONDS = 30.0
"""Silence of the hub after which it counts as stalled."""
MOST_LISTED = 10
"""Tensors named in an error, of each kind."""


@dataclass(frozen=True)
class LoadReport:
    """What became of each tensor.

    Args:
        source: Name or file of the weights.
        loaded: Keys that the model took over.
        skipped: Keys of the file that it did not: the head of another task.
        new: Keys of the model that keep their initialisation: its own head.
        read_as: What the model takes for granted of them: names, padding, BatchNorm epsilon.
        made: How they were made from those of another scaling, if they were.
    """

    source: str
    loaded: tuple[str, ...]
    skipped: tuple[str, ...]
    new: tuple[str, ...]
    read_as: str = ""
    made: str = ""

    def __str__(self) -> str:
        parts = [
            f"{len(self.loaded)} tensors loaded from {self.source}" + (f" ({self.read_as})" if self.read_as else "")
        ]
        if self.skipped:
            parts.append(f"{len(self.skipped)} skipped ({', '.join(self.skipped)})")
        if self.new:
            parts.append(f"{len(self.new)} new ({', '.join(self.new)})")
        if self.made:
            parts.append(self.made)
        return "; ".join(parts)


def facts_of_weights(weights: str | None, scaling: Backbone) -> WeightsEntry:
    """Return `backbone_facts`, or for a local file what is known of that very file.

    A portable model's own file has a `model.json` beside it that says everything. One with lukemelas' names is a port
    from TensorFlow, with its padding and BatchNorm. timm's names do not tell its two lines apart: such a file is taken
    for weights trained in PyTorch, unless the architecture's only ones are ports. A scaling of one's own takes what is
    known of the named architecture whose tensors they are, at its own resolution.

    Raises:
        UserError: Unknown weights, or a damaged file or description.
    """
    facts = backbone_facts(weights, scaling)
    if weights is None or not is_file(weights) or not Path(weights).is_file():
        return facts
    if Path(weights).name == portable.TENSORS and (Path(weights).parent / portable.DESCRIPTION).is_file():
        _, stated = portable.read_description(weights)
        network = {key: stated[key] for key in ("bn_eps", "bn_momentum", "padding")}
        preprocessing = portable.preprocessing_from(stated)
        if _is_custom(scaling) and stated["arch"]["name"] != scaling.name:
            preprocessing = preprocessing.at(scaling.resolution)
        return dataclasses.replace(facts, preprocessing=preprocessing, **network)
    tensors = read_tensors(Path(weights))
    if _is_custom(scaling) and (source := look_alike(tensors)):
        facts = backbone_facts(weights, source)
        facts = dataclasses.replace(facts, preprocessing=facts.preprocessing.at(scaling.resolution))
    if style_of(tensors) == "lukemelas":
        return dataclasses.replace(facts, bn_eps=TF_BN_EPS, bn_momentum=TF_BN_MOMENTUM, padding="same")
    return facts


def load_weights(model: StagedNet, weights: str) -> LoadReport:
    """Load pretrained weights into a model, in place. The backbone must fit whole; only a head may differ.

    An EfficientNet of the user's own scaling takes a named architecture's tensors too, see `transfer_tensors`.

    Args:
        model: The model.
        weights: `source/name`, or a .pth or .safetensors file (whole, or backbone only) with the tensor names of
            torchvision, timm or lukemelas/EfficientNet-PyTorch.

    Returns:
        Which tensors were loaded, skipped and new.

    Raises:
        UserError: Unknown name, missing or damaged file, failed download, or tensors of another architecture.
    """
    if is_file(weights):
        tensors = read_tensors(Path(weights))
    else:
        tensors = _published(backbone_facts(weights, model.scaling))
    own, made = model.state_dict(), ""
    if isinstance(model, ComparedNet):
        style, named = "its library", renamed(tensors, model.scaling)
    else:
        style = style_of(tensors) or "torchvision"
        source = (look_alike(tensors) if _is_custom(model.scaling) else None) or model.scaling
        named = convert(tensors, source, style, "torchvision")
        if source is not model.scaling:
            named, report = transfer_tensors(named, source, model.scaling, own)
            made = str(report)
    backbone = {name for name in own if name.startswith("features.")}
    _check_fit(weights, tensors, named, {name: own[name] for name in own if name in backbone}, model.scaling.name)
    head = [name for name in own if name not in backbone]
    same_head = all(name in named and named[name].shape == own[name].shape for name in head)
    taken = {name for name in own if name in named and (name in backbone or same_head)}
    model.load_state_dict({name: named[name] for name in taken}, strict=False)
    eps = model.batchnorm.eps
    return LoadReport(
        source=weights,
        loaded=tuple(name for name in own if name in taken),
        skipped=tuple(name for name in named if name not in taken),
        new=() if same_head else tuple(head),
        read_as=f"names of {style}, {model.padding} padding, BatchNorm epsilon {eps:g}",
        made=made,
    )


def _check_fit(
    weights: str, tensors: Mapping[str, Tensor], named: Mapping[str, Tensor], backbone: Mapping[str, Tensor], arch: str
) -> None:
    """Raise UserError, with the tensors listed, unless a file has the whole backbone and nothing else but a head."""
    kinds = {
        "missing": [n for n in backbone if n not in named and not n.endswith(COUNTER)],
        "of another shape": [
            f"{n} {tuple(named[n].shape)} for {tuple(tensor.shape)}"
            for n, tensor in backbone.items()
            if n in named and named[n].shape != tensor.shape
        ],
        "unknown": [n for n in named if n not in backbone and not n.startswith("classifier.")],
    }
    if any(kinds.values()):
        listed = [f"{len(found)} {kind} ({_some(found)})" for kind, found in kinds.items() if found]
        raise UserError.of(
            "model.weights",
            f"{weights}: of {len(backbone)} backbone tensors, {'; '.join(listed)}",
            f"weights of {arch} with the names of {', '.join(STYLES)}",
            _advice(tensors),
        )


def _some(names: Sequence[str]) -> str:
    more = len(names) - MOST_LISTED
    return ", ".join(names[:MOST_LISTED]) + (f" and {more} more" if more > 0 else "")


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
    if entry.repository:
        return _from_hub(entry)
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


def _from_hub(entry: WeightsEntry) -> dict[str, Tensor]:
    """Return tensors from the hub or its cache."""
    commit = f" --revision {entry.revision}" if entry.revision else ""
    try:
        file = model_file(entry.repository, FILE, entry.revision, entry.sha256_prefix, TIMEOUT_SECONDS)
    except HubError as error:
        raise UserError.of(
            "model.weights",
            f"{entry.name} for {entry.arch}: {error}",
            f"{FILE} of {entry.repository} on the hub" + (f" at {entry.revision}" if entry.revision else ""),
            f"try again, or run `hf download {entry.repository} {FILE}{commit}` where the hub can be reached and bring "
            f"the folder that it makes into {cache_folder()}",
        ) from error
    return read_tensors(file)


def _is_custom(scaling: Backbone) -> bool:
    return isinstance(scaling, Scaling) and scaling.name not in ARCHS


def look_alike(tensors: Mapping[str, Tensor]) -> Scaling | None:
    """Return the named architecture whose backbone has modules of these names and widths, or None."""
    style = style_of(tensors)
    modules = {name.rpartition(".")[0] for name in tensors if not name.startswith(HEADS)}
    for scaling in ARCHS.values() if style else ():
        stem, _, top, *_ = names = module_names(scaling, style)
        if modules == {module for module in names if not module.startswith(HEADS)}:
            widths = tensors[f"{stem}.weight"].shape[0], tensors[f"{top}.weight"].shape[0]
            if widths == (scaled_stages(scaling)[0].in_channels, top_channels(scaling)):
                return scaling
    return None


def _advice(tensors: Mapping[str, Tensor]) -> str:
    """Name the architecture that tensors belong to, if one fits."""
    if found := look_alike(tensors):
        return f"these look like {found.name}: set model.arch={found.name}"
    return "give weights of this architecture, or model.weights=none"
