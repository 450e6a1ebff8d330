"""Locks the file of a SQLite database, so that one process at a time works on it, whichever home folder it has."""

import os
import socket
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Final

from sqlalchemy.engine import URL, make_url

from gateway.storage.files.data_folder import HomeInUse
from gateway.storage.files.file_locks import FileLocked, lock_file

LOCK_SUFFIX: Final = ".lock"  # appended to the name of the database file


class DatabaseInUse(HomeInUse):
    """Another process holds the lock of the SQLite file."""

    todo = "stop the other gateway, or set database.url to another file or to a PostgreSQL database, which several gateways can share"


def sqlite_path(url: str | URL) -> Path | None:
    """The path of a SQLite database file with symbolic links resolved, or None for another database."""
    parsed = make_url(url)
    return Path(parsed.database).resolve() if parsed.get_backend_name() == "sqlite" and parsed.database else None


def lock_path(file: Path) -> Path:
    """The lock of a SQLite file."""
    return file.with_name(f"{file.name}{LOCK_SUFFIX}")


def lock_database_file(url: str, home: Path) -> IO[str] | None:
    """Locks the database file for this process until the result is closed; returns None for Postgres.

    The operating system releases the lock when the process ends. The lock file says in words who holds it.
    Raises DatabaseInUse, and OSError if the lock file can't be written.
    """
    file = sqlite_path(url)
    if file is None:
        return None
    try:
        lock = lock_file(lock_path(file))
    except FileLocked as error:
        raise DatabaseInUse(f"another gateway uses the database {file}: {error.holder or 'unknown process'}") from None
    os.fchmod(lock.fileno(), 0o600)
    lock.truncate(0)
    since = datetime.now(UTC).isoformat(timespec="seconds")
    lock.write(f"process {os.getpid()} on {socket.gethostname()} with the home {home.absolute()}, since {since}")
    lock.flush()
    return lock
