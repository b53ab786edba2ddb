"""Measure `model.recompute`: what autograd keeps and how long a step takes, with against without, taking turns.

python benchmarks/recompute.py                               # B7 at 600 px, one image, on a CPU
python benchmarks/recompute.py --device gpu --batch 8        # bf16 autocast, channels_last
python benchmarks/recompute.py --quick                       # a try: nothing is kept

`blocks` beside it checkpoints whole blocks instead: less memory, and every convolution runs twice. Memory is the bytes
of all tensors that the backward pass needs, weights left out; `peak` (GPU) is the allocator's own. A ratio is of one
round, with over without; rows go to results/recompute.csv.
"""

from __future__ import annotations

import argparse
from typing import Any

import measured
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from train_step import CLASSES, Step, rounds, spread

from workbench.models.efficientnet import EfficientNet
from workbench.specs.architectures import ARCHS
from workbench.training import machine, run_folder


class InBlocks(EfficientNet):
    """Checkpoints whole blocks; its running statistics move twice a step, which is as long."""

    def embed(self, images: torch.Tensor) -> torch.Tensor:
        """Return pooled features."""
        maps = images
        for stage in self.features:
            for block in stage if hasattr(stage[0], "block") else [stage]:
                maps = checkpoint(block, maps, use_reentrant=False)
        return self.avgpool(maps).flatten(1)


def nets(arch: str) -> dict[str, nn.Module]:
    """Return the network without, with, and in blocks."""
    made = {"without": EfficientNet(arch, CLASSES), "with": EfficientNet(arch, CLASSES)}
    made["with"].recompute = True
    return made | {"blocks": InBlocks(arch, CLASSES)}


def kept_bytes(step: Step) -> int:
    """Return the bytes that one forward pass keeps for the backward pass, without the network's own tensors."""
    own = {tensor.untyped_storage().data_ptr() for tensor in (*step.net.parameters(), *step.net.buffers())}
    kept: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        loss = step.loss()
    del loss
    return sum(kept.values())


def peak_bytes(step: Step) -> int:
    """Return the most that the GPU's allocator held in one step beyond what it held before."""
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    step()
    return torch.cuda.max_memory_allocated() - before


def measure(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Return a row for recompute and one for whole blocks."""
    device = torch.device("cuda" if arguments.device == "gpu" else "cpu")
    precision = "bf16" if arguments.device == "gpu" else machine.precisions("cpu")[0]
    side = arguments.resolution or ARCHS[arguments.arch].resolution
    size = arguments.batch, side
    steps = {name: Step(net, device, True, precision, False, size) for name, net in nets(arguments.arch).items()}
    kept = {name: kept_bytes(step) for name, step in steps.items()}
    seconds = rounds(steps, arguments.rounds, 1)
    peak = {name: peak_bytes(step) for name, step in steps.items()} if device.type == "cuda" else {}
    row = {"arch": arguments.arch, "resolution": side, "batch": arguments.batch, "device": arguments.device}
    row |= {"precision": precision, "threads": torch.get_num_threads(), "kept_gb_without": kept["without"] / 1e9}
    row["kept_gb_without"] = round(row["kept_gb_without"], 3)
    return [
        {
            **row,
            "how": name,
            "kept_ratio": round(kept[name] / kept["without"], 3),
            "peak_ratio": round(peak[name] / peak["without"], 3) if peak else "",
            **{
                f"time_{key}": value
                for key, value in spread(
                    [a / b for a, b in zip(seconds[name], seconds["without"], strict=True)]
                ).items()
            },
            "rounds": arguments.rounds,
        }
        for name in ("with", "blocks")
    ]


def main() -> None:
    """Measure and keep the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", default="b7")
    parser.add_argument("--resolution", type=int, help="pixels; the architecture's own if left out")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--device", choices=["cpu", "gpu"], default="cpu")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="B0 at 128 px; prints only")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.arch, arguments.resolution = "b0", 128
    torch.manual_seed(0)
    if arguments.device == "cpu":
        machine.keep_freed_memory()  # for all sides
    for row in measure(arguments):
        print(*(f"{key}={value}" for key, value in row.items()))
        if not arguments.quick:
            measured.append("recompute.csv", row, run_folder.command_line(), machine.describe(), arguments.device)


if __name__ == "__main__":
    main()
