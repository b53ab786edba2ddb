"""Count the networks of the paper's tables, and time those of its Table 4 (one thread, one image, mean of 20).

python benchmarks/profile_paper.py --count     # results/scaling.csv (Tables 3 and 7), results/imagenet_models.csv (2)
python benchmarks/profile_paper.py --time      # results/latency.csv: all networks in one run, so that ratios hold
"""

from __future__ import annotations

import argparse
from typing import Any

import measured

from workbench.analysis.paper_tables import imagenet_rows, scaling_rows
from workbench.analysis.profile import Protocol, profile
from workbench.specs.paper_models import TABLE_4
from workbench.training import machine, run_folder


def _count() -> None:
    """Write both tables anew: counts are exact, and the same everywhere."""
    for name, rows in (("scaling.csv", scaling_rows()), ("imagenet_models.csv", imagenet_rows())):
        (measured.RESULTS / name).unlink(missing_ok=True)
        for row in rows:
            row = {key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()}
            measured.append(name, row, run_folder.command_line(), machine.describe())
        print(f"{len(rows)} rows in results/{name}")


def _time(arguments: argparse.Namespace) -> None:
    """Append one run of Table 4."""
    if arguments.device == "cpu" and arguments.keep_memory:
        machine.keep_freed_memory()
    protocol = Protocol(
        arguments.runs,
        arguments.threads,
        arguments.batch,
        arguments.device,
        channels_last=arguments.layout == "channels_last",
    )
    for row in profile(arguments.archs, protocol, against=arguments.against):
        made: dict[str, Any] = {
            "arch": row["arch"],
            "resolution": row["resolution"],
            "device": arguments.device,
            "threads": arguments.threads,
            "layout": arguments.layout,
            "keep_freed_memory": arguments.keep_memory,
            "runs": arguments.runs,
            **{f"{name}_ms": round(1e3 * row[f"latency_{name}"], 3) for name in ("mean", "median", "sd")},
            "against": arguments.against,
            "times_slower": round(row["x_latency"], 3),
            "paper": _printed(row["arch"], arguments.against),
            "batch": arguments.batch,
            "images_per_second": round(row["images_per_second"], 2) if arguments.batch else None,
            "gpu_peak_bytes": row.get("gpu_peak_bytes"),
        }
        measured.append("latency.csv", made, run_folder.command_line(), machine.describe(), arguments.device)
        print(made)


def _printed(arch: str, against: str) -> str:
    """Return the ratio that Table 4 prints for two networks, if it does."""
    return next((f"{ratio} x" for big, small, _, _, ratio in TABLE_4 if (big, small) == (arch, against)), "")


def main() -> None:
    """Count, time, or both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", action="store_true")
    parser.add_argument("--time", action="store_true")
    parser.add_argument("--archs", nargs="+", default=["b1", "resnet152", "b0", "resnet50", "b7"])
    parser.add_argument("--against", default="b1")
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, help="also images/s in batches of this many")
    parser.add_argument("--layout", choices=["channels_last", "contiguous"], default="channels_last")
    parser.add_argument("--keep-memory", type=int, default=1, help="0: leave the allocator as it is")
    parser.add_argument("--device", choices=["cpu", "gpu"], default="cpu")
    arguments = parser.parse_args()
    if not (arguments.count or arguments.time):
        parser.error("nothing to do: --count, --time or both")
    if arguments.count:
        _count()
    if arguments.time:
        _time(arguments)


if __name__ == "__main__":
    main()
