"""What a shell can complete beyond verbs and options: names of recipes, and run folders below `runs/`."""

from __future__ import annotations

from pathlib import Path

import click
from click.shell_completion import CompletionItem

from workbench import recipe_files

RUNS = Path("runs")
"""Where recipes put runs, seen from where the command is typed."""


class RecipeName(click.ParamType):
    """A recipe: the name of a shipped one, or else a file."""

    name = "text"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Return shipped names, or the word that makes the shell complete files."""
        names = (*recipe_files.list_recipes(), *recipe_files.list_protocols())
        return _starting(names, incomplete)


class RunFolder(click.ParamType):
    """A run folder, or else a file or folder.

    Args:
        unfinished: Only runs that can go on.
    """

    name = "text"

    def __init__(self, unfinished: bool = False):
        self.unfinished = unfinished

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Return runs, or the word that makes the shell complete files."""
        folders = sorted(path.parent for path in RUNS.glob("*/*/recipe.yaml"))
        return _starting(
            [str(folder) for folder in folders if (folder / "result.json").is_file() != self.unfinished], incomplete
        )


def _starting(words: list[str] | tuple[str, ...], incomplete: str) -> list[CompletionItem]:
    found = [CompletionItem(word) for word in words if word.startswith(incomplete)]
    return found or [CompletionItem(incomplete, type="file")]  # click's word for the shell's own completion of files


def attach(command: click.Command) -> click.Command:
    """Let a verb's recipes and runs be completed, told by what its help calls them; return the verb."""
    if isinstance(command, click.Group):
        for inner in command.commands.values():
            attach(inner)
    for parameter in command.params:
        shown = parameter.metavar or ""
        if parameter.type is not click.STRING:
            continue
        if parameter.name == "recipe_name" or "RECIPE" in shown:
            parameter.type = RecipeName()
        elif "RUN" in shown or shown == "MODEL":
            parameter.type = RunFolder(unfinished=parameter.name == "resume")
    return command
