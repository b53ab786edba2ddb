"""EfficientNet at any scaling, on torchvision's blocks and with torchvision's parameter names.

Numbers come from `specs/architectures.py`; weights are loaded by `weights.py`; heads are in `heads.py`.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

import torch
from torch import Tensor, nn
from torchvision.models.efficientnet import EfficientNet as TorchvisionEfficientNet
from torchvision.models.efficientnet import MBConvConfig

from workbench.models.heads import build_head
from workbench.specs.architectures import STAGE_NAMES, Scaling, resolve_arch, scaled_stages, top_channels
from workbench.specs.weights import TF_BN_EPS, TF_BN_MOMENTUM


class EfficientNet(nn.Module):
    """A scaled EfficientNet (Tan & Le 2019, Table 1 and section 3.3) with a swappable head.

    Its `state_dict` has torchvision's keys: `features.0...8` and, for a linear head, `classifier.1`.
    A frozen stage stays frozen through every later `train()` call: no gradients, and BatchNorm in evaluation mode.

    Args:
        arch: Name or numbers, see `resolve_arch`.
        num_classes: Outputs of the head.
        head: `linear`, `mlp`, `cosine` or `none`.
        dropout: Dropout before the head; the architecture's if None.
        drop_path: Stochastic depth: block i of N is dropped at rate drop_path * i / N.
        bn_eps: BatchNorm epsilon; the default is TensorFlow's, as in the paper's own training.
        bn_momentum: BatchNorm statistics momentum, PyTorch's sense.
    """

    def __init__(
        self,
        arch: str | dict[str, float] | Scaling = "b0",
        num_classes: int = 1000,
        head: str = "linear",
        dropout: float | None = None,
        drop_path: float = 0.2,
        bn_eps: float = TF_BN_EPS,
        bn_momentum: float = TF_BN_MOMENTUM,
    ):
        super().__init__()
        self.scaling = arch if isinstance(arch, Scaling) else resolve_arch(arch)
        settings = [
            MBConvConfig(s.expand, s.kernel, s.stride, s.in_channels, s.out_channels, s.repeats)
            for s in scaled_stages(self.scaling)
        ]
        self.num_features = top_channels(self.scaling)
        self.dropout = self.scaling.dropout if dropout is None else dropout
        self.drop_path = drop_path
        built = TorchvisionEfficientNet(
            settings,
            dropout=0.0,
            stochastic_depth_prob=drop_path,
            num_classes=1,
            norm_layer=partial(nn.BatchNorm2d, eps=bn_eps, momentum=bn_momentum),
            last_channel=self.num_features,
        )
        self.features = built.features
        self.avgpool = built.avgpool
        self.classifier = build_head(head, self.num_features, num_classes, self.dropout)
        self._frozen: frozenset[str] = frozenset()
        self._frozen_bn = False

    @property
    def stages(self) -> dict[str, nn.Module]:
        """The network cut into `stem`, `stage1`...`stage7`, `top` and `head`, input first; nothing is left out."""
        return dict(zip(STAGE_NAMES, (*self.features, self.classifier), strict=True))

    def embed(self, images: Tensor) -> Tensor:
        """Return pooled features: (N, 3, H, W) float32, normalised -> (N, num_features)."""
        maps = self.features(images)  # (N, C, H/32, W/32)
        return torch.flatten(self.avgpool(maps), 1)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits: (N, 3, H, W) float32, normalised -> (N, num_classes)."""
        return self.classifier(self.embed(images))

    def replace_head(self, head: nn.Module) -> None:
        """Put another module on the pooled features; it takes (N, num_features)."""
        self.classifier = head
        self.freeze(self._frozen)

    def freeze(self, stages: Iterable[str], *, bn_everywhere: bool | None = None) -> None:
        """Freeze exactly these stages and unfreeze all others.

        Frozen means: no gradients, and BatchNorm keeps its running statistics bit for bit.

        Args:
            stages: Names out of `STAGE_NAMES`; empty unfreezes everything.
            bn_everywhere: Keep BatchNorm statistics fixed in the trained stages too; None leaves that as it is.

        Raises:
            ValueError: Not a stage's name.
        """
        wanted = frozenset(stages)
        unknown = wanted - set(STAGE_NAMES)
        if unknown:
            raise ValueError(f"no such stages: {sorted(unknown)}; there are {', '.join(STAGE_NAMES)}")
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

    def train(self, mode: bool = True) -> EfficientNet:
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


def stages_before(first_trained: str) -> tuple[str, ...]:
    """Return the stages to freeze so that `first_trained` and everything up to the head train.

    Args:
        first_trained: A stage's name, or `all` for none frozen.

    Raises:
        ValueError: Not a stage's name.
    """
    if first_trained == "all":
        return ()
    if first_trained not in STAGE_NAMES:
        raise ValueError(f"no such stage: {first_trained}; there are all, {', '.join(STAGE_NAMES)}")
    return STAGE_NAMES[: STAGE_NAMES.index(first_trained)]
