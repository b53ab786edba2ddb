"""`workbench completion`: what makes a shell complete verbs, options, recipes and runs."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
def command(shell: str) -> None:
    """Print a script for the shell to read at its start.

    \b
    workbench completion bash > ~/.local/share/bash-completion/completions/workbench
    workbench completion zsh > ~/.workbench.zsh        (and in ~/.zshrc: source ~/.workbench.zsh)
    workbench completion fish > ~/.config/fish/completions/workbench.fish
    """  # noqa: D301 - click needs the character that \b stands for
    from workbench.cli.app import app

    made = get_completion_class(shell)
    print(made(app, {}, "workbench", "_WORKBENCH_COMPLETE").source())
