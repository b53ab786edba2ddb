"""Train an EfficientNet in less memory: keep what its convolutions gave, make the rest anew in the backward pass.

Between two convolutions of a block stand BatchNorm, SiLU and squeeze-excitation, whose results are most of what
autograd keeps, and which are cheap to make again. So each run of layers from one convolution's output up to and with
the next convolution is a checkpoint. torch.utils.checkpoint stops a repetition once the last kept tensor is made, which
is the next convolution's input: no convolution runs twice. Dropout and stochastic depth stand outside and run once.
benchmarks/recompute.py measures memory and time, also of whole blocks as checkpoints.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torchvision.models.efficientnet import MBConv


def recomputed(features: nn.Sequential, images: Tensor) -> Tensor:
    """Return what `features(images)` returns, bit for bit, keeping less for the backward pass.

    Gradients, running statistics and `num_batches_tracked` become what they become without.

    Args:
        features: The stages before pooling of an `EfficientNet`.
        images: (N, 3, H, W).
    """
    maps = images
    for stage in features:
        if not maps.requires_grad and not any(parameter.requires_grad for parameter in stage.parameters()):
            maps = stage(maps)  # frozen: nothing is kept
            continue
        for block in stage if isinstance(stage[0], MBConv) else [stage]:
            maps = _block(block, maps) if isinstance(block, MBConv) else _in_pieces(_layers(block), maps)
    return maps


def _block(block: MBConv, maps: Tensor) -> Tensor:
    """Do as torchvision's `MBConv.forward`."""
    result = _in_pieces(_layers(block.block), maps)
    if block.use_res_connect:
        result = block.stochastic_depth(result)
        result += maps
    return result


def _layers(parts: Iterable[nn.Module]) -> Iterator[nn.Module]:
    for part in parts:
        if isinstance(part, nn.Sequential):
            yield from part
        else:
            yield part


def _in_pieces(layers: Iterable[nn.Module], maps: Tensor) -> Tensor:
    """Run layers that begin with a convolution, each run from there to the next convolution as a checkpoint."""
    first, *others = layers
    maps, piece = first(maps), nn.Sequential()
    for layer in others:
        piece.append(layer)
        if isinstance(layer, nn.Conv2d):
            maps, piece = _checkpointed(piece, maps), nn.Sequential()
    # A last BatchNorm keeps only its input, the convolution's output: there is nothing to save.
    return piece(maps) if len(piece) == 1 else _checkpointed(piece, maps)


def _checkpointed(piece: nn.Sequential, maps: Tensor) -> Tensor:
    # A compiled graph repeats operations, not modules: there the statistics are updated once in any case.
    if torch.compiler.is_compiling():
        return checkpoint(piece, maps, use_reentrant=False, preserve_rng_state=False)
    contexts = contextlib.nullcontext(), _Still(piece)
    return checkpoint(piece, maps, use_reentrant=False, preserve_rng_state=False, context_fn=lambda: contexts)


class _Still:
    """Leaves running statistics as they are; without any, BatchNorm would keep other tensors than the first time."""

    def __init__(self, piece: nn.Sequential):
        self.norms = [layer for layer in piece if isinstance(layer, nn.BatchNorm2d)]

    def __enter__(self):
        self.before = [(norm.momentum, norm.num_batches_tracked) for norm in self.norms]
        for norm in self.norms:
            norm.momentum, norm.num_batches_tracked = 0.0, None

    def __exit__(self, *_: object):
        for norm, (momentum, count) in zip(self.norms, self.before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, count
