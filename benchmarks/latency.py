"""Time a forward pass: our portable model as it answers, against timm, torchvision and ResNets, taking turns.

python benchmarks/latency.py                                # one image on one thread
python benchmarks/latency.py --batch 32 --threads 2
python benchmarks/latency.py --device gpu --archs b0 b3 b7 --batch 32
python benchmarks/latency.py --quick                        # a try: nothing is kept

A round gives each network `--passes` passes and counts the shortest; a ratio is of one round, so that whatever else the
machine does falls on both sides. Rows go to results/answers.csv, ours in each form to show what each change brings.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import measured
import timm
import torch
import torchvision
from torch import nn

from workbench import load_model
from workbench.models.answering import answering_form
from workbench.models.efficientnet import EfficientNet
from workbench.models.portable import save_model
from workbench.specs.architectures import ARCHS
from workbench.specs.weights import Preprocessing
from workbench.training import machine, run_folder

OURS = "ours, folded, channels_last"


def portable(arch: str) -> nn.Module:
    """Return a network of random weights as a user gets it: saved, and loaded again."""
    size = ARCHS[arch].resolution
    facts = {"head": "linear", "task": "single_label", "classes": tuple(map(str, range(1000))), "provenance": {}}
    with tempfile.TemporaryDirectory() as folder:
        save_model(Path(folder), settled(EfficientNet(arch)), preprocessing=Preprocessing(size, size), **facts)
        return load_model(folder)


def settled(net: nn.Module) -> nn.Module:
    """Give every BatchNorm statistics of its own, so that folding has something to fold."""
    for norm in net.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.running_mean.normal_(0, 0.1)
            norm.running_var.uniform_(0.5, 2)
    return net.eval()


def contenders(arch: str, with_resnets: bool) -> dict[str, nn.Module]:
    """Return every network of a comparison, ours first."""
    net = portable(arch)
    nets = {
        OURS: answering_form(net),
        "ours, folded": answering_form(net, channels_last=False),
        "ours, channels_last": answering_form(net, fold=False),
        "ours, as loaded": net,
        "timm": timm.create_model(f"efficientnet_{arch}", pretrained=False).eval(),
        "torchvision": getattr(torchvision.models, f"efficientnet_{arch}")(weights=None).eval(),
    }
    if with_resnets:
        nets |= {name: getattr(torchvision.models, name)(weights=None).eval() for name in ("resnet50", "resnet152")}
    return nets


def rounds(nets: dict[str, nn.Module], images: torch.Tensor, count: int, passes: int) -> dict[str, list[float]]:
    """Return the shortest pass of each round, seconds, by network; the first round is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in nets}
    for number in range(count + 1):
        for name, net in nets.items():
            took = min(timed(net, images) for _ in range(passes))
            if number:
                seconds[name].append(took)
    return seconds


def timed(net: nn.Module, images: torch.Tensor) -> float:
    """Return the seconds of one pass."""
    if images.is_cuda:
        torch.cuda.synchronize()
    began = time.perf_counter()
    net(images)
    if images.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - began


@torch.inference_mode()
def measure(arch: str, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Return a row per network, with how many times longer than ours it takes."""
    device = torch.device("cuda" if arguments.device == "gpu" else "cpu")
    nets = {name: net.to(device) for name, net in contenders(arch, arch == arguments.archs[0]).items()}
    size = arguments.resolution or ARCHS[arch].resolution
    images = torch.randn(arguments.batch, 3, size, size, device=device)
    expected = nets["ours, as loaded"](images)
    seconds = rounds(nets, images, arguments.rounds, arguments.passes)
    rows = []
    for name, taken in seconds.items():
        ratios = [other / ours for other, ours in zip(taken, seconds[OURS], strict=True)]
        far = (nets[name](images).softmax(1) - expected.softmax(1)).abs().max() if name.startswith("ours") else None
        rows.append(
            {
                "arch": arch,
                "network": name,
                "resolution": size,
                "batch": arguments.batch,
                "device": arguments.device,
                "threads": arguments.threads,
                "median_ms": round(1e3 * statistics.median(taken), 2),
                "times_ours": round(statistics.median(ratios), 3),
                "least": round(min(ratios), 3),
                "most": round(max(ratios), 3),
                "rounds": arguments.rounds,
                "probability_difference": "" if far is None else f"{float(far):.1e}",
            }
        )
    return rows


def main() -> None:
    """Measure each architecture and keep the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--archs", nargs="+", default=["b0"], choices=[f"b{i}" for i in range(8)])
    parser.add_argument("--resolution", type=int, help="pixels; each architecture's own if left out")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", choices=["cpu", "gpu"], default="cpu")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--passes", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="3 rounds; prints only")
    arguments = parser.parse_args()
    arguments.rounds = 3 if arguments.quick else arguments.rounds
    torch.manual_seed(0)
    torch.set_num_threads(arguments.threads)
    if arguments.device == "cpu":
        machine.keep_freed_memory()  # for both sides
    for arch in arguments.archs:
        for row in measure(arch, arguments):
            print(*(f"{key}={value}" for key, value in row.items()))
            if not arguments.quick:
                measured.append("answers.csv", row, run_folder.command_line(), machine.describe(), arguments.device)


if __name__ == "__main__":
    main()
