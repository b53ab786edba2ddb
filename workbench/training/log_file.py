"""Where a fit's messages go: ours to the console and log.txt, the libraries' warnings only to log.txt."""

from __future__ import annotations

import contextlib
import logging
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console

from workbench.specs.confidential import without_secrets
from workbench.specs.printable import printable
from workbench.training import run_folder
from workbench.training.ranks import is_first

log = logging.getLogger("workbench")


class _Careful(logging.Formatter):
    """Writes neither a secret nor what would act on a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(without_secrets(super().format(record)))


class _LogFile(logging.FileHandler):
    """log.txt; what the disk refuses is told once, and the fit goes on without it."""

    def __init__(self, path: Path, console: Console):
        super().__init__(path, encoding="utf-8")
        self.console, self.has_failed = console, False

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name for it
        """Say what happened, where logging would print a traceback each time."""
        if not self.has_failed:
            self.has_failed = True
            said = f"{self.baseFilename} is not written any more: {sys.exc_info()[1]}"
            self.console.print(said, highlight=False, markup=False, soft_wrap=True)


@contextlib.contextmanager
def logging_to(folder: Path, console: Console) -> Iterator[None]:
    """Send our messages to the console and log.txt; the libraries' warnings only to log.txt."""
    shown = logging.Handler()
    shown.emit = lambda record: console.print(shown.format(record), highlight=False, markup=False, soft_wrap=True)
    shown.setFormatter(_Careful())
    written = _LogFile(folder / run_folder.LOG, console)
    written.setFormatter(_Careful("%(asctime)s %(name)s %(levelname)s %(message)s"))
    if not is_first():  # of several processes: what all say is said once, a failure by whoever has it
        written.setLevel(logging.ERROR)
    log.setLevel(logging.INFO)
    log.propagate = False
    others = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric", "py.warnings")]
    before = [(other, other.handlers, other.propagate) for other in others]
    for handler in (shown, written):
        log.addHandler(handler)
    for other in others:
        other.handlers, other.propagate = [written], False
    try:
        with warnings.catch_warnings():
            logging.captureWarnings(True)
            yield
    except Exception:
        written.handle(log.makeRecord("workbench", logging.ERROR, __file__, 0, "failed", (), sys.exc_info()))
        raise
    finally:
        logging.captureWarnings(False)
        for handler in (shown, written):
            log.removeHandler(handler)
        for other, handlers, propagate in before:
            other.handlers, other.propagate = handlers, propagate
        with contextlib.suppress(OSError):  # what a full disk did not take; whatever ends the fit is to be told
            written.close()
