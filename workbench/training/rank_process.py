"""One of the processes that `rank_launch.py` starts: it fits, and reports how that ended."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import threading
import traceback
from pathlib import Path

from workbench import recipe_files
from workbench.specs.errors import UserError
from workbench.training import ranks
from workbench.training.interrupts import Interrupted
from workbench.training.rank_launch import RECIPE, TASK, Report
from workbench.training.run import fit


def main(task_folder: str) -> None:
    """Fit as the task says, and leave with the command line's exit codes.

    Args:
        task_folder: Holds the recipe and task.json; the report is written there.
    """
    threading.Thread(target=_end_with_parent, daemon=True).start()
    task, rank = Path(task_folder), ranks.launched().rank
    content = json.loads((task / TASK).read_text(encoding="utf-8"))
    sys.argv = content["argv"]  # what command.txt tells
    try:
        recipe = recipe_files.load(str(task / RECIPE)).recipe
        resume = content["resume"]
        fit(recipe, resume=Path(resume) if resume else None)
        report = Report("done")
    except Interrupted as stop:
        report = Report("interrupted", text=stop.how, by=stop.by)
    except UserError as error:
        report = Report("mistake", problems=tuple(dataclasses.asdict(problem) for problem in error.problems))
    except Exception:
        report = Report("failed", text=traceback.format_exc())
    report.write(task, rank)
    sys.exit({"done": 0, "interrupted": 130, "mistake": 2}.get(report.state, 1))


def _end_with_parent() -> None:
    """End when the process that started this one is gone: its end of our standard input is closed then."""
    os.read(0, 1)  # not through sys.stdin, whose lock would be held at the end
    os._exit(1)
