"""Time a training step (forward, backward, update): ours against timm and torchvision, taking turns.

python benchmarks/train_step.py                              # CPU: against both as they come, eager fp32, contiguous
python benchmarks/train_step.py --device gpu --archs b0 b3 b7 --batch 128 64 8    # all at timm's best settings
python benchmarks/train_step.py --quick                      # a try: nothing is kept

On a CPU ours takes channels_last and the precision that `train.precision: auto` takes there; on a GPU every side takes
bf16 autocast, channels_last and torch.compile. All sides have the same optimizer, dropout and stochastic depth. On a
CPU each side is a process of its own, and only one works at a time: ours has `machine.keep_freed_memory`, as in every
fit; the others have the allocator as it comes, or with `--keep-memory all` that too. Lightning's loop and the loading
of images are not in it. A ratio is of one round, images per second of ours over the other's; rows go to
results/train_step.csv.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import statistics
import time
from multiprocessing.connection import Connection
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
NAMES = ("ours", "timm", "torchvision")
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


def sides(arch: str, device: torch.device, size: tuple[int, int], only: str | None = None) -> dict[str, Step]:
    """Return every side of a comparison, or only one, ours first."""
    drop = {"drop_rate": ARCHS[arch].dropout, "drop_path_rate": DROP_PATH}
    tv_model = getattr(torchvision.models, f"efficientnet_{arch}")
    nets = {
        "ours": lambda: EfficientNet(arch, CLASSES, drop_path=DROP_PATH),
        "timm": lambda: timm.create_model(f"efficientnet_{arch}", num_classes=CLASSES, **drop),
        "torchvision": lambda: tv_model(weights=None, num_classes=CLASSES, stochastic_depth_prob=DROP_PATH),
    }
    made = {}
    for name, make in nets.items():
        if only in (None, name):
            tuned = device.type == "cuda" or name == "ours"
            precision = "bf16" if device.type == "cuda" else machine.precisions("cpu")[0] if tuned else "fp32"
            made[name] = Step(make(), device, tuned, precision, device.type == "cuda", size)
    return made


class Apart:
    """A side in a process of its own, because the allocator's settings hold for a process and cannot be taken back.

    Args:
        name: The side.
        arch: Its architecture.
        size: Images, and their side.
        keeps: Whether it has `machine.keep_freed_memory`.
    """

    def __init__(self, name: str, arch: str, size: tuple[int, int], keeps: bool):
        context = multiprocessing.get_context("spawn")
        self.end, other = context.Pipe()
        context.Process(
            target=serve, args=(other, name, arch, size, keeps, torch.get_num_threads()), daemon=True
        ).start()

    def seconds(self, steps: int) -> float:
        """Return the time of one of several steps."""
        self.end.send(steps)
        return self.end.recv()


def serve(end: Connection, name: str, arch: str, size: tuple[int, int], keeps: bool, threads: int) -> None:
    """Do as many steps as are asked for, until nobody asks."""
    torch.set_num_threads(threads)
    if keeps:
        machine.keep_freed_memory()
    torch.manual_seed(0)
    step = sides(arch, torch.device("cpu"), size, only=name)[name]
    with contextlib.suppress(EOFError):
        while True:
            end.send(step.seconds(end.recv()))


def rounds(steps: dict[str, Step | Apart], count: int, per_round: int) -> dict[str, list[float]]:
    """Return seconds per step of each round, by side; a first one, which compiles, is not counted.

    Args:
        steps: The sides.
        count: Rounds.
        per_round: Steps of each side in a round; one more goes before them.
    """
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(count + 1):
        for name, step in steps.items():
            step.seconds(1)
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
    if arguments.device == "gpu":
        steps = sides(arch, device, (batch, side))
    else:
        keep = ("ours",) if arguments.keep_memory == "ours" else NAMES
        steps = {name: Apart(name, arch, (batch, side), name in keep) for name in NAMES}
    seconds = rounds(steps, arguments.rounds, arguments.steps)
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
    for arch, batch in zip(arguments.archs, arguments.batch, strict=True):
        torch.manual_seed(0)
        for row in measure(arch, batch, arguments):
            print(*(f"{key}={value}" for key, value in row.items()))
            if not arguments.quick:
                measured.append("train_step.csv", row, run_folder.command_line(), machine.describe(), arguments.device)


if __name__ == "__main__":
    main()
