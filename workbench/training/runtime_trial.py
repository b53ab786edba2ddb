"""Try a runtime: some steps of the recipe's own network, loss and optimizer on random images; and what memory holds.

The network that is tried is thrown away; its optimizer's rate is 0, so that its numbers stay as they began.
"""

from __future__ import annotations

import dataclasses
import gc
import logging
import math
import statistics
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, distributed

from workbench.models.staged import StagedNet
from workbench.specs.errors import UserError
from workbench.training.classifier import EfficientNetClassifier
from workbench.training.out_of_memory import is_out_of_memory
from workbench.training.runtime import Measured, Runtime

log = logging.getLogger("workbench")

STEPS, FIRST_STEPS = 20, 5
MOST_SECONDS = 20.0
"""One candidate's timed steps stop here, but not before two; a guess."""
GPU_SHARE, CPU_SHARE = 0.85, 0.7
"""Share of the memory that a step may take; the rest is for averages, evaluation and what lies between; guesses."""
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclasses.dataclass(frozen=True)
class Subject:
    """What is tried.

    Args:
        make: Builds the classifier for a memory layout (channels_last or not), on the CPU.
        frozen: Stages that are frozen in the part of the fit that trains most.
        optimizer: Builds the recipe's optimizer, with rate 0.
        batch_size: Effective.
        resolution: Side of training crops, pixels.
        device: Where.
    """

    make: Callable[[bool], EfficientNetClassifier]
    frozen: tuple[str, ...]
    optimizer: Callable[[StagedNet], torch.optim.Optimizer]
    batch_size: int
    resolution: int
    device: torch.device


class _Step:
    """One optimizer step in its two parts, on random images."""

    def __init__(self, subject: Subject, runtime: Runtime):
        layout = torch.channels_last if runtime.channels_last else torch.contiguous_format
        self.model = subject.make(runtime.channels_last).to(subject.device)
        self.model.net.freeze(subject.frozen)
        self.model.train()
        if runtime.compiled:
            self.model.net.compile(dynamic=False)
        self.optimizer = subject.optimizer(self.model.net)
        size = runtime.micro_batch_size, 3, subject.resolution, subject.resolution
        self.images = torch.randn(size, device=subject.device).contiguous(memory_format=layout)
        self.targets = self._targets(runtime.micro_batch_size, subject.device)
        self.device, dtype = subject.device, _DTYPES.get(runtime.precision)
        self.autocast = torch.autocast(subject.device.type, dtype, enabled=dtype is not None)

    def _targets(self, count: int, device: torch.device) -> Tensor:
        classes = len(self.model.classes)
        if self.model.multi_label:
            return torch.randint(0, 2, (count, classes), device=device)
        return torch.randint(0, classes, (count,), device=device)

    def micro_batch(self) -> None:
        """Forward and backward."""
        with self.autocast:
            loss = self.model.training_step((self.images, self.targets), 0)
        loss.backward()

    def update(self) -> None:
        """Update the weights and drop the gradients."""
        self.optimizer.step()
        self.optimizer.zero_grad()

    def seconds(self, part: Callable[[], None]) -> float:
        """Return how long a part takes."""
        began = time.perf_counter()
        part()
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - began


def measure(subject: Subject, runtime: Runtime, give_up: float | None) -> Measured | None:
    """Time a runtime's steps.

    Args:
        subject: What is tried.
        runtime: The candidate.
        give_up: Seconds per optimizer step: a candidate slower than this is timed for `FIRST_STEPS` micro-batches only.

    Returns:
        Median times; None if it does not fit in memory or does not compile.
    """
    try:
        return _measured(_Step(subject, runtime), subject, runtime, give_up)
    except RuntimeError as error:
        if not (is_out_of_memory(error) or runtime.compiled):
            raise
        why = "does not fit in memory" if is_out_of_memory(error) else f"does not compile: {_first_line(error)}"
        log.info("runtime %s: %s", runtime, why)
        return None
    finally:
        if runtime.compiled:
            torch._dynamo.reset()
        _release(subject.device)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def _measured(step: _Step, subject: Subject, runtime: Runtime, give_up: float | None) -> Measured:
    first = step.seconds(step.micro_batch)
    step.seconds(step.update)
    step.seconds(step.micro_batch)  # memory is laid out by now
    update = step.seconds(step.update)
    micro_batches = subject.batch_size // runtime.micro_batch_size
    times: list[float] = []
    while len(times) < STEPS and (len(times) < 2 or sum(times) < MOST_SECONDS):
        times.append(step.seconds(step.micro_batch))
        took = micro_batches * statistics.median(times) + update
        if len(times) == FIRST_STEPS and give_up is not None and took > give_up:
            break
    compiling = max(0.0, first - statistics.median(times)) if runtime.compiled else 0.0
    return Measured(runtime, took, compiling)


def _release(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


# ---- memory ------------------------------------------------------------------------------------------------------


def largest_that_fits(fits: Callable[[int], bool], sizes: Sequence[int]) -> int:
    """Return the largest size that fits, in few tries; under DDP the one that fits on every rank.

    Args:
        fits: Whether a size does; may raise what PyTorch raises when memory is out.
        sizes: Largest first; if one fits, those after it do.

    Raises:
        UserError: None fits.
    """
    low, high = 0, len(sizes)  # the answer's place lies in [low, high]
    while low < high:
        middle = (low + high) // 2 if low else 0  # most often all fits: try that first
        if _on_every_rank(_tried(fits, sizes[middle])):
            high = middle
        else:
            low = middle + 1
    if low == len(sizes):
        raise UserError.of(
            "train.micro_batch_size",
            f"auto: not even {sizes[-1]} at a time fits in memory",
            "a network and resolution that fit",
            "set model.recompute=true, lower data.resolution, or take a smaller model.arch",
        )
    return sizes[low]


def _tried(fits: Callable[[int], bool], size: int) -> bool:
    try:
        return fits(size)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return False


def _on_every_rank(fits: bool) -> bool:
    if not (distributed.is_available() and distributed.is_initialized()):
        return fits
    device = "cuda" if distributed.get_backend() == "nccl" else "cpu"
    agreed = torch.tensor(int(fits), device=device)
    distributed.all_reduce(agreed, distributed.ReduceOp.MIN)
    return bool(agreed.item())


def memory_test(subject: Subject, runtime: Runtime, available: int | None) -> Callable[[int], bool]:
    """Return a test of whether a micro-batch size fits: by trying on a GPU, by reckoning on a CPU.

    A CPU's system ends a process that asks for too much, so there nothing is tried; and where `available` is not known,
    everything fits.

    Args:
        subject: What is tried.
        runtime: Layout and precision.
        available: Bytes of memory that a CPU has left.
    """
    if subject.device.type == "cuda":
        return lambda size: _fits_on_gpu(subject, dataclasses.replace(runtime, micro_batch_size=size))
    if available is None:
        return lambda size: True
    fixed, per_image = _reckoned(subject, runtime)
    return lambda size: fixed + size * per_image <= CPU_SHARE * available


def _fits_on_gpu(subject: Subject, runtime: Runtime) -> bool:
    try:
        step = _Step(subject, runtime)
        for _ in range(2):
            step.micro_batch()
            step.update()
        free, _ = torch.cuda.mem_get_info()
        return torch.cuda.max_memory_allocated() <= GPU_SHARE * (free + torch.cuda.memory_reserved())
    finally:
        step = None
        _release(subject.device)


def _reckoned(subject: Subject, runtime: Runtime) -> tuple[int, int]:
    """Return the bytes of weights, gradients and optimizer, and those of activations per image."""
    images = min(2, subject.batch_size)
    step = _Step(subject, dataclasses.replace(runtime, micro_batch_size=images, compiled=False))
    own = {tensor.untyped_storage().data_ptr() for tensor in (*step.model.parameters(), *step.model.buffers())}
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor), step.autocast:
        loss = step.model.training_step((step.images, step.targets), 0)
    del loss
    weights = sum(parameter.nbytes for parameter in step.model.parameters())
    return 5 * weights, math.ceil(1.5 * sum(kept.values()) / images)  # 1.5 for gradients on their way: a guess
