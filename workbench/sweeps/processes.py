"""Fits as processes of their own, several at once: begun, watched, stopped, and found again after a crash.

A process holds a lock on a file in its folder for as long as it lives, so that one left over by a killed parent is
known from a dead one, whatever became of its number.
"""

from __future__ import annotations

import contextlib
import csv
import fcntl
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from workbench.atomic import disk_errors
from workbench.specs.errors import UserError
from workbench.training import run_folder

KILL_AFTER_SECONDS = 30.0
"""Between asking a fit to stop (SIGTERM) and killing it; as W&B's agent (wandb 0.31, Agent.KILL_DELAY)."""
_POLL_SECONDS = 0.2
_LOCK, _OUTPUT = "process.lock", "output.txt"


@dataclass
class Job:
    """One fit.

    Args:
        number: The trial's, or the seed.
        folder: Where its run folder is made, and nobody else's.
        command: Its command line.
        process: The process, once begun.
        kill_at: When it is killed, on the clock of `time.monotonic`; None: it has not been asked to stop.
    """

    number: int
    folder: Path
    command: list[str]
    process: subprocess.Popen | None = None
    kill_at: float | None = None

    def begin(self, environment: Mapping[str, str]) -> None:
        """Start the process in a session of its own: a Ctrl-C on the terminal reaches the parent alone."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / _LOCK).open("a+") as lock, (self.folder / _OUTPUT).open("ab") as output:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **environment},
                start_new_session=True,
                pass_fds=[lock.fileno()],
            )
            lock.truncate(0)
            lock.write(str(self.process.pid))

    def ask_to_stop(self) -> None:
        """Ask the process to end cleanly; `enforce` kills it when its time is over."""
        if self.kill_at is None and self.process.poll() is None:
            self.kill_at = time.monotonic() + KILL_AFTER_SECONDS
            self.process.terminate()

    def enforce(self) -> None:
        """Kill a process that was asked to stop and did not."""
        if self.kill_at is not None and time.monotonic() > self.kill_at:
            _signal_group(self.process.pid, signal.SIGKILL)

    def error_line(self) -> str:
        """Return the most telling line of what a failed process wrote."""
        written = self.folder / _OUTPUT
        lines = written.read_text(encoding="utf-8", errors="replace").splitlines() if written.is_file() else []
        lines = [line.strip() for line in lines if line.strip()]
        code = self.process.returncode if self.process else None
        heads = [place for place, line in enumerate(lines) if line.split()[1:] in (["mistake:"], ["mistakes:"])]
        if code == 2 and heads:  # a user's mistake: its place, and what was given
            return " ".join(lines[heads[-1] + 1 : heads[-1] + 3])
        last = f", last line: {lines[-1]}" if lines else ", it wrote nothing"
        if code is not None and code < 0:
            name = {one.value: one.name for one in signal.Signals}.get(-code, f"signal {-code}")
            return f"killed by {name}{' (out of memory?)' if -code == signal.SIGKILL else ''}{last}"
        if code == 0:
            return f"ended without {run_folder.RESULT}{last}"
        return lines[-1] if lines else f"ended with code {code} and wrote nothing"


def run_all(
    take: Callable[[], Job | None],
    slots: Sequence[Mapping[str, str]],
    watch: Callable[[Job], None],
    ended: Callable[[Job], None],
) -> None:
    """Run jobs until there is none left; on any error or Ctrl-C, stop what runs.

    Args:
        take: Gives the next job, or None if there is none for now; asked again after a job has ended.
        slots: Environment of each place where a job can run; as many run at once.
        watch: Called for each running job a few times a second.
        ended: Called with each job whose process has ended by itself or was asked to stop here.
    """
    free, running = list(slots), []
    try:
        may_ask = True
        while True:
            while free and may_ask:
                job = take()
                may_ask = job is not None
                if job is not None:
                    running.append((job, free.pop(0)))
                    job.begin(running[-1][1])
            if not running:
                return
            time.sleep(_POLL_SECONDS)
            for job, slot in list(running):
                if job.process.poll() is None:
                    watch(job)
                    job.enforce()
                else:
                    running.remove((job, slot))
                    free.append(slot)
                    may_ask = True
                    ended(job)
    finally:
        _stop([job for job, _ in running if job.process is not None])


def _stop(jobs: Sequence[Job]) -> None:
    """Ask all to stop, wait, kill what is left; a second Ctrl-C kills at once."""
    for job in jobs:
        job.ask_to_stop()
    try:
        while any(job.process.poll() is None for job in jobs):
            for job in jobs:
                job.enforce()
            time.sleep(0.05)
    finally:
        for job in jobs:
            if job.process.poll() is None:
                _signal_group(job.process.pid, signal.SIGKILL)
                job.process.wait()


def end_orphan(folder: Path) -> None:
    """Stop the process that a killed parent left running on a folder, if there is one."""
    lock = folder / _LOCK
    if not lock.is_file():
        return
    with lock.open("a+") as file:
        began, asked = time.monotonic(), False
        while not _locked(file):
            file.seek(0)
            number = file.read().strip()
            if number and not asked:
                asked = _signal_group(int(number), signal.SIGTERM)
            elif number and time.monotonic() > began + KILL_AFTER_SECONDS:
                _signal_group(int(number), signal.SIGKILL)
            time.sleep(0.1)


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold a folder against a second sweep.

    Raises:
        UserError: Another process works on it, or it cannot be made.
    """
    with disk_errors(folder, "take --dir OTHER"):
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "sweep.lock").open("a+")
    with lock as file:
        if not _locked(file):
            given = f"{folder}: a sweep is running on it"
            raise UserError.of("sweep", given, "one at a time", "wait for it, or take --dir OTHER")
        yield


def _locked(file) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _signal_group(number: int, what: signal.Signals) -> bool:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(number, what)
    return True


def run_of(folder: Path) -> Path | None:
    """Return the newest run folder under a job's folder that a fit can go on with or has finished, or None."""
    found = sorted(path.parent for path in folder.glob(f"*/*/{run_folder.RECIPE}"))
    return found[-1] if found else None


def resumable(folder: Path) -> Path | None:
    """Return the run folder under a job's folder that has a checkpoint and no result, or None."""
    run = run_of(folder)
    if run is None or (run / run_folder.RESULT).is_file():
        return None
    checkpoints = (run / run_folder.CHECKPOINTS / name for name in (run_folder.LAST, run_folder.PREVIOUS))
    return run if any(path.is_file() for path in checkpoints) else None


def logged_values(run: Path, metric: str) -> list[float]:
    """Return the values of one column of a run's metrics.csv, which may be growing."""
    path = run / run_folder.METRICS
    if not path.is_file():
        return []
    text = path.read_text(encoding="utf-8")
    whole = text[: text.rfind("\n") + 1]  # of a row half written nothing is taken
    return [float(row[metric]) for row in csv.DictReader(whole.splitlines()) if row.get(metric)]
