"""Build any backbone that `model.arch` can name: an EfficientNet at any scaling, or a network it is compared with."""

from __future__ import annotations

from typing import Any

from workbench.models.compared import ComparedNet
from workbench.models.efficientnet import EfficientNet
from workbench.models.staged import StagedNet
from workbench.specs.compared import Backbone, ComparedArch, resolve_backbone


def build_backbone(
    arch: str | dict[str, Any] | Backbone, num_classes: int = 1000, head: str = "linear", **network: Any
) -> StagedNet:
    """Build a network with random weights.

    Args:
        arch: What `resolve_backbone` takes, or what it returned.
        num_classes: Outputs of the head.
        head: `linear`, `mlp`, `cosine` or `none`.
        network: `dropout`, `drop_path`, `bn_eps`, `bn_momentum` and `padding`, as in `EfficientNet`.

    Raises:
        UserError: Unknown architecture, an option that it has not, or its library is not installed.
    """
    backbone = resolve_backbone(arch) if isinstance(arch, str | dict) else arch
    family = ComparedNet if isinstance(backbone, ComparedArch) else EfficientNet
    return family(backbone, num_classes, head, **network)
