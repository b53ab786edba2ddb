"""Profile networks: what they hold and compute, and how long a forward pass takes, all in one run.

Counts are exact and the same on every machine. Times are only comparable within a run: the networks take turns, so
that whatever else the machine does falls on all of them.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from workbench.models.backbones import build_backbone
from workbench.models.counting import count
from workbench.specs.compared import FAMILIES, Backbone, ComparedArch, resolve_backbone
from workbench.specs.errors import UserError
from workbench.specs.paper_models import paper_model, printed

WARM_UP = 3
THROUGHPUT_RUNS = 3


@dataclass(frozen=True)
class Protocol:
    """How times are taken; the default is that of the paper's Table 4, on this machine's processor.

    Args:
        runs: Timed passes of one image, after `WARM_UP` untimed ones.
        threads: Threads for those passes (CPU).
        batch: Images per pass for throughput, with all threads; None: not measured.
        device: `cpu` or `gpu`.
        channels_last: Memory layout, as `train.channels_last`.
        timed: False: only count.
    """

    runs: int = 20
    threads: int = 1
    batch: int | None = None
    device: str = "cpu"
    channels_last: bool = True
    timed: bool = True


def profile(
    archs: Sequence[str | dict[str, Any]],
    protocol: Protocol = Protocol(),  # noqa: B008 - frozen
    resolution: int | None = None,
    against: str | None = None,
) -> list[dict[str, Any]]:
    """Profile networks with random weights and 1000 classes.

    Args:
        archs: What `model.arch` takes.
        protocol: How times are taken.
        resolution: One input size for all, pixels; each network's native one if None.
        against: Name of the one that ratios are taken against; the first if None.

    Returns:
        A row per network, in the order given: `arch`, `resolution`, `parameters`, `madds`, `activations` (elements of
        convolutions' outputs), `peak_bytes` (tensors alive at once in a pass of one image); if timed `latency_mean`,
        `latency_median`, `latency_sd` (seconds) and with a batch `images_per_second`; `gpu_peak_bytes` on a GPU; what
        the paper prints (`paper_...`); and how many times more than `against` each has (`x_...`).

    Raises:
        UserError: Unknown architecture or reference, too small an input, or no GPU.
    """
    backbones = [resolve_backbone(arch) for arch in archs]
    names = [backbone.name for backbone in backbones]
    if against is not None and against not in names:
        raise UserError.of("profile --against", against, ", ".join(names), "name one of the models that are profiled")
    if protocol.device == "gpu" and not torch.cuda.is_available():
        raise UserError.of("profile --device", "gpu", "cpu: this machine has no usable GPU", "use --device cpu")
    sizes = [resolution or backbone.resolution for backbone in backbones]
    for backbone, size in zip(backbones, sizes, strict=True):
        _check_size(backbone, size)
    rows = [_counted(backbone, size) for backbone, size in zip(backbones, sizes, strict=True)]
    if protocol.timed:
        for row, times in zip(rows, _timed(backbones, sizes, protocol), strict=True):
            row.update(times)
    for row in rows:
        row.update(_published(row["arch"]))
    reference = rows[names.index(against) if against else 0]
    for row in rows:
        row.update(_ratios(row, reference))
    return rows


def _check_size(backbone: Backbone, size: int) -> None:
    smallest = FAMILIES[backbone.family].smallest if isinstance(backbone, ComparedArch) else 32
    if not smallest <= size <= 2048:
        raise UserError.of(
            "profile --resolution", size, f"{smallest} to 2048 for {backbone.name}", "choose a size inside this range"
        )


def _counted(backbone: Backbone, size: int) -> dict[str, Any]:
    with torch.device("meta"):
        network = build_backbone(backbone)
    counts = count(network, size)
    return {"arch": backbone.name, "resolution": size, **vars(counts)}


def _published(name: str) -> dict[str, str]:
    row = paper_model(name)
    keys = ("top1", "params_m", "flops_b")
    return {f"paper_{key}": printed(row, key) if row else "" for key in keys}


def _ratios(row: dict[str, Any], reference: dict[str, Any]) -> dict[str, float]:
    columns = {
        "x_parameters": "parameters",
        "x_madds": "madds",
        "x_latency": "latency_mean",
        "x_speed": "images_per_second",
    }
    return {name: row[column] / reference[column] for name, column in columns.items() if column in row}


def _timed(backbones: Sequence[Backbone], sizes: Sequence[int], protocol: Protocol) -> list[dict[str, Any]]:
    """Time every network; they take turns within each round."""
    device = torch.device("cuda" if protocol.device == "gpu" else "cpu")
    layout = torch.channels_last if protocol.channels_last else torch.contiguous_format
    models = [build_backbone(b).eval().to(device, memory_format=layout) for b in backbones]

    def images(batch: int) -> list[torch.Tensor]:
        return [torch.randn(batch, 3, s, s, device=device).contiguous(memory_format=layout) for s in sizes]

    found: list[dict[str, Any]] = [{} for _ in models]
    with torch.inference_mode():
        if protocol.device == "gpu":
            for row, model, image in zip(found, models, images(protocol.batch or 1), strict=True):
                row["gpu_peak_bytes"] = _gpu_peak(model, image)
        with _threads(protocol.threads):
            for row, seconds in zip(found, _rounds(models, images(1), WARM_UP, protocol.runs), strict=True):
                row["latency_mean"] = statistics.fmean(seconds)
                row["latency_median"] = statistics.median(seconds)
                row["latency_sd"] = statistics.stdev(seconds) if len(seconds) > 1 else 0.0
        if protocol.batch:
            with _threads(os.cpu_count() or 1):
                rounds = _rounds(models, images(protocol.batch), 1, THROUGHPUT_RUNS)
            for row, seconds in zip(found, rounds, strict=True):
                row["images_per_second"] = protocol.batch / statistics.median(seconds)
    return found


def _rounds(models: Sequence[nn.Module], images: Sequence[torch.Tensor], warm_up: int, runs: int) -> list[list[float]]:
    """Return seconds of each timed pass, per network."""
    seconds: list[list[float]] = [[] for _ in models]
    for number in range(warm_up + runs):
        for kept, model, batch in zip(seconds, models, images, strict=True):
            _wait(batch)
            began = time.perf_counter()
            model(batch)
            _wait(batch)
            if number >= warm_up:
                kept.append(time.perf_counter() - began)
    return seconds


def _wait(tensor: torch.Tensor) -> None:
    if tensor.is_cuda:
        torch.cuda.synchronize()


def _gpu_peak(model: nn.Module, images: torch.Tensor) -> int:
    """Return the most that a pass adds to what the GPU's allocator holds, plus the network itself, bytes."""
    held = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    model(images)
    own = sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers()))
    return torch.cuda.max_memory_allocated() - held + own


@contextlib.contextmanager
def _threads(threads: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
