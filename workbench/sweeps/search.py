"""The search of a sweep: which trial is next, when one is stopped, what became of it. Its state is one SQLite file.

Optuna keeps the trials and draws the values; the processes are run by `processes.py`. Whatever moment the search is
killed at, every trial is either finished in the file or known to be unfinished, and is then taken up again.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState

from workbench.specs.errors import UserError
from workbench.sweeps import leaderboard, processes
from workbench.sweeps.commands import place_settings, resume_command, settings, trial_command
from workbench.sweeps.database import open_database
from workbench.sweeps.leaderboard import Row
from workbench.sweeps.parameters import Parameter, grid, key_of
from workbench.sweeps.processes import Job
from workbench.sweeps.sweep_files import Sweep
from workbench.training import run_folder

DATABASE, LEADERBOARD = "sweep.db", "leaderboard.csv"
_FAILURES_AT_START = 3
"""So many failures before any success mean a mistake in the settings, not bad luck: a choice of this project."""
_MOST_DUPLICATES = 100
"""Draws in a row of what was tried already, after which all is taken to have been tried: a choice of this project."""
_STATES = {
    TrialState.COMPLETE: leaderboard.FINISHED,
    TrialState.PRUNED: leaderboard.STOPPED,
    TrialState.FAIL: leaderboard.FAILED,
    TrialState.RUNNING: leaderboard.RUNNING,
}


class Search:
    """One sweep in one folder.

    Args:
        sweep: The checked file.
        folder: The sweep's folder; its `sweep.db` is made, or gone on with.
        seed: Of random and bayes.
        several: Whether several trials run at once.
        say: Told, in a line, what happens.

    Raises:
        UserError: `sweep.db` is no database.
    """

    def __init__(self, sweep: Sweep, folder: Path, seed: int, several: bool, say: Callable[[str], None]):
        self.sweep, self.folder, self.seed, self.several, self.say = sweep, folder, seed, several, say
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.study = optuna.create_study(
            study_name="sweep",
            storage=open_database(folder / DATABASE),
            direction="maximize" if sweep.higher_is_better else "minimize",
            pruner=_pruner(sweep),
            load_if_exists=True,
        )
        self.unfinished: list[Job] = []

    def trials(self) -> list[FrozenTrial]:
        """Return the trials that count: begun, not a duplicate, not repeated since."""
        listed = self.study.get_trials(deepcopy=False)
        out = {t.user_attrs.get("repeats") for t in listed} | {t.number for t in listed if "duplicate" in t.user_attrs}
        return [t for t in listed if t.state != TrialState.WAITING and t.number not in out]

    def begin(self, retry_failed: bool = False) -> None:
        """Lay out a grid, and look for what an earlier process left unfinished."""
        if self.sweep.method == "grid":
            known = {key_of(t.user_attrs["values"]) for t in self.study.get_trials(deepcopy=False)}
            for values in grid(self.sweep.parameters):
                if key_of(values) not in known:
                    self._enqueue(values)
        for trial in self.trials():
            if trial.state == TrialState.RUNNING:
                self._recover(trial)
            elif trial.state == TrialState.FAIL and retry_failed:
                notes = {"repeats": trial.number}
                if processes.resumable(self._folder(trial)):
                    notes["folder"] = self._folder(trial).name  # it goes on there
                self._enqueue(trial.user_attrs["values"], **notes)

    def _enqueue(self, values: dict[str, Any], **notes: Any) -> None:
        fixed = {p.name: _stored(p, values[p.name]) for p in self.sweep.parameters if len(p.values) != 1}
        self.study.enqueue_trial(fixed, user_attrs={"values": values, **notes})

    def _recover(self, frozen: FrozenTrial) -> None:
        """Take up a trial that was running when the search was killed."""
        job = self._job(Trial(self.study, frozen._trial_id))
        processes.end_orphan(job.folder)
        run = processes.run_of(job.folder)
        if "stopping" in frozen.user_attrs or run is not None and (run / run_folder.RESULT).is_file():
            self.ended(job)
            return
        if run is not None:
            job.command = resume_command(self.sweep.command, self.sweep.program, run)
        self.say(f"trial {job.number} was unfinished: {'going on with ' + str(run) if run else 'running it again'}")
        self.unfinished.append(job)

    def take(self) -> Job | None:
        """Return the next job, or None if there is none."""
        if self.unfinished:
            return self.unfinished.pop(0)
        cap, target = self.sweep.run_cap, self.sweep.target
        if cap is not None and len(self.trials()) >= cap or target is not None and self._reached(target):
            return None
        trial = self._ask()
        if trial is None:
            return None
        job = self._job(trial)
        searched = {name: trial.user_attrs["values"][name] for name in self.searched()}
        self.say(f"trial {job.number}: {' '.join(settings(searched))}")
        return job

    def _reached(self, target: float) -> bool:
        sign = 1 if self.sweep.higher_is_better else -1
        return any(sign * (t.value - target) >= 0 for t in self.trials() if t.state == TrialState.COMPLETE)

    def _ask(self) -> Trial | None:
        """Draw the next values that were not tried; None if there are none."""
        most = math.prod(len(parameter.listed()) for parameter in self.sweep.parameters)  # 0: endlessly many
        for _ in range(_MOST_DUPLICATES):
            listed = self.study.get_trials(deepcopy=False)
            is_waiting = any(t.state == TrialState.WAITING for t in listed)
            known = {key_of(t.user_attrs["values"]) for t in listed if "values" in t.user_attrs}
            if not is_waiting and (self.sweep.method == "grid" or most and len(known) >= most):
                break
            # A sampler of its own for every draw: what is drawn does not depend on how often the search was restarted.
            self.study.sampler = self._sampler(len(listed))
            trial = self.study.ask()
            if "values" in trial.user_attrs:
                for parameter in self.sweep.parameters:
                    _suggest(trial, parameter)
                return trial
            values = {parameter.name: _suggest(trial, parameter) for parameter in self.sweep.parameters}
            trial.set_user_attr("values", values)
            if key_of(values) not in known:
                return trial
            trial.set_user_attr("duplicate", True)
            self.study.tell(trial, state=TrialState.FAIL)
        if self.sweep.method != "grid":
            self.say("everything that can be drawn has been tried")
        return None

    def _sampler(self, draw: int) -> optuna.samplers.BaseSampler:
        seed = (self.seed * 1_000_003 + draw) % 2**32
        if self.sweep.method != "bayes":
            return optuna.samplers.RandomSampler(seed=seed)
        # Optuna begins with 10 random draws; of a search of 12, these would be nearly all.
        at_random = min(10, max(4, (self.sweep.run_cap or 40) // 4))
        return optuna.samplers.TPESampler(seed=seed, n_startup_trials=at_random, constant_liar=self.several)

    def _job(self, trial: Trial) -> Job:
        if "values" not in trial.user_attrs:  # killed between asking and noting
            trial.set_user_attr("values", {p.name: _suggest(trial, p) for p in self.sweep.parameters})
        folder = self._folder(trial)
        extra = place_settings(folder, self.sweep.name, "trial")
        texts = settings(trial.user_attrs["values"])
        command = trial_command(self.sweep.command, self.sweep.program, texts, [*self.sweep.overrides, *extra])
        run = processes.resumable(folder) if "folder" in trial.user_attrs else None
        if run is not None:
            command = resume_command(self.sweep.command, self.sweep.program, run)
        return Job(trial.number, folder, command)

    def _folder(self, trial: Trial | FrozenTrial) -> Path:
        """Return where a trial's run lies: it is not noted, so that a sweep's folder can be moved."""
        return self.folder / "runs" / trial.user_attrs.get("folder", f"{trial.number:04d}")

    def watch(self, job: Job) -> None:
        """Report what a running trial has logged, and stop it if it is not worth going on."""
        stopping, run = self.sweep.stopping, processes.run_of(job.folder)
        if stopping is None or run is None or job.kill_at is not None:
            return
        logged = processes.logged_values(run, self.sweep.metric)
        best = max if self.sweep.higher_is_better else min
        for count in range(len(self._frozen(job.number).intermediate_values) + 1, len(logged) + 1):
            trial = self._trial(job.number)
            trial.report(logged[count - 1] if stopping.strict else best(logged[:count]), count)
            if (stopping.last is None or count < stopping.last) and trial.should_prune():
                self.say(f"trial {job.number}: stopped early at {self.sweep.metric} {logged[count - 1]:.4f}")
                trial.set_user_attr("stopping", True)
                job.ask_to_stop()
                return

    def ended(self, job: Job) -> None:
        """Note how a trial ended.

        Raises:
            UserError: The first few trials have all failed.
        """
        run = processes.run_of(job.folder)
        result = run_folder.read_json(run / run_folder.RESULT) if run is not None else None
        value = ((result or {}).get("selection") or {}).get(self.sweep.score)
        if value is not None and math.isfinite(value):
            for key, fact in (("steps", result["steps"]), ("seconds", result["seconds"])):
                self._note(job.number, key, fact)
            self._note(job.number, "n", result["selection"]["n"])
            self.study.tell(job.number, value)
            self.say(f"trial {job.number}: {self.sweep.metric} {value:.4f}")
        elif "stopping" in self._frozen(job.number).user_attrs:
            self.study.tell(job.number, state=TrialState.PRUNED)
        else:
            error = job.error_line() if result is None else f"{self.sweep.metric} is {value}"
            self._note(job.number, "error", error)
            self.study.tell(job.number, state=TrialState.FAIL)
            self.say(f"trial {job.number}: failed: {error}")
        self.write_leaderboard()
        self._check_start()

    def _check_start(self) -> None:
        over = [t for t in self.trials() if t.state.is_finished()]
        if len(over) >= _FAILURES_AT_START and all(t.state == TrialState.FAIL for t in over):
            raise UserError.of(
                f"sweep {self.folder}",
                f"the first {len(over)} trials all failed, the last with: {over[-1].user_attrs['error']}",
                "trials that run",
                f"see {self.folder / 'runs'}, put it right, then run the same command with --retry-failed",
            )

    def searched(self) -> list[str]:
        """Return the names of the parameters that vary."""
        return [parameter.name for parameter in self.sweep.parameters if len(parameter.values) != 1]

    def rows(self) -> list[tuple[int | None, Row]]:
        """Return the leaderboard."""
        made = []
        for t in self.trials():
            facts = t.user_attrs
            value = t.value if t.state == TrialState.COMPLETE else t.intermediate_values.get(t.last_step)
            run = processes.run_of(self._folder(t))
            counts = facts.get("n"), facts.get("values", {}), facts.get("steps"), facts.get("seconds")
            made.append(Row(t.number, _STATES[t.state], value, *counts, str(run or ""), facts.get("error", "")))
        return leaderboard.ranked(made, self.sweep.higher_is_better)

    def write_leaderboard(self) -> None:
        """Write leaderboard.csv anew."""
        leaderboard.write(self.folder / LEADERBOARD, self.sweep.metric, self.searched(), self.rows())

    def _trial(self, number: int) -> Trial:
        return Trial(self.study, self._frozen(number)._trial_id)

    def _frozen(self, number: int) -> FrozenTrial:
        return self.study.get_trials(deepcopy=False)[number]

    def _note(self, number: int, key: str, fact: Any) -> None:
        self._trial(number).set_user_attr(key, fact)


def _pruner(sweep: Sweep) -> optuna.pruners.BasePruner:
    stopping = sweep.stopping
    if stopping is None:
        return optuna.pruners.NopPruner()
    return optuna.pruners.SuccessiveHalvingPruner(min_resource=stopping.first, reduction_factor=stopping.eta)


def _stored(parameter: Parameter, value: Any) -> Any:
    """Return a value as Optuna keeps it: of a list, as JSON, because it knows no lists as values, nor 1 from 1.0."""
    return json.dumps(value) if parameter.values else value


def _suggest(trial: Trial, parameter: Parameter) -> Any:
    """Draw a parameter's value, or return the one that was drawn or fixed before."""
    name, step = parameter.name, parameter.step
    if parameter.values:
        if len(parameter.values) == 1:
            return parameter.values[0]
        return json.loads(trial.suggest_categorical(name, [json.dumps(value) for value in parameter.values]))
    if parameter.is_whole:
        return trial.suggest_int(name, parameter.low, parameter.high, step=step)
    value = trial.suggest_float(name, parameter.low, parameter.high, step=step, log=parameter.log)
    return float(f"{value:.12g}") if step else value  # 0.3, not 0.30000000000000004
