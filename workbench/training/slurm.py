"""SLURM sends a signal before a job's time is over (`#SBATCH --signal=USR1@60`): save, queue again, go on by itself.

Lightning's own requeue saves wherever it is, in the middle of an accumulation too, and knows no run folder. Here the
job is noted in the run folder, and the same command in the same job, started again, goes on with that folder.
"""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

from workbench.training import run_folder

JOB = "slurm.json"


def job_id() -> str | None:
    """Return the id by which SLURM requeues this job, or None outside a job."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID")


def note_job(folder: Path) -> None:
    """Write down which job and command a run folder belongs to, if this is a job."""
    if job := job_id():
        run_folder.write_json(folder / JOB, {"job": job, "command": run_folder.command_line()})


def run_to_go_on_with(runs_dir: str, recipe_name: str) -> Path | None:
    """Return the newest unfinished run of this command in this job, if SLURM has started the job again."""
    job = job_id()
    if job is None or os.environ.get("SLURM_RESTART_COUNT", "0") in ("", "0"):
        return None
    wanted = {"job": job, "command": run_folder.command_line()}
    for noted in sorted(Path(runs_dir, recipe_name).glob(f"*/{JOB}"), reverse=True):
        folder = noted.parent
        is_whole = (folder / run_folder.RECIPE).is_file()
        if is_whole and not (folder / run_folder.RESULT).exists() and run_folder.read_json(noted) == wanted:
            return folder
    return None


def requeue(by: int | None) -> str | None:
    """Have SLURM start this job again, if it was stopped by SIGUSR1 within one.

    Args:
        by: The signal that it was stopped by.

    Returns:
        What came of it, for people; None if there was nothing to do: no job, another signal, not the first process.
    """
    job = job_id()
    if job is None or by != signal.SIGUSR1 or os.environ.get("SLURM_PROCID", "0") != "0":
        return None
    try:
        done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"job {job} was not queued again: {error}"
    return f"job {job}: " + ("queued again" if not done.returncode else f"not queued again: {done.stderr.strip()}")
