"""`workbench push`: send a finished model to the Hugging Face hub or to W&B."""

from __future__ import annotations

import click


@click.command()
@click.argument("model", metavar="RUN_OR_MODEL")
@click.argument("target", metavar="TARGET")
@click.option("--public", is_flag=True, help="Make the hub's repository open to everybody; else it is private.")
@click.option("--update", is_flag=True, help="Add a version to a repository of the hub that holds something.")
@click.option(
    "--license", "licence", metavar="ID", help="For the model card, as the hub calls it: mit, apache-2.0, ..."
)
@click.option("--alias", "aliases", multiple=True, help="Of W&B, beside latest; may be given several times.")
def command(model: str, target: str, public: bool, update: bool, licence: str | None, aliases: tuple[str, ...]) -> None:
    """Send a model with its card, recipe and result; TARGET is hub:owner/name or wandb:entity/project/name.

    \b
    workbench push RUN hub:me/my-flowers --license mit
    workbench push RUN hub:me/my-flowers --update
    workbench push RUN wandb:me/flowers/best --alias production
    """  # noqa: D301 - click needs the character that \b stands for
    from workbench.training.pushing import push

    print(push(model, target, public=public, update=update, licence=licence, aliases=aliases))
