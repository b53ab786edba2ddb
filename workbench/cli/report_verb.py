"""`workbench report`: finished runs beside what the paper prints."""

from __future__ import annotations

from pathlib import Path

import click

from workbench.cli.waiting import waiting


@click.command()
@click.argument("paths", nargs=-1, metavar="RUN_OR_FOLDER...")
@click.option(
    "--wandb", "exports", multiple=True, metavar="EXPORT.csv", help="Also rows of W&B's runs table, exported."
)
@click.option(
    "--out", default="report", show_default=True, type=click.Path(file_okay=False, path_type=Path), help="Folder."
)
def command(paths: tuple[str, ...], exports: tuple[str, ...], out: Path) -> None:
    """Put runs beside the paper's Tables 5 and 2 and its Figure 6: report.md, report.csv, report.html, figure6.png.

    Runs that differ by seed only are averaged; others never are. Each figure says its interval and n.

    \b
    workbench report runs/ --out report
    workbench report runs/cars_b7 sweeps/flowers --wandb export.csv
    workbench report runs/ imagenet_b0.json      (from evaluate --json)
    """  # noqa: D301 - click needs the character that \b stands for
    from workbench.analysis.report import make_report, write_report
    from workbench.analysis.report_sections import briefly
    from workbench.atomic import disk_errors
    from workbench.specs.errors import UserError

    if not paths and not exports:
        raise UserError.of(
            "report", "nothing", "run folders, or --wandb EXPORT.csv", "name what to report on, as runs/"
        )
    with waiting("reading runs"):
        report = make_report(paths, exports)
    with disk_errors(out, "give --out another place"):
        written = write_report(report, out)
    print(briefly(report))
    for path in written:
        print(path)
