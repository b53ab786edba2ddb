"""`workbench sweep`: run a W&B sweep file here, without an account; then the final runs on test."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import click
from rich.console import Console

from workbench.cli.app import SETTINGS
from workbench.specs.errors import UserError
from workbench.sweeps.sweep_files import Sweep, read_sweep


@click.command(context_settings=SETTINGS)
@click.argument("file", metavar="FILE")
@click.argument("overrides", nargs=-1, type=click.UNPROCESSED, metavar="[KEY=VALUE ...]")
@click.option("--dir", "folder", metavar="DIR", help="The sweep's folder; without it sweeps/ and the file's name.")
@click.option("--devices", type=click.IntRange(1), metavar="N", help="A trial on each of N GPUs at once.")
@click.option("--parallel", type=click.IntRange(1), metavar="N", help="N trials at once on the one device.")
@click.option("--seed", type=click.IntRange(0), default=0, help="Seed of random and bayes.")
@click.option("--retry-failed", is_flag=True, help="Run failed trials again.")
@click.option("--final", is_flag=True, help="Then retrain the best on train + selection and open test, once per seed.")
@click.option("--seeds", type=click.IntRange(1), metavar="K", help="Final runs, with seeds 0 to K-1; without it 3.")
@click.option("--final-set", multiple=True, metavar="KEY=VALUE", help="What differs in the final runs; recorded.")
@click.option("--plan", is_flag=True, help="Only say what would happen.")
def command(file: str, overrides: tuple[str, ...], folder: str | None, plan: bool, **options) -> None:
    """Run the trials of a W&B sweep file, on after an interruption; the last line printed is the sweep's folder.

    \b
    workbench sweep recipes/sweeps/kornblith_grid.yaml --devices 4
    workbench sweep flowers_reduced data.root=~/sets --final --seeds 3
    """  # noqa: D301 - click needs the character that \b stands for
    if not options["final"] and (options["seeds"] or options["final_set"]):
        raise UserError.of("sweep", "--seeds or --final-set", "only with --final", "add --final")
    if options["devices"] and options["parallel"]:
        raise UserError.of("sweep", "--devices and --parallel", "one of them", "leave one out")
    sweep = read_sweep(file, overrides)
    if options["final"]:
        from workbench.sweeps.final_settings import check_changed

        check_changed(sweep, options["final_set"])
    where = Path(folder or f"sweeps/{sweep.path.stem}")
    if plan:
        from workbench.sweeps.search_plan import plan_lines

        print("\n".join(plan_lines(sweep, where, options["seeds"] or 3 if options["final"] else 0)))
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # a scheduler's end of time is a Ctrl-C
    try:
        _run(sweep, where, options)
    except KeyboardInterrupt:
        from workbench.training.run_folder import command_line

        print(f"interrupted; every trial is kept in {where}; go on with: {command_line()}", file=sys.stderr)
        sys.exit(130)
    finally:
        signal.signal(signal.SIGTERM, before)


def _run(sweep: Sweep, folder: Path, options: dict) -> None:
    try:
        from workbench.sweeps import final, leaderboard, processes, same_sweep
        from workbench.sweeps.search import Search
    except ModuleNotFoundError as error:
        remedy = "pip install 'efficientnet-workbench[sweep]'"
        raise UserError.of("sweep", f"no {error.name} installed", "the extra `sweep`", remedy) from error
    from workbench.training import run_folder

    slots = _slots(options["devices"], options["parallel"])
    errors = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    console = Console(highlight=False, soft_wrap=True) if sys.stdout.isatty() else Console(highlight=False, width=160)
    with processes.alone(folder):
        search = Search(sweep, folder, options["seed"], len(slots) > 1, errors.print)
        same_sweep.check_same(search)
        if options["retry_failed"]:
            same_sweep.check_opened(folder, search)
        run_folder.write_text(folder / "sweep.yaml", sweep.text)
        search.begin(options["retry_failed"])
        try:
            processes.run_all(search.take, slots, search.watch, search.ended)
        finally:
            search.write_leaderboard()
        names = search.searched()
        title = f"{sweep.name}: {sweep.metric} on the selection split"
        console.print(leaderboard.table(title, sweep.metric, names, search.rows()))
        if options["final"]:
            content = final.run_final(search, options["seeds"] or 3, options["final_set"], slots)
            table, lines = final.final_table(content)
            console.print(table)
            print("\n".join(lines))
    print(folder)


def _slots(devices: int | None, parallel: int | None) -> list[dict[str, str]]:
    """Return the environment of each place where a trial can run."""
    if devices is None:
        count = parallel or 1
        threads = str(max(1, (os.cpu_count() or 1) // count))
        own = {} if count == 1 or "OMP_NUM_THREADS" in os.environ else {"OMP_NUM_THREADS": threads}
        return [dict(own) for _ in range(count)]
    import torch

    found = torch.cuda.device_count()
    if found < devices:
        remedy = f"--devices {found}" if found else "leave --devices out; --parallel N runs several on the CPU"
        raise UserError.of("sweep: --devices", devices, f"{found}, the GPUs that torch sees", remedy)
    visible = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return [{"CUDA_VISIBLE_DEVICES": name} for name in (visible or map(str, range(found)))][:devices]
