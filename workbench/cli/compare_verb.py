"""`workbench compare`: two finished runs on the same test images."""

from __future__ import annotations

from pathlib import Path

import click

from workbench.cli.waiting import waiting


@click.command()
@click.argument("first", metavar="RUN")
@click.argument("second", metavar="RUN")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="Also write Markdown, CSVs and a page.")
def command(first: str, second: str, out: Path | None) -> None:
    """Compare two runs image by image: scores, what chance could do, calibration, classes, images that flipped.

    \b
    workbench compare runs/quickstart/20261123-101500-a1b2c3 runs/quickstart/20261123-103000-d4e5f6
    workbench compare RUN RUN --out compared
    """  # noqa: D301 - click needs the character that \b stands for
    from workbench.analysis.compare import compare
    from workbench.analysis.compare_sections import sections, write_comparison
    from workbench.analysis.report_pages import to_markdown
    from workbench.atomic import disk_errors

    with waiting("comparing image by image"):
        found = compare(first, second)
    print(to_markdown("Two runs compared", sections(found, is_short=True)))
    if out is not None:
        with disk_errors(out, "give --out another place"):
            for path in write_comparison(found, out):
                print(path)
