"""EfficientNet at any scaling, on torchvision's blocks and with torchvision's parameter names.

Numbers come from `specs/architectures.py`; weights are loaded by `weights.py`; heads are in `heads.py`.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.efficientnet import EfficientNet as TorchvisionEfficientNet
from torchvision.models.efficientnet import MBConvConfig

from workbench.models.heads import build_head
from workbench.models.recompute import recomputed
from workbench.models.staged import StagedNet
from workbench.models.staged import stages_before as stages_before
from workbench.specs.architectures import STAGE_NAMES, Scaling, resolve_arch, scaled_stages, top_channels
from workbench.specs.weights import PADDINGS, TF_BN_EPS, TF_BN_MOMENTUM


class SameConv2d(nn.Conv2d):
    """A convolution with TensorFlow's SAME padding: ceil(size / stride) outputs, an odd pixel of padding at the end."""

    def forward(self, maps: Tensor) -> Tensor:
        """Convolve: (N, C, H, W) -> (N, C', ceil(H / stride), ceil(W / stride))."""
        edges: list[int] = []
        sizes = zip(maps.shape[-2:], self.kernel_size, self.stride, strict=True)
        for size, kernel, stride in reversed(list(sizes)):  # `pad` wants the last dimension first
            missing = max(kernel - (size % stride or stride), 0)
            edges += [missing // 2, missing - missing // 2]
        return self._conv_forward(functional.pad(maps, edges), self.weight, self.bias)


def _pad_as_tensorflow(layers: nn.Module) -> None:
    """Replace the strided convolutions; at stride 1 and an odd kernel, SAME is the symmetric padding."""
    for module in list(layers.modules()):
        for name, conv in module.named_children():
            if isinstance(conv, nn.Conv2d) and conv.stride != (1, 1):
                sizes = (conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride)
                same = SameConv2d(*sizes, groups=conv.groups, bias=False, device="meta")
                same.weight = conv.weight
                setattr(module, name, same)


class EfficientNet(StagedNet):
    """A scaled EfficientNet (Tan & Le 2019, Table 1 and section 3.3) with a swappable head.

    Its `state_dict` has torchvision's keys: `features.0...8` and, for a linear head, `classifier.1`.
    Its stages are `stem`, `stage1`...`stage7`, `top` and `head`. With `recompute` set to True it trains in about a
    third of the memory for activations and takes longer (models/recompute.py); results are the same.

    Args:
        arch: Name or numbers, see `resolve_arch`.
        num_classes: Outputs of the head.
        head: `linear`, `mlp`, `cosine` or `none`.
        dropout: Dropout before the head; the architecture's if None.
        drop_path: Stochastic depth: block i of N is dropped at rate drop_path * i / N.
        bn_eps: BatchNorm epsilon; the default is TensorFlow's, as in the paper's own training.
        bn_momentum: BatchNorm statistics momentum, PyTorch's sense.
        padding: `symmetric`, or `same` as in TensorFlow: what the weights were trained with.

    Raises:
        ValueError: Not a padding's name.
    """

    recompute = False

    def __init__(
        self,
        arch: str | dict[str, float] | Scaling = "b0",
        num_classes: int = 1000,
        head: str = "linear",
        dropout: float | None = None,
        drop_path: float = 0.2,
        bn_eps: float = TF_BN_EPS,
        bn_momentum: float = TF_BN_MOMENTUM,
        padding: str = "symmetric",
    ):
        super().__init__(STAGE_NAMES)
        if padding not in PADDINGS:
            raise ValueError(f"no such padding: {padding}; there are {', '.join(PADDINGS)}")
        self.scaling = arch if isinstance(arch, Scaling) else resolve_arch(arch)
        settings = [
            MBConvConfig(s.expand, s.kernel, s.stride, s.in_channels, s.out_channels, s.repeats)
            for s in scaled_stages(self.scaling)
        ]
        self.num_features = top_channels(self.scaling)
        self.dropout = self.scaling.dropout if dropout is None else dropout
        self.drop_path = drop_path
        self.padding = padding
        built = TorchvisionEfficientNet(
            settings,
            dropout=0.0,
            stochastic_depth_prob=drop_path,
            num_classes=1,
            norm_layer=partial(nn.BatchNorm2d, eps=bn_eps, momentum=bn_momentum),
            last_channel=self.num_features,
        )
        self.features = built.features
        if padding == "same":
            _pad_as_tensorflow(self.features)
        self.avgpool = built.avgpool
        self.classifier = build_head(head, self.num_features, num_classes, self.dropout)

    def embed(self, images: Tensor) -> Tensor:
        """Return pooled features: (N, 3, H, W) float32, normalised -> (N, num_features)."""
        if not (self.recompute and self.training and torch.is_grad_enabled()):
            return super().embed(images)
        return torch.flatten(self.avgpool(recomputed(self.features, images)), 1)
