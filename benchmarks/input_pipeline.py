"""Compare our way from JPEG files to batches with torchvision's PIL reference and timm's, on one core.

python benchmarks/input_pipeline.py --photos ../shared/data/oxford-iiit-pet/images
python benchmarks/input_pipeline.py --waiting --device gpu --workers 16     # what share of a step waits for images
python benchmarks/input_pipeline.py --quick                                 # a try: less of everything, nothing kept

The photos are 500 x 375 at one JPEG quality, by which they have 105 KB on average; made from those under `--photos`, or
from noise. Every side is a process with one thread, and they take turns; what counts is the processor's time, so that
other processes disturb little. Ours keep freed memory, as `fit` lets its loaders do. The reference's batches are
normalised; timm's and ours are bytes, normalised on the device. `normalised`: what ours are if the core does that too.
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import measured
import numpy as np
import torch
from PIL import Image
from torchvision import transforms

from workbench.data.datamodules import ImageFolderDataModule
from workbench.data.image_datamodule import ImageDataModule
from workbench.data.image_rows import collate
from workbench.data.images import IMAGE_ENDINGS
from workbench.data.order import Place
from workbench.data.pixel_use import keep_pixels
from workbench.data.transforms import normalise
from workbench.models.efficientnet import EfficientNet
from workbench.specs.weights import IMAGENET_MEAN, IMAGENET_STD
from workbench.training import machine, run_folder

PREFETCH = 2
"""Batches that a process of a loader has ready: PyTorch's own number."""
SIZE, BYTES, SIDE, BATCH = (500, 375), 105_000, 224, 32


def pictures(folder: Path | None, count: int) -> list[Image.Image]:
    """Return photos, or noise that is smooth at some scales, of `SIZE`."""
    if folder is not None:
        files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_ENDINGS)[:count]
        return [Image.open(file).convert("RGB").resize(SIZE, Image.Resampling.LANCZOS) for file in files]
    made = []
    for seed in range(count):
        random, total = np.random.default_rng(seed), np.zeros((SIZE[1], SIZE[0], 3))
        for cells, strength in ((5, 90), (40, 40), (160, 25)):
            coarse = Image.fromarray(random.integers(0, 256, (cells, cells, 3), dtype=np.uint8))
            total += strength / 128 * (np.asarray(coarse.resize(SIZE, Image.Resampling.BICUBIC)).astype(float) - 128)
        made.append(Image.fromarray((128 + total).clip(0, 255).astype(np.uint8)))
    return made


def write_photos(folder: Path, made: Sequence[Image.Image]) -> int:
    """Write a set of two classes at the quality whose mean size is next to `BYTES`; return that quality."""

    def encoded(quality: int, images: Sequence[Image.Image]) -> list[bytes]:
        buffers = [io.BytesIO() for _ in images]
        for image, buffer in zip(images, buffers, strict=True):
            image.save(buffer, "JPEG", quality=quality)
        return [buffer.getvalue() for buffer in buffers]

    def distance(quality: int) -> float:
        return abs(statistics.fmean(map(len, encoded(quality, made[::6]))) - BYTES)

    best = min(range(80, 101), key=distance)
    for number, data in enumerate(encoded(best, made)):
        path = folder / "train" / ("a", "b")[number % 2] / f"{number:04d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return best


def datamodule(folder: Path, kind: str, workers: int = 0) -> ImageDataModule:
    """Return the set with its pictures kept as `kind` says."""
    data = ImageFolderDataModule(path=folder / "set", prepared_root=folder / "prepared", num_workers=workers)
    keep_pixels(data, kind, None, 100)
    return data


def ours(folder: Path, kind: str, normalised: bool) -> Callable[[Sequence[int]], Any]:
    """Return what makes a batch of positions in our way: bytes, as a loader hands them on, or normalised as well."""
    data = datamodule(folder, kind)
    rows = data.train_dataloader().dataset

    def batch(items: Sequence[int]) -> torch.Tensor:
        images = collate([rows[1, i % len(rows)] for i in items]).images
        return normalise(images, data.preprocessing) if normalised else images

    return batch


def reference(folder: Path) -> Callable[[Sequence[int]], Any]:
    """Return the same by torchvision's classification reference with its PIL backend, bicubic."""
    files = sorted((folder / "set" / "train").rglob("*.jpg"))
    transform = transforms.Compose(
        [
            transforms.RandomResizedCrop(SIDE, interpolation=transforms.InterpolationMode.BICUBIC),
            transforms.RandomHorizontalFlip(),
            transforms.PILToTensor(),
            transforms.ConvertImageDtype(torch.float),
            transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD),
        ]
    )
    return lambda items: torch.stack([transform(Image.open(files[i % len(files)]).convert("RGB")) for i in items])


def timm_way(folder: Path) -> Callable[[Sequence[int]], Any]:
    """Return the same by timm's transform as its training script loads: bytes, normalised on the device."""
    from timm.data import create_transform
    from timm.data.loader import fast_collate

    files = sorted((folder / "set" / "train").rglob("*.jpg"))
    options = {"interpolation": "bicubic", "color_jitter": None, "use_prefetcher": True}
    transform = create_transform(SIDE, is_training=True, **options)
    return lambda items: fast_collate([(transform(Image.open(files[i % len(files)]).convert("RGB")), 0) for i in items])


def serve(pipe: Any, make: Callable, arguments: tuple, keeps_memory: bool) -> None:
    """Be a process that makes batches when it is told to, and says how much of the processor's time they took."""
    torch.set_num_threads(1)
    if keeps_memory:
        machine.keep_freed_memory()
    batch = make(*arguments)
    batch(range(BATCH))
    pipe.send(0.0)
    while count := pipe.recv():
        began = time.process_time()
        for start in range(0, count, BATCH):
            batch(range(start, start + BATCH))
        pipe.send(time.process_time() - began)


def alternate(sides: dict[str, tuple[Callable, tuple, bool]], count: int, rounds: int) -> dict[str, list[float]]:
    """Return images a second of each side in each round; each is a process, and they work one after another."""
    pipes, speeds = {}, {name: [] for name in sides}
    for name, side in sides.items():
        pipes[name], theirs = multiprocessing.Pipe()
        multiprocessing.get_context("spawn").Process(target=serve, args=(theirs, *side), daemon=True).start()
    for pipe in pipes.values():
        pipe.recv()
    for number in range(rounds):
        for name in list(sides)[:: 1 if number % 2 else -1]:
            pipes[name].send(count)
            speeds[name].append(count / pipes[name].recv())
    for pipe in pipes.values():
        pipe.send(0)
    return speeds


def compare(folder: Path, arguments: argparse.Namespace, told: dict[str, Any]) -> None:
    """Measure all sides and record each."""
    for kind in ("jpeg", "raw"):
        datamodule(folder, kind)  # made before anybody reads it
    kinds = [(kind, normalised) for kind in ("off", "jpeg", "raw") for normalised in (False, True)]
    sides = {f"ours {k}{' normalised' * normalised}": (ours, (folder, k, normalised), True) for k, normalised in kinds}
    sides |= {"pil": (reference, (folder,), False), "timm": (timm_way, (folder,), False)}
    speeds = alternate(sides, -(-arguments.images // BATCH) * BATCH, arguments.rounds)
    for name in sides:
        row = {"side": name, **told, "images_per_second": round(statistics.median(speeds[name]), 1)}
        for other in ("pil", "timm"):
            ratios = [a / b for a, b in zip(speeds[name], speeds[other], strict=True)]
            spread = statistics.median(ratios), min(ratios), max(ratios)
            row |= {f"over_{other}{part}": round(v, 2) for part, v in zip(("", "_least", "_most"), spread, strict=True)}
        print(row)
        if not arguments.quick:
            measured.append("input_pipeline.csv", row, run_folder.command_line(), machine.describe())


def waiting(folder: Path, arguments: argparse.Namespace, told: dict[str, Any]) -> None:
    """Measure B0 training steps with loaded batches and with one batch again and again."""
    device = torch.device("cuda" if arguments.device == "gpu" else "cpu")
    net = EfficientNet("b0", 2).to(device, memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9)
    kinds = ("off", "raw")
    loaders = {kind: datamodule(folder, kind, arguments.workers) for kind in kinds}
    batch = torch.zeros(arguments.batch, 3, SIDE, SIDE, dtype=torch.uint8, device=device)
    targets = torch.zeros(arguments.batch, dtype=torch.int64, device=device)
    warm = 3 + 2 * PREFETCH * arguments.workers  # else batches that were loaded ahead hide what the rest waits for

    def step(images: torch.Tensor) -> None:
        images = normalise(images.to(device, non_blocking=True), loaders["off"].preprocessing)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            logits = net(images.contiguous(memory_format=torch.channels_last))
        loss = torch.nn.functional.cross_entropy(logits.float(), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def seconds(source: Any) -> float:
        source = iter(source)
        for _ in range(warm):  # processes start, kernels are chosen, what was loaded ahead is used up
            step(next(source))
        if device.type == "cuda":
            torch.cuda.synchronize()
        began = time.perf_counter()
        for _ in range(arguments.steps):
            step(next(source))
        if device.type == "cuda":
            torch.cuda.synchronize()
        return (time.perf_counter() - began) / arguments.steps

    def loaded(kind: str) -> torch.utils.data.DataLoader:
        rows = loaders[kind].train_dataloader().dataset
        count = (arguments.steps + warm) * arguments.batch
        order = np.resize(np.arange(len(rows)), count).reshape(-1, arguments.batch)
        batches = [[Place(1, int(i), int(some[0])) for i in some] for some in order]
        options = {"num_workers": arguments.workers, "pin_memory": device.type == "cuda"}
        options["prefetch_factor"] = PREFETCH if arguments.workers else None
        return torch.utils.data.DataLoader(rows, batch_sampler=batches, collate_fn=_images, **options)

    shares: dict[str, list[float]] = {kind: [] for kind in kinds}
    for _ in range(arguments.rounds):
        still = seconds([batch] * (arguments.steps + warm))
        for kind in kinds:
            shares[kind].append(1 - still / seconds(loaded(kind)))
    for kind in kinds:
        row = {"prepare": kind, **told, "arch": "b0", "device": arguments.device, "batch": arguments.batch}
        row |= {"workers": arguments.workers, "step_ms": round(1000 * still, 1)}
        spread = statistics.median(shares[kind]), min(shares[kind]), max(shares[kind])
        row |= {f"waiting{part}": round(v, 4) for part, v in zip(("", "_least", "_most"), spread, strict=True)}
        print(row)
        if not arguments.quick:
            measured.append("input_waiting.csv", row, run_folder.command_line(), machine.describe(), arguments.device)


def _images(items: list) -> torch.Tensor:
    return collate(items).images


def main() -> None:
    """Make the photos, measure, record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, help="folder of real photos; noise if left out")
    parser.add_argument("--images", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--waiting", action="store_true")
    parser.add_argument("--device", choices=["cpu", "gpu"], default="cpu")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.rounds, arguments.steps = 3, 3
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        made = pictures(arguments.photos, arguments.images)
        quality = write_photos(folder / "set", made)
        sizes = [path.stat().st_size for path in (folder / "set").rglob("*.jpg")]
        told = {"photos": "real" if arguments.photos else "noise", "quality": quality, "n": len(sizes)}
        told["kilobytes"] = round(statistics.fmean(sizes) / 1000, 1)
        (waiting if arguments.waiting else compare)(folder, arguments, told)


if __name__ == "__main__":
    main()
