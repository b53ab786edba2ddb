"""`workbench page`: a run's page, made again from its files."""

from __future__ import annotations

from pathlib import Path

import click

from workbench.cli.app import SETTINGS


@click.command(context_settings=SETTINGS)
@click.argument("run", metavar="RUN", type=click.Path(path_type=Path))
@click.option("--without-pictures", is_flag=True, help="Leave the images out, as where they may not be shown.")
@click.argument("overrides", nargs=-1, type=click.UNPROCESSED, metavar="[data.KEY=VALUE ...]")
def command(run: Path, without_pictures: bool, overrides: tuple[str, ...]) -> None:
    """Make report.html of a finished run again; its numbers need no images, nothing is trained or scored.

    Pictures of the mistakes are drawn if the images are found, by the run's recipe or where the keys say.

    \b
    workbench page runs/quickstart/20261123-101500-a1b2c3
    workbench page RUN data.root=/elsewhere
    """  # noqa: D301 - click needs the character that \b stands for
    from workbench.training.page_again import page_again

    page, missing = page_again(run, overrides, pictures=not without_pictures)
    if missing:
        click.echo(missing, err=True)
    print(page)
