"""MobileNetV1, MobileNetV2 and ResNet-50 at any width and depth: the nets that the paper's Table 3 scales.

As for EfficientNet, channels are rounded to multiples of 8 and repeats up. At width and depth 1 the last two have
torchvision's parameter names, so that its weights load.
"""

from __future__ import annotations

import math
from functools import partial

from torch import Tensor, nn
from torchvision.models.mobilenetv2 import MobileNetV2
from torchvision.models.resnet import Bottleneck
from torchvision.ops import Conv2dNormActivation

from workbench.specs.architectures import round_filters

# (output channels, repeats, stride of the first); Howard et al. 2017 (arXiv 1704.04861), Table 1.
_V1_STAGES = ((64, 1, 1), (128, 2, 2), (256, 2, 2), (512, 6, 2), (1024, 2, 2))
# (expansion, output channels, repeats, stride of the first); Sandler et al. 2018 (arXiv 1801.04381), Table 2.
V2_STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
# (inner channels, repeats, stride of the first); He et al. 2015 (arXiv 1512.03385), Table 1.
_RESNET_50_STAGES = ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2))


class MobileNetV1(nn.Module):
    """A 3x3 convolution and depthwise-separable blocks: 3x3 depthwise, then 1x1, each with BatchNorm and ReLU.

    Args:
        width: Channel multiplier.
        depth: Multiplier of the blocks in each of its five stages.
    """

    def __init__(self, width: float = 1.0, depth: float = 1.0):
        super().__init__()
        convolution = partial(Conv2dNormActivation, inplace=True)
        channels = round_filters(32 * width)
        stages = [convolution(3, channels, 3, stride=2)]
        for out, repeats, stride in _V1_STAGES:
            blocks = []
            for block in range(math.ceil(repeats * depth)):
                blocks.append(
                    nn.Sequential(
                        convolution(channels, channels, 3, stride if block == 0 else 1, groups=channels),
                        convolution(channels, round_filters(out * width), 1),
                    )
                )
                channels = round_filters(out * width)
            stages.append(nn.Sequential(*blocks))
        self.features = nn.Sequential(*stages)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(channels, 1000)
        _initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits: (N, 3, H, W) -> (N, 1000)."""
        return self.classifier(self.avgpool(self.features(images)).flatten(1))


def mobilenet_v2(width: float = 1.0, depth: float = 1.0) -> MobileNetV2:
    """Build torchvision's MobileNetV2, with its blocks per stage as `stage_repeats`.

    Its last channels grow with width above 1 only, as in its paper.
    """
    stages = [[expand, channels, math.ceil(repeats * depth), stride] for expand, channels, repeats, stride in V2_STAGES]
    network = MobileNetV2(width_mult=width, inverted_residual_setting=stages)
    network.stage_repeats = [repeats for _, _, repeats, _ in stages]
    return network


class ScaledResNet(nn.Module):
    """ResNet-50 on torchvision's `Bottleneck`, with torchvision's parameter names.

    Args:
        width: Multiplier of all channels.
        depth: Multiplier of the blocks in each of its four stages.
    """

    def __init__(self, width: float = 1.0, depth: float = 1.0):
        super().__init__()
        channels = round_filters(64 * width)
        self.conv1 = nn.Conv2d(3, channels, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        for number, (inner, repeats, stride) in enumerate(_RESNET_50_STAGES, 1):
            inner = round_filters(inner * width)
            out = inner * Bottleneck.expansion
            shortcut = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))
            blocks = [Bottleneck(channels, inner, stride, shortcut)]
            blocks += [Bottleneck(out, inner) for _ in range(math.ceil(repeats * depth) - 1)]
            setattr(self, f"layer{number}", nn.Sequential(*blocks))
            channels = out
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, 1000)
        _initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits: (N, 3, H, W) -> (N, 1000)."""
        maps = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        maps = self.layer4(self.layer3(self.layer2(self.layer1(maps))))
        return self.fc(self.avgpool(maps).flatten(1))


def _initialise(network: nn.Module) -> None:
    """Draw convolutions from N(0, sqrt(2 / fan_out)), as torchvision does for these nets."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
