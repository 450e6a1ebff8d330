"""Where a database is restored to: a SQLite file, or the schema of a PostgreSQL database. Nothing that is there is deleted."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, text

from gateway.storage.database import engine_for
from gateway.storage.files.backups.archive import BackupUnusable, Report
from gateway.storage.files.backups.placement import Moves
from gateway.storage.files.backups.postgres_tools import PostgresTools
from gateway.storage.files.backups.snapshot import tables_of
from gateway.storage.files.backups.sqlite_copy import check_copy

SQLITE_SUFFIXES: Final = ("", "-wal", "-shm", "-journal")  # SQLite writes what is in a log or journal beside a database into it
PROCESS_PREFIX: Final = "p_"  # of the names that processes of gateways give their sessions
_SESSIONS = "SELECT DISTINCT application_name FROM pg_stat_activity WHERE datname = current_database()"


class SqliteTarget:
    """A file. It is replaced at the end, when everything was verified."""

    def __init__(self, path: Path, replaced: str) -> None:
        """`replaced` is appended to the name of a file that is there."""
        self._path = path
        self._replaced = replaced
        self._staged = path.with_name(f".{path.name}.restoring")

    @property
    def staged(self) -> Path:
        """Where the part is extracted to."""
        return self._staged

    def is_occupied(self) -> bool:
        return self._path.exists() and self._path.stat().st_size > 0

    def load(self, _tables: int, _report: Report) -> None:
        """Raises BackupUnusable for a damaged database."""
        check_copy(self._staged)

    @contextmanager
    def connect(self) -> Iterator[Connection]:
        with _connect(f"sqlite:///{self._staged}") as connection:
            yield connection

    def accept(self, moves: Moves) -> None:
        """Puts the database in its place."""
        for suffix in SQLITE_SUFFIXES:
            there = self._path.with_name(f"{self._path.name}{suffix}")
            if there.exists():
                moves.move(there, self._path.with_name(f"{self._path.name}.{self._replaced}{suffix}"))
        moves.move(self._staged, self._path)

    def discard(self) -> None:
        """Removes what was not accepted."""
        for suffix in SQLITE_SUFFIXES:
            self._staged.with_name(f"{self._staged.name}{suffix}").unlink(missing_ok=True)


class PostgresTarget:
    """The tables of a database, restored in one transaction. Tables that are there move to a schema of their own."""

    def __init__(self, url: str, tools: PostgresTools, staged: Path, replaced: str) -> None:
        """`replaced` is the name of that schema. Raises BackupUnusable without pg_restore."""
        self._url = url
        self._tools = tools
        self._replaced = replaced
        self._moved: list[str] | None = None  # the tables that were there; None before they are moved, and once all is accepted
        self.staged = staged
        tools.find("pg_restore")

    def is_occupied(self) -> bool:
        with _connect(self._url) as connection:
            return bool(tables_of(connection))

    def load(self, tables: int, report: Report) -> None:
        """Raises BackupUnusable where a gateway uses the database, or the restoration fails."""
        with _connect(self._url) as connection:
            if any(str(name).startswith(PROCESS_PREFIX) for name in connection.execute(text(_SESSIONS)).scalars()):
                raise BackupUnusable("a gateway uses this database", "stop every gateway on it, then restore")
            found = tables_of(connection)
            if found:
                connection.execute(text(f'CREATE SCHEMA "{self._replaced}"'))
            for table in found:
                connection.execute(text(f'ALTER TABLE "{table}" SET SCHEMA "{self._replaced}"'))
            connection.commit()
        self._moved = found
        self._tools.restore(self.staged, tables, report)

    @contextmanager
    def connect(self) -> Iterator[Connection]:
        with _connect(self._url) as connection:
            yield connection

    def accept(self, _moves: Moves) -> None:
        """Keeps the tables, which are in their place already."""
        self._moved = None

    def discard(self) -> None:
        """Drops what was restored but not accepted, and moves back what was there."""
        if self._moved is None:
            return
        with _connect(self._url) as connection:
            own = connection.execute(text("SELECT current_schema()")).scalar_one()
            for table in tables_of(connection):
                connection.execute(text(f'DROP TABLE "{table}" CASCADE'))
            for table in self._moved:
                connection.execute(text(f'ALTER TABLE "{self._replaced}"."{table}" SET SCHEMA "{own}"'))
            if self._moved:
                connection.execute(text(f'DROP SCHEMA "{self._replaced}"'))
            connection.commit()
        self._moved = None


@contextmanager
def _connect(url: str) -> Iterator[Connection]:
    engine = engine_for(url)
    try:
        with engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()
