"""Time `predict` from files to answers against the plain way, taking turns over the same photos.

python benchmarks/predicting.py --photos ../shared/data/flowers-102/jpg --arch b0
python benchmarks/predicting.py --photos DIR --quick        # a try: nothing is kept

The plain way is torchvision's own network and evaluation pipeline: Pillow decodes, one picture after the other, batches
of the same size, eager. Rows go to results/predicting.csv.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import measured
import torch
import torchvision
from PIL import Image
from torchvision.transforms import v2

from workbench import EfficientNetClassifier
from workbench.specs.weights import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from workbench.training import answers, machine, run_folder


@torch.inference_mode()
def plain(net: torch.nn.Module, files: Sequence[Path], size: Preprocessing, batch: int) -> torch.Tensor:
    """Return (N, 1000) probabilities by torchvision's evaluation pipeline."""
    pipeline = v2.Compose(
        [
            v2.Resize(size.resize, v2.InterpolationMode.BICUBIC),
            v2.CenterCrop(size.crop),
            v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(IMAGENET_MEAN, IMAGENET_STD),
        ]
    )
    found = []
    for start in range(0, len(files), batch):
        images = torch.stack([pipeline(Image.open(file).convert("RGB")) for file in files[start : start + batch]])
        found.append(net(images).softmax(1))
    return torch.cat(found)


def main() -> None:
    """Alternate both ways and keep the row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True, help="a folder of .jpg files")
    parser.add_argument("--count", type=int, default=128)
    parser.add_argument("--arch", default="b0", choices=[f"b{i}" for i in range(8)])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="3 rounds of 32 photos; prints only")
    arguments = parser.parse_args()
    count, rounds = (32, 3) if arguments.quick else (arguments.count, arguments.rounds)
    files = sorted(arguments.photos.glob("*.jpg"))[:count]
    theirs = getattr(torchvision.models, f"efficientnet_{arguments.arch}")(weights=None).eval()
    ours = EfficientNetClassifier(arguments.arch).eval()
    answers.set_to_answer(ours, "cpu")  # keeps freed memory, for both sides
    ways = {
        "ours": lambda: answers.most_probable(ours, files, arguments.batch, 3),
        "plain": lambda: plain(theirs, files, ours.preprocessing, arguments.batch),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, way in ways.items():
            began = time.perf_counter()
            way()
            if number:
                seconds[name].append(time.perf_counter() - began)
    ratios = [plain / own for plain, own in zip(seconds["plain"], seconds["ours"], strict=True)]
    row = {
        "arch": arguments.arch,
        "photos": len(files),
        "batch": arguments.batch,
        "threads": torch.get_num_threads(),
        **{f"{name}_images_per_second": round(len(files) / statistics.median(seconds[name]), 2) for name in ways},
        "times_faster": round(statistics.median(ratios), 3),
        "least": round(min(ratios), 3),
        "most": round(max(ratios), 3),
        "rounds": rounds,
    }
    print(*(f"{key}={value}" for key, value in row.items()))
    if not arguments.quick:
        measured.append("predicting.csv", row, run_folder.command_line(), machine.describe())


if __name__ == "__main__":
    main()
