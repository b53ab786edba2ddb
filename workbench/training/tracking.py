"""Weights & Biases, through Lightning's logger: which run, where, and that whatever happens to it the fit goes on.

The rows go through `tracking_logger.py`; what is sent at the end is in `tracking_tables.py` and
`tracking_artifacts.py`.
"""

from __future__ import annotations

import logging
import netrc
import os
import secrets
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from workbench.specs.confidential import without_secrets
from workbench.specs.errors import UserError
from workbench.specs.recipe import Track
from workbench.training import run_folder
from workbench.training.tracking_logger import (
    QuietWandbLogger,
    RowPositions,
    WandbIdentity,
    arguments_without_secrets,
    known_identity,
)

log = logging.getLogger("workbench")

INIT_SECONDS = 20.0
"""How long the server may take to answer at the start (wandb's own default is 90)."""
ATTEMPT_SECONDS = 60.0
"""How long one thing that is not training may hold a fit up."""
FINISH_SECONDS = 15.0
"""How long the last rows may take at the end: less than the 30 s between an agent's SIGTERM and its SIGKILL."""
TRIAL = "trial"


def choose_mode(wandb: str) -> tuple[str, str]:
    """Return (`online`, `offline` or `off`, the reason) for a recipe's `track.wandb`.

    `auto` follows WANDB_MODE if it is set, else goes online where a key is found.
    """
    if wandb != "auto":
        return wandb, "as the recipe says"
    mode = os.environ.get("WANDB_MODE")
    if mode:
        known = {"online": "online", "offline": "offline", "dryrun": "offline", "disabled": "off"}
        if mode not in known:
            raise UserError.of("WANDB_MODE", mode, ", ".join(known), "set one of these, or track.wandb")
        return known[mode], f"WANDB_MODE={mode}"
    if os.environ.get("WANDB_API_KEY"):
        return "online", "WANDB_API_KEY is set"
    try:
        if netrc.netrc().authenticators(urlsplit(os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai").hostname):
            return "online", "a key is in .netrc"
    except (OSError, netrc.NetrcParseError):
        pass  # no such file, or an unreadable one: then there is no key
    return "offline", "no API key; `wandb sync` sends it later"


def start_seconds() -> float:
    """Return how long the server may take at the start: WANDB_INIT_TIMEOUT, or `INIT_SECONDS`."""
    given = os.environ.get("WANDB_INIT_TIMEOUT") or str(INIT_SECONDS)
    try:
        seconds = float(given)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        log.warning("WANDB_INIT_TIMEOUT=%s is no number of seconds; %.0f s it is", given, INIT_SECONDS)
        seconds = INIT_SECONDS
        del os.environ["WANDB_INIT_TIMEOUT"]  # wandb reads it too, and does not start with what it cannot read
    return seconds


class Tracking:
    """The W&B run of one fit, or none. A failure is said once, stands in `failed`, and never leaves this class.

    Args:
        track: The recipe's section.
        folder: Run folder; W&B's files go to `wandb/` in it, the run's identity to wandb.json.
        recipe_name: Default group.
        config: What the run's config holds: plain nested values.
        rows: Turns a step into the axes.
    """

    def __init__(self, track: Track, folder: Path, recipe_name: str, config: dict[str, Any], rows: RowPositions):
        self.mode, self.reason = choose_mode(track.wandb)
        log.info("W&B %s (%s)", self.mode, self.reason)
        self.track, self.folder, self.rows = track, folder, rows
        self.logger: QuietWandbLogger | None = None
        self.failed: str | None = None
        self.identity = WandbIdentity()
        sweep = os.environ.get("WANDB_SWEEP_ID")
        self.group = track.group or sweep or os.environ.get("WANDB_RUN_GROUP") or recipe_name
        self.job_type = track.job_type or (TRIAL if sweep else "fit")
        if self.mode != "off":
            self._start(config)

    @property
    def run(self) -> Any:
        """W&B's own run object, or None."""
        return self.logger and self.logger._experiment

    def _start(self, config: dict[str, Any]) -> None:
        """Open the run as is wanted, else offline, else not at all, and say why."""
        wanted, failure = self.mode, None
        for mode in dict.fromkeys((wanted, "offline")):
            self.mode = mode
            try:
                self._open(config)
            except Exception as error:  # no network, no such key, no quota, an old server, a setting it refuses
                failure = error
            if self.logger is not None:
                break
        else:
            self.mode = "off"
        if failure is not None:
            self._warn("the start", failure)
        if self.mode != wanted:
            self.reason = f"{wanted} was wanted, but {self.failed}"

    def _open(self, config: dict[str, Any]) -> None:
        """Open the run, as the one that the run folder had before where that is possible, and write its identity."""
        import wandb

        known = known_identity(self.folder)
        earlier = known.get("parts", [])
        # Offline parts of one run cannot be joined (wandb#3841): each is a run of its own in the same group.
        goes_on = bool(earlier) and self.mode == "online" and all(part["mode"] == "online" for part in earlier)
        notes = self.track.notes
        # W&B reads WANDB_PROJECT itself only in a sweep, where it counts more than what we pass.
        is_default = self.track.project == Track().project
        project = (is_default and os.environ.get("WANDB_PROJECT")) or self.track.project
        run_id = None  # then W&B takes WANDB_RUN_ID, as in a sweep, or makes one up
        if earlier:  # the same run, whatever the environment is by now
            project = known.get("project") or project
            self.group, self.job_type = known.get("group", self.group), known.get("job_type", self.job_type)
            run_id = earlier[0]["run_id"] if goes_on else secrets.token_hex(4)
        if earlier and not goes_on:
            first = earlier[0]["run_id"]
            notes = "\n".join(filter(None, [notes, f"part {len(earlier) + 1} of run {first}"]))
            config = {**config, "continues": first}
        settings = wandb.Settings(
            silent=True,
            console="off",
            disable_code=True,  # neither code nor uncommitted changes
            init_timeout=start_seconds(),
            finish_timeout=FINISH_SECONDS,
        )
        logger = QuietWandbLogger(
            self.rows,
            lambda error: self._warn("rows", error),
            name=self.folder.name,
            save_dir=self.folder,
            mode=self.mode,
            id=run_id,
            project=project,
            entity=known.get("entity"),
            group=self.group,
            job_type=self.job_type,
            tags=self.track.tags or None,
            notes=notes,
            settings=settings,
        )
        with arguments_without_secrets():
            run = logger.experiment
        self.logger = logger
        run.config.update(config, allow_val_change=True)
        for axis in ("epoch", "images_seen"):
            run.define_metric(axis)
        for rows in ("train/*", "val/*"):
            run.define_metric(rows, step_metric="epoch")
        part = {"run_id": run.id, "mode": self.mode}
        self.identity.identity = {
            **part,
            "project": run.project,
            "entity": run.entity or None,
            "group": self.group,
            "job_type": self.job_type,
            "url": run.url and without_secrets(run.url),
            "parts": [*earlier, *([] if goes_on else [part])],
        }
        run_folder.write_json(self.folder / run_folder.WANDB, self.identity.identity)

    def attempt(self, what: str, do: Callable[..., None], *given: Any, seconds: float | None = None) -> bool:
        """Call `do(run, *given)`, for so many seconds at most; return whether it went well (no, where nobody listens).

        Args:
            what: Names it in the warning.
            do: What to do; it goes on in the background when its time is over.
            given: Passed on.
            seconds: Longest time to wait; `ATTEMPT_SECONDS` if None.
        """
        if self.run is None:
            return False
        seconds = ATTEMPT_SECONDS if seconds is None else seconds
        ended: list[Exception | None] = []

        def work() -> None:
            try:
                do(self.run, *given)
                ended.append(None)
            except Exception as error:
                ended.append(error)

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        thread.join(seconds)
        error = ended[0] if ended else TimeoutError(f"no answer within {seconds:.0f} s")
        if error is not None:
            self._warn(what, error)
        return error is None

    def _warn(self, what: str, error: Exception) -> None:
        """Say what went wrong, the first time."""
        if self.failed is None:
            text = without_secrets(" ".join(str(error).split()))[:200] or "no details"
            self.failed = f"{what}: {type(error).__name__}: {text}"
            rest = f"the run goes on; `{self.sync}` sends later what is missing"
            rest = "the run goes on without W&B" if self.run is None else rest
            log.warning("W&B did not take %s (%s); %s", what, f"{type(error).__name__}: {text}", rest)

    @property
    def sync(self) -> str:
        """The command that sends what W&B has on disk."""
        return f"wandb sync {self.folder / 'wandb'}/*run-*"

    def say_cut_short(self) -> None:
        """Say what a stop after the result was written costs: the fit is finished, W&B's picture of it may not be."""
        self.failed = self.failed or "the end: stopped before everything was sent"
        if self.run is not None:
            lacks = "W&B may lack the scores, the tables or the model"
            rest = f"`{self.sync}` sends what it had been given by then, the run folder holds the rest"
            log.warning("stopped, but the fit is finished; %s: %s", lacks, rest)

    def close(self, exit_code: int) -> None:
        """End the run, with the exit code that W&B shows as finished (0) or failed."""
        if self.run is None:
            return
        run = self.run
        try:
            run.finish(exit_code=exit_code)
            if getattr(run, "_finish_timed_out", False):
                self._warn("the last rows", TimeoutError(f"no answer within {FINISH_SECONDS:.0f} s"))
        except Exception as error:
            self._warn("the end", error)

    def section(self) -> dict[str, str | None]:
        """Return result.json's `tracking`: all in a result that depends on W&B."""
        known = self.identity.identity
        return {
            "mode": self.mode,
            "reason": self.reason,
            "run_id": known.get("run_id"),
            "url": known.get("url"),
            "group": self.group if known else None,
            "job_type": self.job_type if known else None,
            "failed": self.failed,
        }
