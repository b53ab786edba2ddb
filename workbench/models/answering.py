"""A network in the form that only answers: BatchNorm folded into its convolutions, and a memory layout of choice.

Folding leaves out a pass over every feature map: at evaluation a BatchNorm scales and shifts each channel by fixed
numbers, and the convolution before it can do both. What it brings is in docs/performance.md.
"""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from workbench.models.efficientnet import SameConv2d

Net = TypeVar("Net", bound=nn.Module)


def answering_form(net: Net, *, fold: bool = True, channels_last: bool = True) -> Net:
    """Return a copy of a network for answers alone: it can neither be trained nor saved as a model.

    Args:
        net: Left as it is.
        fold: Fold every BatchNorm that directly follows a convolution; outputs change by rounding only.
        channels_last: Lay the weights out so that convolutions compute in this layout, whatever their input has.

    Returns:
        The copy, in evaluation mode and without gradients, with the same attributes.
    """
    answering = copy.deepcopy(net).eval().requires_grad_(False)
    if fold:
        for module in answering.modules():
            if isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward:
                _fold(module)
    return answering.to(memory_format=torch.channels_last) if channels_last else answering


def _fold(layers: nn.Sequential) -> None:
    """Fold each BatchNorm of a chain of layers into the convolution right before it, in place.

    Only these very classes: a subclass may do something more, as timm's BatchNormAct2d, which also activates.
    """
    names = list(layers._modules)
    for before, name in zip(names, names[1:], strict=False):
        conv, norm = layers._modules[before], layers._modules[name]
        is_pair = type(conv) in (nn.Conv2d, SameConv2d) and type(norm) is nn.BatchNorm2d
        if is_pair and norm.track_running_stats:
            layers._modules[before], layers._modules[name] = fuse_conv_bn_eval(conv, norm), nn.Identity()
