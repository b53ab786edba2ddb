"""Run a recipe over seeds and settings and append each result to a results file.

python benchmarks/fits.py quickstart --seeds 0 1 2 --out quickstart.csv
python benchmarks/fits.py quickstart --seeds 0 1 2 --out quickstart.csv model.weights=none
python benchmarks/fits.py --run runs/flowers_b0_cpu/20261123-101500-a1b2c3 --out flowers.csv
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import measured

from workbench import fit, load_recipe


def record(folder: Path, out: str, command: str) -> None:
    """Append the result of a finished run."""
    result = json.loads((folder / "result.json").read_text())
    row = {key: result[key] for key in ("recipe", "arch", "weights", "dataset", "metric", "seed")}
    row["weights"] = Path(row["weights"]).name if row["weights"] else "none"
    for split in ("selection", "test"):
        for name in ("top1", "mean_per_class", "n"):
            row[f"{split}_{name}"] = round(result[split][name], 5) if result[split] else ""
    for key in ("steps", "epochs", "images_per_second", "train_seconds", "seconds", "peak_memory_bytes"):
        row[key] = result[key]
    if result["stamps"]:
        row["stamps"] = " | ".join(result["stamps"])
    environment = json.loads((folder / "environment.json").read_text())
    measured.append(out, row, command, environment, "gpu" if environment["gpu"] else "cpu")
    print(row)


def main() -> None:
    """Fit every seed, or record a finished run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", nargs="?")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--out", required=True)
    parser.add_argument("--run", type=Path)
    arguments, overrides = parser.parse_known_args()
    if arguments.run:
        command = (arguments.run / "command.txt").read_text().strip()
        record(arguments.run, arguments.out, command)
        return
    for seed in arguments.seeds:
        settings = [*overrides, f"train.seed={seed}"]
        outcome = fit(load_recipe(arguments.recipe, settings).recipe)
        command = f"python -m workbench fit --recipe {arguments.recipe} {' '.join(settings)}"
        record(outcome.folder, arguments.out, command)


if __name__ == "__main__":
    main()
