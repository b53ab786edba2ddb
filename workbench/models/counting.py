"""Count a network without running it: parameters, multiply-adds, activations, and the memory of a forward pass."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


@dataclass(frozen=True)
class Counts:
    """What one forward pass of a network takes.

    Args:
        parameters: Trainable numbers, head included.
        madds: Multiply-adds of convolutions and linear layers for one image (the paper's "FLOPS").
        activations: Elements of all convolutions' outputs for one image.
        peak_bytes: Most memory that tensors hold at once in evaluation without gradients: parameters, buffers, input
            and what lives between layers; not what kernels need for themselves.
    """

    parameters: int
    madds: int
    activations: int
    peak_bytes: int


class _Live(TorchDispatchMode):
    """Adds up the storages alive after each operation.

    Args:
        held: Tensors that live throughout.
    """

    def __init__(self, held: Iterable[Tensor]) -> None:
        super().__init__()
        self._held = _storages(held)
        self._passing: dict[StorageWeakRef, int] = {}
        self._held_bytes = self.peak = sum(self._held.values())

    def add(self, tensors: Iterable[Tensor]) -> None:
        new = {storage: size for storage, size in _storages(tensors).items() if storage not in self._held}
        alive = {storage: size for storage, size in self._passing.items() if not storage.expired()}
        self._passing = alive | new
        self.peak = max(self.peak, self._held_bytes + sum(self._passing.values()))

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # noqa: D102
        result = func(*args, **(kwargs or {}))
        self.add(leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor))
        return result


def _storages(tensors: Iterable[Tensor]) -> dict[StorageWeakRef, int]:
    storages = (tensor.untyped_storage() for tensor in tensors)
    return {StorageWeakRef(storage): storage.nbytes() for storage in storages}


def count(model: nn.Module, resolution: int, batch: int = 1) -> Counts:
    """Count on tensors without content, in evaluation mode; the model itself is left as it is.

    Args:
        model: Takes (N, 3, H, W) float32.
        resolution: H and W, pixels.
        batch: Images in the pass that `peak_bytes` is of; the other counts are for one image.
    """
    # state_dict hooks and weights do not matter here: only shapes do
    bare = copy.deepcopy(model).to("meta").eval()
    madds = activations = 0

    def convolution(module: nn.Conv2d, _: tuple, out: Tensor) -> None:
        nonlocal madds, activations
        per_output = module.in_channels // module.groups * module.kernel_size[0] * module.kernel_size[1]
        madds += per_output * (out.numel() // batch)
        activations += out.numel() // batch

    def linear(module: nn.Linear, _: tuple, out: Tensor) -> None:
        nonlocal madds
        madds += module.in_features * (out.numel() // batch)

    for module in bare.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(convolution)
        elif isinstance(module, nn.Linear):
            module.register_forward_hook(linear)
    images = torch.empty(batch, 3, resolution, resolution, device="meta")
    live = _Live([*bare.parameters(), *bare.buffers(), images])
    with torch.no_grad(), live:
        bare(images)
    parameters = sum(parameter.numel() for parameter in bare.parameters())
    return Counts(parameters, madds, activations, live.peak)
