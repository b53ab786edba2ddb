"""A sweep's SQLite file, opened for Optuna wherever it lies."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import optuna

from workbench.specs.errors import UserError


def open_database(path: Path) -> optuna.storages.RDBStorage:
    """Open a sweep's database; the path is not part of the URL, in which it could mean something else.

    Raises:
        UserError: The file is no database.
    """

    def connect() -> sqlite3.Connection:
        return sqlite3.connect(path, check_same_thread=False)  # as SQLAlchemy opens a file

    try:
        with contextlib.closing(connect()) as connection:
            connection.execute("SELECT name FROM sqlite_master").fetchall()
    except sqlite3.Error as error:
        remedy = "restore it, or search anew with --dir OTHER"
        raise UserError.of(path, str(error), "the SQLite file that a sweep keeps", remedy) from error
    return optuna.storages.RDBStorage("sqlite:///sweep.db", engine_kwargs={"creator": connect})
