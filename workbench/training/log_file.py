"""Where a fit's messages go: ours to the console and log.txt, the libraries' warnings only to log.txt."""

from __future__ import annotations

import contextlib
import logging
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console

from workbench.training import run_folder

log = logging.getLogger("workbench")


@contextlib.contextmanager
def logging_to(folder: Path, console: Console) -> Iterator[None]:
    """Send our messages to the console and log.txt; the libraries' warnings only to log.txt."""
    shown = logging.Handler()
    shown.emit = lambda record: console.print(record.getMessage(), highlight=False, markup=False, soft_wrap=True)
    written = logging.FileHandler(folder / run_folder.LOG, encoding="utf-8")
    written.setFormatter(logging.Formatter("%(asctime)s %(name)s %(levelname)s %(message)s"))
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
        written.close()
