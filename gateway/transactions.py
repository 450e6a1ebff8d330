"""Transactions of the writer: all jobs together, each alone when one of them fails, and the truth after a commit that broke."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import cache, partial
from typing import Any, NamedTuple, Protocol

import structlog
from sqlalchemy import Connection, Engine, Table
from sqlalchemy.engine.interfaces import DBAPICursor
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, SQLAlchemyError

ROWS_MAX = 32  # of one statement
DUPLICATES = {"SQLITE_CONSTRAINT_PRIMARYKEY", "SQLITE_CONSTRAINT_UNIQUE", "23505"}
log = structlog.get_logger()


class NotKept(Exception):
    """The database did not take the write. Nothing of it was kept, unless the connection broke just as it committed."""


class Participant(Protocol):
    """Keeps state in step with the commits, such as the head of a hash chain. Called on the writer's thread."""

    def committed(self) -> None: ...

    def rolled_back(self) -> None: ...

    def settle(self, connection: Connection) -> bool:
        """After a commit whose outcome is not known: takes the state from the database. True when that commit is there."""
        ...


class Moves(NamedTuple):
    """How rows of a table change: each by its `keys`, which must name a row as it stands; `missed` is raised when they name none."""

    table: Table
    values: tuple[str, ...]
    keys: tuple[str, ...]
    missed: type[Exception]


class Batch:
    """One transaction under way. Rows that are only inserted or moved need no statement of their own.

    SQLite gives up the interpreter's lock for every statement it runs, and a busy event loop is slow to hand it back: so the rows of all
    jobs go into as few statements as there are tables, in a few sizes, which the driver keeps prepared.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._sqlite = connection.dialect.name == "sqlite"
        self._errors: type[Exception] = connection.dialect.loaded_dbapi.Error
        self._rows: dict[Table, list[tuple[Any, ...]]] = {}
        self._moved: dict[Moves, list[tuple[Any, ...]]] = {}

    @property
    def connection(self) -> Connection:
        """For statements other than plain inserts; sees every row added before."""
        self.flush()
        return self._connection

    def add(self, table: Table, row: dict[str, Any]) -> None:
        self._rows.setdefault(table, []).append(tuple(map(row.get, _names(table))))

    def move(self, moves: Moves, values: tuple[Any, ...]) -> None:
        """Changes one row, not later than `flush`, which raises `moves.missed` when it is not there as its keys say."""
        self._moved.setdefault(moves, []).append(values)

    def run(self, statement: str, values: tuple[Any, ...]) -> int:
        """Runs one statement at once, with `?` marks, and returns the number of rows it changed. Does not see rows just added."""
        cursor = self._connection.connection.cursor()
        try:
            cursor.execute(statement if self._sqlite else statement.replace("?", "%s"), values)
            return int(cursor.rowcount)
        except self._errors as error:
            raise DBAPIError.instance(statement, None, error, self._errors) from error
        finally:
            cursor.close()

    def flush(self) -> None:
        if not (self._rows or self._moved):
            return
        moved, self._moved = self._moved, {}
        rows, self._rows = self._rows, {}
        with closing(self._connection.connection.cursor()) as cursor:
            for moves, values in moved.items():
                if self._sent(cursor, partial(_update, moves), values) != len(values):
                    raise moves.missed
            for table, values in rows.items():
                self._sent(cursor, partial(_insert, table), values)

    def _sent(self, cursor: DBAPICursor, statement: Callable[[int], str], rows: list[tuple[Any, ...]]) -> int:
        """Runs `statement`, made for one row or several, with all rows; returns how many rows of the database it touched."""
        text, touched = "", 0
        try:
            if not self._sqlite:
                text = statement(1).replace("?", "%s")
                cursor.executemany(text, rows)
                return int(cursor.rowcount)
            for part in _parts(rows):
                text = statement(len(part))
                cursor.execute(text, [value for row in part for value in row])
                touched += cursor.rowcount
        except self._errors as error:
            raise DBAPIError.instance(text, None, error, self._errors) from error
        return touched


def _parts(rows: list[tuple[Any, ...]]) -> Iterator[list[tuple[Any, ...]]]:
    """The rows in powers of two."""
    begin = 0
    while begin < len(rows):
        size = min(ROWS_MAX, 1 << ((len(rows) - begin).bit_length() - 1))
        yield rows[begin : begin + size]
        begin += size


@cache
def _names(table: Table) -> tuple[str, ...]:
    return tuple(table.columns.keys())


@cache
def _insert(table: Table, size: int) -> str:
    names = _names(table)
    return f"INSERT INTO {table.name} ({','.join(names)}) VALUES {_marks(len(names), size)}"  # noqa: S608 (names of our own tables)


@cache
def _update(moves: Moves, size: int) -> str:
    columns = [(name, f"given.column{position}") for position, name in enumerate(moves.values + moves.keys, 1)]
    sets = ",".join(f"{name}={given}" for name, given in columns[: len(moves.values)])
    match = " AND ".join(f"{moves.table.name}.{name}={given}" for name, given in columns[len(moves.values) :])
    given = f"(VALUES {_marks(len(columns), size)}) AS given"
    return f"UPDATE {moves.table.name} SET {sets} FROM {given} WHERE {match}"  # noqa: S608 (names of our own tables)


def _marks(columns: int, rows: int) -> str:
    row = f"({','.join('?' * columns)})"
    return ",".join([row] * rows)


class Outcome(NamedTuple):
    """What a job returned, or why nothing of it was kept."""

    result: Any
    error: Exception | None = None


Job = Callable[[Batch], Any]


class Transactions:
    """Runs jobs on one long-lived connection. Used by one thread only."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._connection: Connection | None = None
        self._broken = False  # a commit broke, and none was kept since: it may yet turn out to be kept
        self._in_doubt = False  # the participants must look at the database before anything is appended
        self.participants: list[Participant] = []

    def outcomes(self, jobs: Sequence[Job]) -> list[Outcome]:
        """One for each job. What one job does wrong is its own affair; a job may be run again after a rollback."""
        try:
            return self._kept(jobs)
        except NotKept as error:
            return [Outcome(None, error)] * len(jobs)
        except Exception as error:  # noqa: BLE001 (it belongs to one of these jobs, whose caller is told)
            log.debug("batch_rolled_back", jobs=len(jobs), error=type(error).__name__)
            if len(jobs) == 1:
                return [Outcome(None, _told(error))]
        return self._one_by_one(jobs)

    def _one_by_one(self, jobs: Sequence[Job]) -> list[Outcome]:
        """When the database takes neither of two jobs in a row, it is the database: the others need not wait for its answers."""
        outcomes: list[Outcome] = []
        for job in jobs:
            away = [outcome.error for outcome in outcomes[-2:] if isinstance(outcome.error, NotKept)]
            outcomes += [Outcome(None, away[0])] if len(away) == 2 else self.outcomes([job])
        return outcomes

    def _kept(self, jobs: Sequence[Job]) -> list[Outcome]:
        """Runs all jobs in one transaction; once more when the connection was lost before the commit, or a broken commit came late."""
        try:
            return self._transact(jobs)
        except NotKept:
            raise
        except Exception as error:
            if self._connection is not None and not self._in_doubt:
                raise
            log.info("transaction_repeated", error=type(error).__name__)
        return self._transact(jobs)

    def _transact(self, jobs: Sequence[Job]) -> list[Outcome]:
        connection = self._begun()
        try:
            batch = Batch(connection)
            outcomes = [Outcome(job(batch)) for job in jobs]
            batch.flush()
        except Exception as error:
            self._in_doubt = self._broken and isinstance(error, IntegrityError)
            self._undo(connection)
            raise
        try:
            connection.commit()
        except Exception as error:  # whether it was kept is for the database to say
            log.warning("commit_broke", error=type(error).__name__)
            if not self._found_kept():
                raise NotKept("the commit broke") from error
            return outcomes
        self._broken = False
        for participant in self.participants:
            participant.committed()
        return outcomes

    def _begun(self) -> Connection:
        """The connection, with a transaction begun. Raises NotKept."""
        try:
            if self._connection is None:
                self._connection = self._engine.connect()
            if self._in_doubt:
                self._settle(self._connection)
            self._connection.begin()
        except Exception as error:
            log.debug("no_transaction", error=type(error).__name__)
            self.drop()
            raise NotKept("the database can't be reached") from error
        return self._connection

    def _found_kept(self) -> bool:
        """Whether a commit that broke was kept after all, as far as a new connection can tell."""
        self.drop()
        self._broken = self._in_doubt = True
        try:
            self._connection = self._engine.connect()
            return self._settle(self._connection)
        except Exception as error:  # noqa: BLE001 (the question stays open, and comes first on the next connection)
            log.warning("commit_in_doubt", error=type(error).__name__)
            self.drop()
            return False

    def _settle(self, connection: Connection) -> bool:
        kept = [participant.settle(connection) for participant in self.participants]
        connection.rollback()
        self._in_doubt = False
        return any(kept)

    def _undo(self, connection: Connection) -> None:
        for participant in self.participants:
            participant.rolled_back()
        try:
            lost = connection.invalidated
            connection.rollback()
        except Exception as error:  # noqa: BLE001 (a connection that can't even roll back is none)
            log.debug("rollback_broke", error=type(error).__name__)
            lost = True
        if lost:
            self.drop()

    def drop(self) -> None:
        """Lets go of the connection, in whatever state it is."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        try:
            connection.invalidate()
            connection.close()
        except SQLAlchemyError as error:
            log.debug("connection_dropped", error=type(error).__name__)


def _told(error: Exception) -> Exception:
    """The error as the job's caller sees it."""
    if isinstance(error, IntegrityError):
        known = getattr(error.orig, "sqlite_errorname", "") or getattr(error.orig, "sqlstate", "")
        if known in DUPLICATES:
            return error
    elif isinstance(error, DataError) or not isinstance(error, SQLAlchemyError):
        return error
    refused = NotKept("the database did not take the write")
    refused.__cause__ = error
    return refused
