"""What every backbone here can do: be cut into named stages, freeze them, give pooled features, take another head."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from workbench.specs.architectures import STAGE_NAMES
from workbench.specs.weights import Preprocessing


class StagedNet(nn.Module):
    """A network of `features` (one child per stage), `avgpool` and `classifier`, which its subclass builds.

    A frozen stage stays frozen through every later `train()` call: no gradients, and BatchNorm in evaluation mode.

    Args:
        stage_names: The children of `features` and the head, input first.
    """

    features: nn.Sequential
    avgpool: nn.Module
    classifier: nn.Module
    num_features: int
    # of a loaded model, see `portable.load_model`:
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    provenance: dict[str, Any]
    calibration: dict[str, Any] | None

    def __init__(self, stage_names: Sequence[str]):
        super().__init__()
        self.stage_names = tuple(stage_names)
        self._frozen: frozenset[str] = frozenset()
        self._frozen_bn = False

    @property
    def stages(self) -> dict[str, nn.Module]:
        """The network cut into its stages and `head`, input first; nothing is left out."""
        return dict(zip(self.stage_names, (*self.features, self.classifier), strict=True))

    @property
    def batchnorm(self) -> nn.BatchNorm2d:
        """The first BatchNorm; all have its epsilon and momentum."""
        return next(module for module in self.features.modules() if isinstance(module, nn.BatchNorm2d))

    def embed(self, images: Tensor) -> Tensor:
        """Return pooled features: (N, 3, H, W) float32, normalised -> (N, num_features)."""
        maps = self.features(images)  # (N, C, H/32, W/32)
        return torch.flatten(self.avgpool(maps), 1)

    def embed_stage(self, images: Tensor, stage: str) -> Tensor:
        """Return the pooled output of a stage before the head: (N, 3, H, W) float32, normalised -> (N, C)."""
        maps = self.features[: self.stage_names.index(stage) + 1](images)
        return torch.flatten(self.avgpool(maps), 1)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits: (N, 3, H, W) float32, normalised; or (N, num_features) as from `embed` -> (N, num_classes)."""
        return self.classifier(images if images.ndim == 2 else self.embed(images))

    def replace_head(self, head: nn.Module) -> None:
        """Put another module on the pooled features; it takes (N, num_features)."""
        self.classifier = head
        self.freeze(self._frozen)

    def freeze(self, stages: Iterable[str], *, bn_everywhere: bool | None = None) -> None:
        """Freeze exactly these stages and unfreeze all others.

        Frozen means: no gradients, and BatchNorm keeps its running statistics bit for bit.

        Args:
            stages: Names out of `stage_names`; empty unfreezes everything.
            bn_everywhere: Keep BatchNorm statistics fixed in the trained stages too; None leaves that as it is.

        Raises:
            ValueError: Not a stage's name.
        """
        wanted = frozenset(stages)
        unknown = wanted - set(self.stage_names)
        if unknown:
            raise ValueError(f"no such stages: {sorted(unknown)}; there are {', '.join(self.stage_names)}")
        self._frozen = wanted
        if bn_everywhere is not None:
            self._frozen_bn = bn_everywhere
        for name, module in self.stages.items():
            module.requires_grad_(name not in wanted)
        self.train(self.training)

    def unfreeze(self) -> None:
        """Train every stage."""
        self.freeze(())

    @property
    def frozen(self) -> frozenset[str]:
        """Names of the frozen stages."""
        return self._frozen

    def train(self, mode: bool = True) -> Self:
        """Set training mode everywhere but in frozen stages (and frozen BatchNorms), which stay in evaluation."""
        super().train(mode)
        if mode:
            for name, module in self.stages.items():
                if name in self._frozen:
                    module.eval()
            if self._frozen_bn:
                for module in self.features.modules():
                    if isinstance(module, nn.BatchNorm2d):
                        module.eval()
        return self


def stages_before(first_trained: str, stage_names: Sequence[str] = STAGE_NAMES) -> tuple[str, ...]:
    """Return the stages to freeze so that `first_trained` and everything up to the head train.

    Args:
        first_trained: A stage's name, or `all` for none frozen.
        stage_names: The network's stages, input first.

    Raises:
        ValueError: Not a stage's name.
    """
    if first_trained == "all":
        return ()
    if first_trained not in stage_names:
        raise ValueError(f"no such stage: {first_trained}; there are all, {', '.join(stage_names)}")
    return tuple(stage_names[: stage_names.index(first_trained)])
