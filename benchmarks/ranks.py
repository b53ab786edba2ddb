"""Fit the same small recipe by one process, by two, and by two torchrun "nodes" on loopback, and put them side by side.

python benchmarks/ranks.py             # every variant, into results/ranks.csv
python benchmarks/ranks.py --quick     # the first variant; nothing is kept

The set is rendered: 8 species of the embedded blossoms, 12 training, 4 selection pictures each, and 21 test pictures,
which two processes cannot share evenly. Dropout and stochastic depth are off: each process draws its own.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import measured
from PIL import Image
from safetensors.torch import load_file

from workbench import ImageDataModule
from workbench.training import machine, run_folder
from workbench.training.metrics_csv import read_metrics

SMALL = ["data.path=photos", "model.arch=tiny", "model.weights=embedded/blossoms", "data.resolution=64"]
SMALL += ["train.rule=none", "data.batch_size=16", "train.total_epochs=4", "train.num_validations=4", "optim.name=sgd"]
SMALL += ["optim.lr=0.01", "model.drop_path=0", "model.dropout=0", "train.pick=last", "track.wandb=off"]
SMALL += ["data.num_workers=0"]
VARIANTS = {
    "BatchNorm over all": ["train.sync_bn=true"],
    "mixup, BatchNorm over all": ["train.sync_bn=true", "augment.mixup_alpha=0.2", "augment.cutmix_alpha=1"],
    "BatchNorm each for itself": ["train.sync_bn=false"],
}
HALVED = ["train.micro_batch_size=8"]
"""What one process needs for the BatchNorm of two that do not look at each other's images."""


def paint(folder: Path) -> None:
    """Write the pictures."""
    data = ImageDataModule(card="blossoms")
    counts = {"train": 12, "val": 4, "test": 3}
    for split, source in (("train", "train"), ("val", "selection"), ("test", "test")):
        left = {label: counts[split] for label in range(8)}
        if split == "test":
            left |= {5: 2, 6: 2, 7: 2}
        for row in data.rows(source):
            label = int(data.table.labels[row])
            if left.get(label, 0):
                left[label] -= 1
                place = folder / split / f"species{label}"
                place.mkdir(parents=True, exist_ok=True)
                Image.fromarray(data.table.images[row]).save(place / f"{row}.png")


def fitted(where: Path, *settings: str, nodes: int = 1) -> Path:
    """Fit, and return the run folder."""
    fit = ["workbench", "fit", "--recipe", "any", *SMALL, *settings]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    commands = [[sys.executable, "-m", *fit]]
    if nodes > 1:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        torchrun = [sys.executable, "-m", "torch.distributed.run", f"--nnodes={nodes}", "--nproc-per-node=1"]
        torchrun += ["--rdzv-backend=static", "--master-addr=127.0.0.1", f"--master-port={port}"]
        commands = [[*torchrun, f"--node-rank={rank}", "-m", *fit] for rank in range(nodes)]
    options = {"cwd": where, "env": environment, "text": True, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    running = [subprocess.Popen(command, **options) for command in commands]
    told = [process.communicate() for process in running]
    if any(process.returncode for process in running):
        raise SystemExit("\n".join(error[-2000:] for _, error in told))
    return where / told[0][0].splitlines()[-1]


def beside(name: str, what: str, one: Path, other: Path) -> dict[str, Any]:
    """Compare a run by several processes with one by a single one."""
    results = [json.loads((run / run_folder.RESULT).read_text()) for run in (one, other)]
    weights = [load_file(run / "model.safetensors") for run in (one, other)]
    rows = [read_metrics(run / run_folder.METRICS) for run in (one, other)]
    losses = [[row["val/loss"] for row in run if "val/loss" in row] for run in rows]
    learned = [key for key in weights[0] if "running_" not in key and "num_batches" not in key]
    apart = max(float((weights[0][key].double() - weights[1][key].double()).abs().max()) for key in learned)
    size = max(float(weights[0][key].double().abs().max()) for key in learned)
    return {
        "variant": name,
        "processes": what,
        "n": results[1]["test"]["n"],
        "top1_one": round(results[0]["test"]["top1"], 6),
        "top1": round(results[1]["test"]["top1"], 6),
        "loss_one": round(results[0]["test"]["loss"], 7),
        "loss": round(results[1]["test"]["loss"], 7),
        "largest_difference_of_validation_loss": max(abs(a - b) for a, b in zip(*losses, strict=True)),
        "largest_difference_of_a_weight": apart,
        "largest_weight": round(size, 3),
        "same_predictions": (one / "predictions.csv").read_text() == (other / "predictions.csv").read_text(),
    }


def main() -> None:
    """Fit every variant, print and keep the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    with tempfile.TemporaryDirectory() as folder:
        where = Path(folder)
        paint(where / "photos")
        for name, settings in list(VARIANTS.items())[: 1 if quick else None]:
            halved = HALVED if "itself" in name else []
            one = fitted(where, *settings, *halved)
            ways = {"2 processes": fitted(where, *settings, "train.devices=2")}
            if not quick:
                ways["2 torchrun nodes of 1"] = fitted(where, *settings, "train.num_nodes=2", nodes=2)
            for what, run in ways.items():
                row = beside(name, what, one, run)
                print(row)
                if not quick:
                    measured.append("ranks.csv", row, run_folder.command_line(), machine.describe())


if __name__ == "__main__":
    main()
