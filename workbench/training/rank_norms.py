"""BatchNorm over several processes: statistics of all their micro-batches, or each one's own with a common memory.

torch's own SyncBatchNorm computes on GPUs only and is no `BatchNorm2d`, which freezing and recomputing look for.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed, nn


class RankBatchNorm(nn.BatchNorm2d):
    """A `BatchNorm2d` that, while it trains, normalises by the mean and variance over all processes' micro-batches."""

    def forward(self, maps: Tensor) -> Tensor:
        """Return normalised maps: (N, C, H, W) -> (N, C, H, W); N is the same in all processes."""
        if not self.training:
            return super().forward(maps)
        wide = maps.float() if maps.dtype.itemsize < 4 else maps  # sums in 16 bits would lose too much
        mean = _AllMean.apply(wide.mean((0, 2, 3)))
        centred = wide - mean[:, None, None]
        variance = _AllMean.apply(centred.square().mean((0, 2, 3)))
        count = maps.numel() // maps.shape[1] * distributed.get_world_size()
        with torch.no_grad():
            if self.num_batches_tracked is not None:  # recomputing takes it away, see models/recompute.py
                self.num_batches_tracked.add_(1)
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * (count / (count - 1)), self.momentum)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return torch.addcmul(self.bias[:, None, None], centred, scale[:, None, None]).to(maps.dtype)


class _AllMean(torch.autograd.Function):
    """The mean over all processes. Each one's loss depends on it, so its gradient is the mean of theirs."""

    @staticmethod
    def forward(context: Any, value: Tensor) -> Tensor:
        return _all_mean(value)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        return _all_mean(gradient)


def _all_mean(value: Tensor) -> Tensor:
    mean = value.detach().clone(memory_format=torch.contiguous_format)
    distributed.all_reduce(mean)
    return mean / distributed.get_world_size()


def synchronise(net: nn.Module) -> None:
    """Let every BatchNorm of a network take its statistics over all processes; its parameters stay the same objects."""
    for module in net.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = RankBatchNorm


def part(net: nn.Module) -> None:
    """Undo `synchronise`: the network can be used in one process again."""
    for module in net.modules():
        if type(module) is RankBatchNorm:
            module.__class__ = nn.BatchNorm2d


def average_statistics(net: nn.Module) -> None:
    """Give every process the mean of all processes' running statistics, of those BatchNorms that train."""
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d) and module.training]
    buffers = [buffer for norm in norms for buffer in (norm.running_mean, norm.running_var)]
    if buffers:
        together = _all_mean(torch.cat(buffers))
        for buffer, mean in zip(buffers, together.split([len(buffer) for buffer in buffers]), strict=True):
            buffer.copy_(mean)
