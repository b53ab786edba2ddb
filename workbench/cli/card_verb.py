"""`workbench card`: write the model card of a run."""

from __future__ import annotations

import click


@click.command()
@click.argument("model", metavar="RUN_OR_MODEL")
@click.option("--license", "licence", default="unknown", show_default=True, metavar="ID", help="As the hub calls it.")
@click.option("--overwrite", is_flag=True, help="Write over a card that may have been edited by hand.")
def command(model: str, licence: str, overwrite: bool) -> None:
    """Write README.md beside a model, as a hub shows it; edit it, and `push` sends it.

    \b
    workbench card RUN --license mit
    """  # noqa: D301 - click needs the character that \b stands for
    from workbench.atomic import disk_errors
    from workbench.models.portable import read_description
    from workbench.training.model_card import write_card

    folder, description = read_description(model)
    with disk_errors(folder):
        print(write_card(folder, description, licence, overwrite))
