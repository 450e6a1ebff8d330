"""Copies a SQLite database that a gateway writes to, as it is at one moment."""

import sqlite3
from pathlib import Path
from typing import Final

from sqlalchemy import Connection

from gateway.storage.files.backups.archive import USE_ANOTHER, BackupUnusable, Report

PAGES: Final = 2048  # of one step: 8 MB


def copy_database(connection: Connection, target: Path, report: Report) -> None:
    """Copies what the open read transaction of `connection` sees, in slices.

    The transaction makes SQLite keep that state (WAL mode), so that concurrent commits neither wait nor restart the copy. They stay in
    the write-ahead log, which grows until the copy has ended.
    """
    source = connection.connection.dbapi_connection
    if not isinstance(source, sqlite3.Connection) or not source.in_transaction:
        raise TypeError("an open transaction of SQLite is needed")
    page_size = int(source.execute("PRAGMA page_size").fetchone()[0])
    target.touch(mode=0o600)
    copy = sqlite3.connect(target, isolation_level=None)
    try:
        source.backup(copy, pages=PAGES, progress=lambda _, left, total: report((total - left) * page_size, total * page_size))
        copy.execute("PRAGMA journal_mode=DELETE")  # one file, without a log beside it
    finally:
        copy.close()


def check_copy(file: Path) -> None:
    """Raises BackupUnusable if SQLite finds the file damaged."""
    copy = sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)
    try:
        copy.execute("PRAGMA trusted_schema = OFF")
        problem = str(copy.execute("PRAGMA quick_check(1)").fetchone()[0])
        code = copy.execute("SELECT type, name FROM sqlite_master WHERE type IN ('trigger', 'view')").fetchone()
    except sqlite3.DatabaseError as error:
        problem, code = str(error), None
    finally:
        copy.close()
    if problem != "ok":
        raise BackupUnusable(f"the database in the backup is damaged: {problem[:200]}", USE_ANOTHER)
    if code is not None:
        kind, name = code
        raise BackupUnusable(
            f"the database in the backup has a {kind}, which the gateway does not make: {ascii(name)[:200]}",
            USE_ANOTHER,
        )
