"""The command `workbench`: verbs, exit codes and how mistakes are printed.

Exit codes: 0 done, 1 our fault (a traceback), 2 the user's mistake, 3 done but for files that `predict` could not read,
130 interrupted and resumable.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import io
import sys
import traceback
from collections.abc import Iterator

import click

from workbench import __version__
from workbench.specs.confidential import without_secrets
from workbench.specs.errors import UserError
from workbench.specs.printable import printable

VERBS = {
    "fit": "train by a recipe; `--plan` only says what would happen",
    "replay": "do the step again at which a loss was not finite: which layer breaks first",
    "probe": "solve for a linear head on embeddings; nearest neighbours, few images per class",
    "sweep": "search by a W&B sweep file, here; `--final` then retrains the best and opens test",
    "evaluate": "score a finished run or model again",
    "predict": "classify pictures with a finished run or model",
    "serve": "open a page on which to try a model, and the same over HTTP",
    "card": "write the model card of a run",
    "page": "make a run's report.html again",
    "push": "send a finished model to the Hugging Face hub or to W&B",
    "export": "write a model as ONNX, torch.export program, safetensors, OpenVINO or 8 bits; compared",
    "cam": "draw what models look at, a grid of class activation maps",
    "show": "print a recipe's values with where each came from",
    "validate": "check recipes without running them",
    "data": "list the datasets; fetch and prepare one; find what is wrong with one",
    "curve": "how a score grew with training images, and what twice as many would bring",
    "report": "put finished runs beside the paper's tables",
    "compare": "two runs on the same test images: what differs, and whether it is more than chance",
    "profile": "count and time networks beside what the paper prints",
    "list": "list recipes, archs, weights, datasets or runs",
    "completion": "let the shell complete verbs, recipes and runs",
}


GROUPS = {
    "Train": ("fit", "probe", "sweep", "replay"),
    "Use a model": ("predict", "serve", "cam", "export", "card", "push"),
    "Judge": ("evaluate", "report", "compare", "curve", "page", "profile"),
    "Look around": ("list", "show", "validate", "data", "completion"),
}
TRY = {
    "workbench fit --recipe quickstart": "a whole fit, offline; its last line is RUN",
    "workbench predict RUN photo.jpg": "what that model sees in your picture",
    "workbench fit --recipe any data.path=FOLDER": "on your own pictures, a folder per class",
}


class _Verbs(click.Group):
    """Loads a verb's module when it is asked for, so that looking at recipes never loads torch."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in VERBS:
            return None
        module = importlib.import_module(f"workbench.cli.{name}_verb")
        if not context.resilient_parsing:
            return module.command
        from workbench.cli.completions import attach  # a shell asks what could be typed here

        return attach(module.command)

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Try first"):
            formatter.write_dl(list(TRY.items()), col_max=44)
        for title, names in GROUPS.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(10), VERBS[name]) for name in names if name in VERBS])


@click.group(
    cls=_Verbs,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="workbench")
@click.pass_context
def app(context: click.Context) -> None:
    """Turn a published EfficientNet into a classifier of your own.

    Settings are given as key=value or --key=value, as in optim.lr=0.01. Examples: workbench VERB --help
    """
    if context.invoked_subcommand is None:
        print(context.get_help())


def main() -> None:
    """Run the command line and leave with its exit code."""
    try:
        with _names_that_fit():
            app(standalone_mode=False)
    except UserError as error:
        count = len(error.problems)
        print(f"{count} mistake{'s' if count > 1 else ''}:", file=sys.stderr)
        _say("\n".join(str(problem) for problem in error.problems))
        sys.exit(2)
    except click.UsageError as error:
        shown = io.StringIO()
        error.show(shown)
        _say(shown.getvalue().rstrip())
        sys.exit(2)
    except (KeyboardInterrupt, click.Abort):
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(0)
    except Exception:  # our fault; Python would show it too, with every secret and control character that is in it
        _say(traceback.format_exc().rstrip())
        sys.exit(1)


@contextlib.contextmanager
def _names_that_fit() -> Iterator[None]:
    """Say of a file or folder, wherever it was named, that no disk takes such a name."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        given = f"a name of {len(str(error.filename))} characters"
        raise UserError.of(f"{error.filename!s:.80}...", given, "at most 255 between slashes", "shorten it") from error


def _say(text: str) -> None:
    print(printable(without_secrets(text)), file=sys.stderr)


SETTINGS = {"ignore_unknown_options": True, "help_option_names": ["-h", "--help"]}
"""For verbs that take key=value and --key=value."""
