"""Measure training steps: images/s of forward, backward and update, by layout, precision and frozen part.

python benchmarks/step_speed.py --arch b0 --resolution 192 --train stage3
python benchmarks/step_speed.py --sweep        # every layout and precision, with and without keep_freed_memory
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time

import measured
import torch

from workbench.models.efficientnet import EfficientNet, stages_before
from workbench.training import machine, run_folder


def images_per_second(arguments: argparse.Namespace) -> float:
    """Return the best of three timed runs of `steps` steps, after a warm-up."""
    device = torch.device("cuda" if arguments.device == "gpu" else "cpu")
    if arguments.keep_memory and arguments.device == "cpu":
        machine.keep_freed_memory()
    layout = torch.channels_last if arguments.layout == "channels_last" else torch.contiguous_format
    model = EfficientNet(arguments.arch, 102).to(device, memory_format=layout)
    model.freeze(stages_before(arguments.train))
    model.train()
    images = torch.randn(arguments.batch, 3, arguments.resolution, arguments.resolution, device=device)
    images = images.contiguous(memory_format=layout)
    targets = torch.randint(0, 102, (arguments.batch,), device=device)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-3, momentum=0.9)
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=arguments.precision == "bf16")

    def step() -> None:
        with autocast:
            loss = torch.nn.functional.cross_entropy(model(images).float(), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def timed(steps: int) -> float:
        began = time.perf_counter()
        for _ in range(steps):
            step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return steps * arguments.batch / (time.perf_counter() - began)

    timed(2)
    return max(timed(arguments.steps) for _ in range(3))


def main() -> None:
    """Measure one setting, or each of a sweep in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", default="b0")
    parser.add_argument("--resolution", type=int, default=192)
    parser.add_argument("--train", default="all", help="first stage that trains")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--layout", choices=["channels_last", "contiguous"], default="channels_last")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--keep-memory", type=int, default=1, help="0: leave the allocator as it is")
    parser.add_argument("--device", choices=["cpu", "gpu"], default="cpu")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--sweep", action="store_true")
    arguments = parser.parse_args()
    if arguments.sweep:
        base = [sys.executable, __file__, "--resolution", str(arguments.resolution), "--device", arguments.device]
        for extra in (
            ["--layout", "contiguous", "--keep-memory", "0"],
            ["--keep-memory", "0"],
            [],
            ["--precision", "bf16", "--steps", "1", "--batch", "8"],
            ["--train", "stage3"],
            ["--train", "head"],
        ):
            subprocess.run([*base, *extra], check=True)
        return
    speed = images_per_second(arguments)
    row = {
        "arch": arguments.arch,
        "resolution": arguments.resolution,
        "train": arguments.train,
        "batch": arguments.batch,
        "layout": arguments.layout,
        "precision": arguments.precision,
        "keep_freed_memory": arguments.keep_memory,
        "device": arguments.device,
        "images_per_second": round(speed, 2),
    }
    measured.append("step_speed.csv", row, run_folder.command_line(), machine.describe(), arguments.device)
    print(row)


if __name__ == "__main__":
    main()
