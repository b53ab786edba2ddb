"""`workbench profile`: what networks hold and compute, and how fast they are here, beside what the paper prints."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.table import Table

from workbench.atomic import disk_errors, replacing
from workbench.cli.waiting import waiting
from workbench.overrides import parse_overrides
from workbench.specs.errors import Problem, UserError

if TYPE_CHECKING:
    from workbench.analysis.profile import Protocol


@click.command()
@click.argument("archs", nargs=-1, required=True, metavar="ARCH...")
@click.option("--resolution", type=int, metavar="PIXELS", help="One input size for all; default: each one's own.")
@click.option("--runs", type=click.IntRange(min=1), default=20, show_default=True, help="Timed passes of one image.")
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True, help="Threads for those.")
@click.option("--batch", type=click.IntRange(min=1), metavar="IMAGES", help="Also images/s in batches, all threads.")
@click.option("--device", type=click.Choice(["cpu", "gpu"]), default="cpu", show_default=True)
@click.option("--layout", type=click.Choice(["channels_last", "contiguous"]), default="channels_last")
@click.option("--against", metavar="ARCH", help="What ratios are taken against; default: the first.")
@click.option("--no-time", is_flag=True, help="Only count.")
@click.option("--csv", "csv_file", metavar="FILE", type=click.Path(path_type=Path), help="Also write the rows.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@click.option("--figures", metavar="DIR", type=click.Path(path_type=Path), help="Also draw Figures 5, 8 and Table 3.")
def command(archs: tuple[str, ...], csv_file: Path | None, as_json: bool, figures: Path | None, **options: Any) -> None:
    """Profile networks with random weights; the default is the paper's Table 4: one thread, one image, mean of 20.

    \b
    workbench profile b0 b1 resnet50 resnet152 --against b1
    workbench profile '{family: resnet50, width: 2}' '{width: 2}' --no-time
    """  # noqa: D301 - click needs the character that \b stands for
    from workbench.analysis.profile import Protocol, profile
    from workbench.training import machine

    if options["device"] == "cpu" and not options["no_time"]:
        machine.keep_freed_memory()  # as in a fit; a pass that maps its memory anew is slower
    protocol = Protocol(
        runs=options["runs"],
        threads=options["threads"],
        batch=options["batch"],
        device=options["device"],
        channels_last=options["layout"] == "channels_last",
        timed=not options["no_time"],
    )
    networks = [_arch(text) for text in archs]
    with waiting("counting and timing" if protocol.timed else "counting", protocol.timed):
        rows = profile(networks, protocol, options["resolution"], options["against"])
    if csv_file:
        _write(rows, csv_file)
    if as_json:
        print(json.dumps(rows, indent=1))
    else:
        _print(rows, _how(protocol, machine.hardware_name(machine.describe(), protocol.device)))
    if figures:
        from workbench.analysis.figures import draw_all

        with disk_errors(figures, "name another --figures folder"):
            for path in draw_all(figures):
                print(path, file=sys.stderr)


def _write(rows: list[dict[str, Any]], path: Path) -> None:
    with disk_errors(path.parent, "name another --csv file"), replacing(path) as beside:
        with beside.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)


def _arch(text: str) -> Any:
    """Read an architecture as `model.arch` is read: a name, or a mapping."""
    problems: list[Problem] = []
    read = parse_overrides([f"model.arch={text}"], problems)
    if problems:
        raise UserError(*problems)
    return read["model"]["arch"]


def _how(protocol: Protocol, hardware: str) -> str:
    if not protocol.timed:
        return "counted for one image; random weights, 1000 classes"
    where = hardware if protocol.device == "gpu" else f"{hardware} cores, {protocol.threads} thread(s)"
    batch = f"; images/s in batches of {protocol.batch}, all threads" if protocol.batch else ""
    return f"latency: one image, mean of {protocol.runs} after a warm-up, on {where}{batch}"


def _print(rows: list[dict[str, Any]], how: str) -> None:
    """Print two tables: what was counted, beside what the paper prints; and what was timed."""
    console = Console(highlight=False) if sys.stdout.isatty() else Console(highlight=False, width=170)
    columns = (
        "px",
        "params M",
        "printed",
        "x",
        "MAdds G",
        "printed",
        "x",
        "top-1 printed",
        "activations M",
        "peak MiB",
    )
    counted = Table("model", *columns)
    for row in rows:
        counted.add_row(
            row["arch"],
            str(row["resolution"]),
            f"{row['parameters'] / 1e6:.2f}",
            row["paper_params_m"],
            f"{row['x_parameters']:.2f}",
            f"{row['madds'] / 1e9:.3f}",
            row["paper_flops_b"],
            f"{row['x_madds']:.2f}",
            row["paper_top1"],
            f"{row['activations'] / 1e6:.1f}",
            f"{row['peak_bytes'] / 2**20:.0f}",
        )
    console.print(counted)
    if "latency_mean" in rows[0]:
        timed = Table("model", "latency ms", "median", "sd", "latency x", "images/s", "x", "GPU peak MiB")
        for row in rows:
            cells = [f"{1e3 * row[f'latency_{name}']:.1f}" for name in ("mean", "median", "sd")]
            cells.append(f"{row['x_latency']:.2f}")
            fast = "images_per_second" in row
            cells += [f"{row['images_per_second']:.1f}", f"{row['x_speed']:.2f}"] if fast else ["", ""]
            cells.append(f"{row['gpu_peak_bytes'] / 2**20:.0f}" if "gpu_peak_bytes" in row else "")
            timed.add_row(row["arch"], *cells)
        console.print(timed)
    console.print(how)
