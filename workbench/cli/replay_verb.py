"""`workbench replay`: do the step again at which a fit's loss was not finite, and say what broke first."""

from __future__ import annotations

import click

from workbench.cli.app import SETTINGS


@click.command(context_settings=SETTINGS)
@click.argument("run", metavar="RUN_OR_CAPTURE")
def command(run: str) -> None:
    """Do the step again at which a fit stopped because its loss was not finite; nothing is written.

    \b
    workbench replay runs/quickstart/20261123-101500-a1b2c3
    workbench replay runs/quickstart/20261123-101500-a1b2c3/capture
    """  # noqa: D301 - click needs the character that \b stands for
    from workbench.training.replay import replay

    done = replay(run)
    print(f"step {done.step}, epoch {done.epoch}")
    print(f"losses of its micro-batches: {', '.join(f'{loss:.6g}' for loss in done.losses) or 'none was reached'}")
    print(f"first that is not finite: {done.first or 'nothing; this time the step is in order'}")
    print("images: " + ", ".join(done.ids))
