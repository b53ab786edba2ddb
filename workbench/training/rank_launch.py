"""Start a fit's processes on this machine, pass signals on, and end as they end.

Each is `rank_process.py` in an interpreter of its own, so that it works from the command line, a script and a notebook.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from workbench.specs.errors import Problem, UserError
from workbench.training import interrupts, ranks, run_folder

TASK, RECIPE = "task.json", "recipe.yaml"
GRACE_SECONDS = interrupts.PATIENCE_SECONDS + 10
"""How long processes may take to save and end once they are asked to, or once one of them has failed."""
_POLL_SECONDS = 0.05


def fit_in_processes(recipe_text: str, count: int, resume: Path | None, on_cpu: bool) -> Path:
    """Fit in `count` processes of this machine.

    Args:
        recipe_text: The recipe as YAML.
        count: Processes.
        resume: A run folder to go on with.
        on_cpu: Whether they share this machine's cores.

    Returns:
        The run folder.

    Raises:
        UserError: As one of them has raised it, or the system has ended one.
        Interrupted: By a signal to this process, which was passed on, or to one of them.
        RuntimeError: One of them has failed by a fault of ours; its text is the traceback.
    """
    with tempfile.TemporaryDirectory(prefix="workbench-ranks-") as name:
        task = Path(name)
        (task / RECIPE).write_text(recipe_text, encoding="utf-8")
        content = {"resume": resume and str(resume), "argv": sys.argv, "path": sys.path}
        (task / TASK).write_text(json.dumps(content), encoding="utf-8")
        with interrupts.interruptible() as stop:
            processes = _start(task, count, on_cpu)
            try:
                _supervise(processes, stop)
            finally:
                lost = [(rank, -p.returncode) for rank, p in enumerate(processes) if (p.poll() or 0) < 0]
                _end(processes)
        return _outcome(task, count, lost, resume)


def _start(task: Path, count: int, on_cpu: bool) -> list[subprocess.Popen]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    environment |= {"TORCHELASTIC_RUN_ID": "workbench", "GROUP_RANK": "0"}
    environment |= {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count), ranks.STARTER: str(task)}
    if sys.platform == "linux":
        environment.setdefault("GLOO_SOCKET_IFNAME", "lo")  # else it looks this machine's name up
    if on_cpu:
        environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // count)))
    started = []
    for rank in range(count):
        own = {**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)}
        command = [sys.executable, "-c", _BOOT, str(task)]
        # A session of their own: Ctrl-C reaches this process alone, which passes it on. Their standard input is how
        # they learn that this process is gone.
        streams = {"stdin": subprocess.PIPE, "stdout": 2}
        started.append(subprocess.Popen(command, env=own, start_new_session=True, **streams))
    return started


_BOOT = (
    "import json, sys; task = sys.argv[1]; sys.path[:] = json.load(open(task + '/task.json'))['path']; "
    "from workbench.training.rank_process import main; main(task)"
)


def _supervise(processes: Sequence[subprocess.Popen], stop: interrupts.Stop) -> None:
    """Wait until all have ended well, or one has not and the others have had their time; pass signals on."""
    until = None
    while True:
        try:
            states = [process.poll() for process in processes]
            if all(state is not None for state in states) or (until is not None and time.monotonic() > until):
                return
            if until is None and any(states):
                until = time.monotonic() + GRACE_SECONDS
            time.sleep(_POLL_SECONDS)
        except KeyboardInterrupt:
            for process in processes:
                process.send_signal(stop.asked or signal.SIGINT)
            until = time.monotonic() + GRACE_SECONDS


def _end(processes: Sequence[subprocess.Popen]) -> None:
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.wait()
        process.stdin.close()


@dataclasses.dataclass(frozen=True)
class Report:
    """How one process ended; it writes it before it does.

    Args:
        state: `done`, `mistake`, `interrupted` or `failed`.
        problems: Of a mistake, each as the fields of `Problem`.
        text: Of an interruption, how it came; of a failure, the traceback.
        by: The signal's number, if it was one.
    """

    state: str
    problems: tuple[dict[str, str], ...] = ()
    text: str = ""
    by: int | None = None

    def write(self, task: Path, rank: int) -> None:
        """Leave it where the starting process reads it."""
        run_folder.write_json(task / f"{rank}.json", dataclasses.asdict(self))


def _outcome(task: Path, count: int, lost: Sequence[tuple[int, int]], resume: Path | None) -> Path:
    """Return the run folder, or raise what the first process to fail has reported."""
    found = [run_folder.read_json(task / f"{rank}.json") for rank in range(count)]
    reports = [Report(**report) for report in found if report is not None]
    by_state: dict[str, Any] = {report.state: report for report in reports}
    told = task / ranks.FOLDER
    folder = Path(told.read_text(encoding="utf-8")) if told.is_file() else resume
    if folder is not None and "done" in by_state:
        return folder
    folder = folder if folder is not None and (folder / run_folder.RECIPE).is_file() else None
    if "interrupted" in by_state:
        stops = [report for report in reports if report.state == "interrupted"]
        report = max(stops, key=lambda stop: stop.by is not None)  # the others only learnt that one was asked
        raise interrupts.Interrupted(report.text, folder, report.by)
    if lost:
        rank, number = lost[0]
        kept = f"go on with: python -m workbench fit --resume {folder}" if folder else "start again"
        raise UserError.of(
            "train.devices",
            f"process {rank} of {count} was ended by {signal.Signals(number).name}",
            "all of them running",
            f"if the system did it for want of memory, lower train.micro_batch_size or data.num_workers; then {kept}",
        )
    if "mistake" in by_state:
        raise UserError(*(Problem(**problem) for problem in by_state["mistake"].problems))
    if "failed" in by_state:
        raise RuntimeError(by_state["failed"].text)
    raise RuntimeError(f"the {count} processes of the fit ended without a report")
