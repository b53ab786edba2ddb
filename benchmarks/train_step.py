"""Time a training step (forward, backward, update): ours against timm and torchvision, taking turns in one process.

python benchmarks/train_step.py                              # CPU: against both as they come, eager fp32, contiguous
python benchmarks/train_step.py --device gpu --archs b0 b3 b7 --batch 128 64 8    # all at timm's best settings
python benchmarks/train_step.py --quick                      # a try: nothing is kept

On a CPU ours takes channels_last and the precision that `train.precision: auto` takes there; on a GPU every side takes
bf16 autocast, channels_last and torch.compile. All sides have the same optimizer, dropout and stochastic depth. On a
CPU ours has `machine.keep_freed_memory`, as in every fit; the others have the allocator as it comes, or with
`--keep-memory all` that too. Lightning's loop and the loading of images are not in it. A ratio is of one round, images
per second of ours over the other's; rows go to results/train_step.csv.
"""

from __future__ import annotations

import argparse
import ctypes
import statistics
import time
from collections.abc import Callable
from typing import Any

import measured
import timm
import torch
import torchvision
from torch import nn

from workbench.models.efficientnet import EfficientNet
from workbench.specs.architectures import ARCHS
from workbench.training import machine, run_folder

CLASSES = 102
DROP_PATH = 0.2
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Step:
    """One side: a network, its optimizer and a batch that stays the same.

    Args:
        net: The network, on the CPU.
        device: Where it trains.
        channels_last: Memory layout.
        precision: `fp32`, `bf16` or `fp16` autocast.
        compiled: By torch.compile.
        size: Images, and their side.
    """

    def __init__(
        self,
        net: nn.Module,
        device: torch.device,
        channels_last: bool,
        precision: str,
        compiled: bool,
        size: tuple[int, int],
    ):
        layout = torch.channels_last if channels_last else torch.contiguous_format
        batch, side = size
        self.net = net.to(device, memory_format=layout).train()
        self.run = torch.compile(self.net, dynamic=False) if compiled else self.net
        self.images = torch.randn(batch, 3, side, side, device=device).contiguous(memory_format=layout)
        self.targets = torch.randint(0, CLASSES, (batch,), device=device)
        self.optimizer = torch.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9, nesterov=True)
        dtype = DTYPES.get(precision)
        self.autocast = torch.autocast(device.type, dtype or torch.bfloat16, enabled=dtype is not None)

    def __call__(self) -> None:
        """Do one step."""
        self.loss().backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    def loss(self) -> torch.Tensor:
        """Do the forward pass."""
        with self.autocast:
            return nn.functional.cross_entropy(self.run(self.images).float(), self.targets)

    def seconds(self, steps: int) -> float:
        """Return the time of one of several steps."""
        began = time.perf_counter()
        for _ in range(steps):
            self()
        if self.images.is_cuda:
            torch.cuda.synchronize()
        return (time.perf_counter() - began) / steps


def sides(arch: str, device: torch.device, size: tuple[int, int]) -> dict[str, Step]:
    """Return every side of a comparison, ours first."""
    nets = {
        "ours": EfficientNet(arch, CLASSES, drop_path=DROP_PATH),
        "timm": timm.create_model(
            f"efficientnet_{arch}", num_classes=CLASSES, drop_rate=ARCHS[arch].dropout, drop_path_rate=DROP_PATH
        ),
        "torchvision": getattr(torchvision.models, f"efficientnet_{arch}")(
            weights=None, num_classes=CLASSES, stochastic_depth_prob=DROP_PATH
        ),
    }
    if device.type == "cuda":
        return {name: Step(net, device, True, "bf16", True, size) for name, net in nets.items()}
    own = Step(nets.pop("ours"), device, True, machine.precisions("cpu")[0], False, size)
    return {"ours": own} | {name: Step(net, device, False, "fp32", False, size) for name, net in nets.items()}


def usual_memory() -> None:
    """Undo `machine.keep_freed_memory`: glibc's defaults (mallopt(3)), and what was kept is given back."""
    libc = ctypes.CDLL("libc.so.6")
    for name, value in ((-4, 65536), (-1, 128 * 1024)):  # M_MMAP_MAX, M_TRIM_THRESHOLD
        libc.mallopt(name, value)
    libc.malloc_trim(0)


def memory_as(name: str) -> None:
    """Give ours the memory setting of a fit and others the usual one."""
    machine.keep_freed_memory() if name == "ours" else usual_memory()


def rounds(
    steps: dict[str, Step], count: int, per_round: int, before: Callable[[str], object] = lambda name: None
) -> dict[str, list[float]]:
    """Return seconds per step of each round, by side; a first one, which compiles, is not counted.

    Args:
        steps: The sides.
        count: Rounds.
        per_round: Steps of each side in a round; one more goes before them.
        before: Called with a side's name when its turn comes.
    """
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(count + 1):
        for name, step in steps.items():
            before(name)
            step()
            took = step.seconds(per_round)
            if number:
                seconds[name].append(took)
    return seconds


def spread(ratios: list[float]) -> dict[str, float]:
    """Return median, least and most of the rounds' ratios."""
    return {"ratio": round(statistics.median(ratios), 3), "least": round(min(ratios), 3), "most": round(max(ratios), 3)}


def measure(arch: str, batch: int, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Return a row per rival."""
    device = torch.device("cuda" if arguments.device == "gpu" else "cpu")
    side = arguments.resolution or ARCHS[arch].resolution
    before = [memory_as] if arguments.device == "cpu" and arguments.keep_memory == "ours" else []
    seconds = rounds(sides(arch, device, (batch, side)), arguments.rounds, arguments.steps, *before)
    ours = seconds.pop("ours")
    row = {"arch": arch, "resolution": side, "batch": batch, "device": arguments.device}
    row["precision"] = "bf16" if arguments.device == "gpu" else machine.precisions("cpu")[0]
    row |= {
        "threads": torch.get_num_threads(),
        "keep_memory": arguments.keep_memory,
        "images_per_second": round(batch / statistics.median(ours), 2),
    }
    return [
        {
            **row,
            "against": name,
            **spread([other / own for other, own in zip(taken, ours, strict=True)]),
            "rounds": arguments.rounds,
        }
        for name, taken in seconds.items()
    ]


def main() -> None:
    """Measure each architecture and keep the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--archs", nargs="+", default=["b0"], choices=[f"b{i}" for i in range(8)])
    parser.add_argument("--batch", type=int, nargs="+", default=[32], help="one for all, or one for each architecture")
    parser.add_argument("--resolution", type=int, help="pixels; each architecture's own if left out")
    parser.add_argument("--device", choices=["cpu", "gpu"], default="cpu")
    parser.add_argument("--threads", type=int, help="of a CPU; PyTorch's own choice if left out")
    parser.add_argument("--keep-memory", choices=["ours", "all"], default="ours", help="on a CPU")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, help="per round; 20 on a GPU, 2 on a CPU if left out")
    parser.add_argument("--quick", action="store_true", help="3 rounds of batch 4 at 96 px; prints only")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.rounds, arguments.batch, arguments.resolution = 3, [4], arguments.resolution or 96
    arguments.steps = arguments.steps or (20 if arguments.device == "gpu" else 2)
    if len(arguments.batch) == 1:
        arguments.batch *= len(arguments.archs)
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    if arguments.device == "cpu":
        machine.keep_freed_memory()  # for all sides
    for arch, batch in zip(arguments.archs, arguments.batch, strict=True):
        torch.manual_seed(0)
        for row in measure(arch, batch, arguments):
            print(*(f"{key}={value}" for key, value in row.items()))
            if not arguments.quick:
                measured.append("train_step.csv", row, run_folder.command_line(), machine.describe(), arguments.device)


if __name__ == "__main__":
    main()
