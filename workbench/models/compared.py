"""Build the networks that the paper compares with, cut into stages like an EfficientNet.

They come from torchvision, from timm (the extra `compare`), or from `scaled_nets.py` and `amoebanet.py`; facts are in
`specs/compared.py`.
"""

from __future__ import annotations

import itertools
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torchvision import models

from workbench.models import scaled_nets
from workbench.models.amoebanet import AmoebaNet
from workbench.models.heads import build_head
from workbench.models.staged import StagedNet
from workbench.specs.amoeba_cells import DESIGNS
from workbench.specs.compared import FAMILIES, ComparedArch, option_problems, resolve_backbone
from workbench.specs.errors import UserError

_OWN: dict[str, Callable[..., nn.Module]] = {
    "mobilenet_v1": scaled_nets.MobileNetV1,
    "mobilenet_v2": scaled_nets.mobilenet_v2,
    "resnet50": scaled_nets.ScaledResNet,
    **{name: partial(AmoebaNet, name) for name in DESIGNS},
}


class ComparedNet(StagedNet):
    """A network that the paper compares with, its own classifier replaced by one of ours.

    Args:
        arch: What `resolve_backbone` takes, of one of `FAMILIES`.
        num_classes: Outputs of the head.
        head: `linear`, `mlp`, `cosine` or `none`.
        dropout: Dropout before the head; the family's if None.
        drop_path: 0: these are built without stochastic depth.
        bn_eps: BatchNorm epsilon; the family's if None.
        bn_momentum: BatchNorm statistics momentum, PyTorch's sense; as its library builds it if None.
        padding: `symmetric`: these are built as their library pads them.

    Raises:
        UserError: timm is needed and not installed, or an option that only EfficientNets have.
    """

    def __init__(
        self,
        arch: str | dict[str, Any] | ComparedArch,
        num_classes: int = 1000,
        head: str = "linear",
        dropout: float | None = None,
        drop_path: float = 0.0,
        bn_eps: float | None = None,
        bn_momentum: float | None = None,
        padding: str = "symmetric",
    ):
        scaling = arch if isinstance(arch, ComparedArch) else resolve_backbone(arch)
        if not isinstance(scaling, ComparedArch):
            raise ValueError(f"{scaling.name} is an EfficientNet: build it with models.efficientnet")
        problems = option_problems(scaling.name, drop_path, padding)
        if problems:
            raise UserError(*problems)
        super().__init__(FAMILIES[scaling.family].stages)
        self.scaling = scaling
        self.dropout = scaling.dropout if dropout is None else dropout
        self.drop_path, self.padding = drop_path, padding
        self.features, self.num_features = cut(whole_network(scaling))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = build_head(head, self.num_features, num_classes, self.dropout)
        for module in self.features.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eps = module.eps if bn_eps is None else bn_eps
                module.momentum = module.momentum if bn_momentum is None else bn_momentum


def whole_network(scaling: ComparedArch) -> nn.Module:
    """Build a network as its library has it, with its own classifier of 1000 outputs and random weights.

    Raises:
        UserError: timm is needed and not installed.
    """
    family = FAMILIES[scaling.family]
    if family.library == "own":
        return _OWN[family.name](scaling.width, scaling.depth)
    if family.name == "densenet264":  # torchvision has the class, not the configuration: Huang et al., Table 1
        return models.DenseNet(growth_rate=32, block_config=(6, 12, 64, 48), num_init_features=64)
    if family.name == "inception_v3":  # without its auxiliary classifier: the paper's 24M
        return models.Inception3(aux_logits=False, init_weights=True)
    if family.library == "torchvision":
        return models.get_model(family.factory, weights=None)
    try:
        import timm
    except ImportError as error:
        raise UserError.of(
            "model.arch",
            f"{family.name}, but timm is not installed",
            "the extra `compare`, for networks outside torchvision",
            "pip install '.[compare]'",
        ) from error
    return timm.create_model(family.factory, pretrained=False)


def cut(whole: nn.Module) -> tuple[nn.Sequential, int]:
    """Cut a network into its stages before pooling; they share its tensors.

    Returns:
        The stages, and the number of pooled features.
    """
    if isinstance(whole, models.ResNet | scaled_nets.ScaledResNet):
        stem = nn.Sequential(whole.conv1, whole.bn1, whole.relu, whole.maxpool)
        parts = [stem, whole.layer1, whole.layer2, whole.layer3, whole.layer4]
    elif isinstance(whole, models.DenseNet):
        parts = _split(whole.features, ("transition1", "transition2", "transition3"), "denseblock1")
        parts[-1].append(nn.ReLU())
    elif isinstance(whole, models.Inception3):
        layers = OrderedDict((name, layer) for name, layer in whole.named_children() if name not in _INCEPTION_HEAD)
        parts = _split(layers, ("Mixed_5b", "Mixed_6a", "Mixed_7a"), "Conv2d_3b_1x1")
    elif isinstance(whole, models.MobileNetV2):
        parts = _mobilenet_v2_parts(whole)
    elif isinstance(whole, scaled_nets.MobileNetV1 | AmoebaNet):
        parts = list(whole.features)
    else:
        num_features = whole.num_features
        whole.reset_classifier(0, "")
        return nn.Sequential(whole), num_features
    return nn.Sequential(*parts), last_linear(whole)[1].in_features


_INCEPTION_HEAD = ("AuxLogits", "avgpool", "dropout", "fc")


def _split(layers: Any, starts: tuple[str, ...], first: str) -> list[nn.Sequential]:
    """Divide named layers into a stem, and stages that begin at `first` and at each of `starts`."""
    parts: list[nn.Sequential] = [nn.Sequential()]
    for name, layer in layers.items() if isinstance(layers, Mapping) else layers.named_children():
        if name in (first, *starts):
            parts.append(nn.Sequential())
        parts[-1].append(layer)
    return parts


def _mobilenet_v2_parts(whole: nn.Module) -> list[nn.Module]:
    """Divide into stem, seven stages and the last 1x1 convolution."""
    blocks = iter(whole.features)
    stem = next(blocks)
    stages = [nn.Sequential(*itertools.islice(blocks, repeats)) for repeats in whole.stage_repeats]
    return [stem, *stages, next(blocks)]


def last_linear(whole: nn.Module) -> tuple[str, nn.Linear]:
    """Return the name and the module of a network's own classifier."""
    return [(name, module) for name, module in whole.named_modules() if isinstance(module, nn.Linear)][-1]


_OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|conv))\.(\d)")
"""torchvision's DenseNet files are older than its modules' names: norm.1 is now norm1."""


def renamed(tensors: Mapping[str, Tensor], scaling: ComparedArch) -> dict[str, Tensor]:
    """Give tensors with a library's own names those that `ComparedNet` has; others keep their names.

    Args:
        tensors: By the names of `whole_network`.
        scaling: The network that they belong to.
    """
    with torch.device("meta"):
        whole = whole_network(scaling)
        head = last_linear(whole)[0]
        # the same tensor before and after cutting: two names of one place
        before = {name: id(tensor) for name, tensor in whole.state_dict(keep_vars=True).items()}
        features, _ = cut(whole)
    after = {id(tensor): f"features.{name}" for name, tensor in features.state_dict(keep_vars=True).items()}
    names = {name: after[place] for name, place in before.items() if place in after}
    names |= {f"{head}.weight": "classifier.1.weight", f"{head}.bias": "classifier.1.bias"}
    plain = {_OLD_DENSENET.sub(r"\1\2", name): tensor for name, tensor in tensors.items()}
    return {names.get(name, name): tensor for name, tensor in plain.items() if not name.startswith("AuxLogits.")}
