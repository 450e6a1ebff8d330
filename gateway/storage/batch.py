"""Batches: the rows and statements of one transaction. Plain rows are collected and written together; other statements run at once."""

from collections.abc import Hashable, Mapping, Sequence
from contextlib import ExitStack, closing, nullcontext
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

from sqlalchemy import Connection, Table
from sqlalchemy.exc import DataError, DBAPIError, SQLAlchemyError

from policies.tables import PartialInsert

UNSTORABLE_ERRORS = (DataError, UnicodeEncodeError, OverflowError)  # of drivers, for a parameter that they can't pass on
_MISSED_STATE = "22012"  # division by zero, which only `_postgres_statement` brings about


class WriteFailed(Exception):
    """The database did not accept the write. Nothing was written, unless the connection broke during the commit."""


class UnstorableValue(Exception):
    """A value of a request is none that the database holds: a text with a NUL or half of a character, or a number of more than 64 bits."""


class ReferenceMissing(WriteFailed):
    """A row refers to one that is not there, or not any more. The database itself is well, and the same write would fail again."""


class TransactionEnded(Exception):
    """A job went on after the database had refused its rows, which ended the transaction. Nothing was written."""


class CommitUncertain(Exception):
    """A commit failed in a way that leaves its outcome open."""


@dataclass(frozen=True, eq=False)
class GuardedUpdate:
    """Updates rows of a table by `keys` that must match the current row. Raises `missed_error` if they match none, or ignores it (None)."""

    table: Table
    values: tuple[str, ...]
    keys: tuple[str, ...]
    missed_error: type[Exception] | None

    def build_statement(self, rows_source: str) -> str:
        """Returns the UPDATE from rows of `rows_source` with the columns column1, column2, …: the values first, then the keys."""
        name, columns = self.table.name, [f"given.column{number}" for number in range(1, len(self.values) + len(self.keys) + 1)]
        sets = ",".join(f"{value}={column}" for value, column in zip(self.values, columns, strict=False))
        match = " AND ".join(f"{name}.{key}={column}" for key, column in zip(self.keys, columns[len(self.values) :], strict=True))
        return f"UPDATE {name} SET {sets} FROM ({rows_source}) AS given WHERE {match}"  # noqa: S608 (names of our own tables)


@dataclass(frozen=True, eq=False)
class GuardedUpsert:
    """Inserts a row, or updates it if its `version` is one below that of the new row; else raises `missed_error`.

    `columns` begin with `keys`, the primary key.
    """

    table: Table
    columns: tuple[str, ...]
    keys: tuple[str, ...]
    version: str
    missed_error: type[Exception]

    @property
    def on_conflict(self) -> str:
        """Returns the end of the INSERT."""
        name, version = self.table.name, self.version
        sets = ",".join(f"{column}=excluded.{column}" for column in self.columns[len(self.keys) :])
        return f"ON CONFLICT ({','.join(self.keys)}) DO UPDATE SET {sets} WHERE {name}.{version}=excluded.{version}-1"


GuardedChange = GuardedUpdate | GuardedUpsert
RowTarget = Table | PartialInsert | GuardedChange
RowsByTarget = Mapping[RowTarget, Sequence[tuple[Any, ...]]]


class BulkInsert(Protocol):
    """A faster way to write rows, which also commits if no transaction has begun."""

    def write(self, connection: Connection, rows: RowsByTarget) -> None:
        """Writes all rows, updates first. Raises what `write_each` raises, and WriteFailed and CommitUncertain."""
        ...


class Batch:
    """One open transaction. Rows to insert or update are written together at its end, or earlier if a statement must see them."""

    def __init__(self, connection: Connection, bulk_insert: BulkInsert | None = None) -> None:
        self._connection = connection
        self._bulk_insert = bulk_insert
        self._rows: dict[RowTarget, list[tuple[Any, ...]]] = {}
        self._has_begun = False
        self._has_ended = False  # rows were refused, and their whole transaction with them
        self._locks: set[Hashable] = set()

    @property
    def is_sqlite(self) -> bool:
        return self._connection.dialect.name == "sqlite"

    @property
    def connection(self) -> Connection:
        """Returns the connection for other statements; they see every row added before."""
        self._begin()
        self.flush()
        return self._connection

    def add(self, table: Table, row: dict[str, Any]) -> None:
        self._rows.setdefault(table, []).append(tuple(map(row.get, column_names(table))))

    def insert(self, target: Table | PartialInsert, values: tuple[Any, ...]) -> None:
        """Adds one row by the values of the target's columns: of a table, all in their order."""
        self._rows.setdefault(target, []).append(values)

    def update(self, change: GuardedChange, values: tuple[Any, ...]) -> None:
        """Changes one row, at the latest with `flush`, which raises `missed_error` if the row is not as expected."""
        self._rows.setdefault(change, []).append(values)

    def run(self, statement: str, values: tuple[Any, ...]) -> int:
        """Runs one statement with `?` marks at once and returns the number of changed rows. It does not see rows added before."""
        self._begin()
        errors = self._connection.dialect.loaded_dbapi.Error
        cursor = self._connection.connection.cursor()
        try:
            cursor.execute(_with_driver_marks(self._connection, statement), values)
            return int(cursor.rowcount)
        except errors as error:
            raise DBAPIError.instance(statement, None, error, errors) from error
        finally:
            cursor.close()

    def fetch(self, query: str, values: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """Returns the first row of a query with `?` marks. It does not see rows added before."""
        self._begin()
        errors = self._connection.dialect.loaded_dbapi.Error
        with closing(self._connection.connection.cursor()) as cursor:
            try:
                cursor.execute(_with_driver_marks(self._connection, query), values)
                return cursor.fetchone()
            except errors as error:
                raise DBAPIError.instance(query, None, error, errors) from error

    def lock(self, key: int) -> None:
        """Waits until no other process has this lock, and holds it until the end of the transaction. SQLite has one writer anyway."""
        if self.is_first_lock(key) and self._connection.dialect.name == "postgresql":
            self.run("SELECT pg_advisory_xact_lock(?)", (key,))

    def try_lock(self, key: int) -> bool:
        """Takes a lock as `lock` does, and returns False at once where another process has it."""
        if self._connection.dialect.name != "postgresql":
            return True
        row = self.fetch("SELECT pg_try_advisory_xact_lock(?)", (key,))
        return bool(row is not None and row[0])

    def is_first_lock(self, key: Hashable) -> bool:
        """Returns whether this transaction does not have the lock yet, and notes that it will have it."""
        known = key in self._locks
        self._locks.add(key)
        return not known

    def flush(self) -> None:
        """Writes the collected rows. Raises what `write_each` raises."""
        if self._rows:
            self._begin()
            rows, self._rows = self._rows, {}
            write = write_each if self._bulk_insert is None else self._bulk_insert.write
            self._has_ended = True  # stays so if a row is refused
            write(self._connection, rows)
            self._has_ended = False

    def commit(self) -> None:
        """Writes the collected rows and commits. Raises what `flush` raises, WriteFailed, CommitUncertain and TransactionEnded."""
        if self._rows and not self._has_begun and self._bulk_insert is not None:
            self._bulk_insert.write(self._connection, self._rows)
            return
        self.flush()
        self._check_open()
        try:
            self._connection.commit()
        except (SQLAlchemyError, OSError) as error:
            raise CommitUncertain from error

    def _begin(self) -> None:
        """Begins the transaction. Raises WriteFailed and TransactionEnded."""
        self._check_open()
        if not self._has_begun:
            try:
                self._connection.begin()
            except SQLAlchemyError as error:
                raise WriteFailed("the database can't be reached") from error
            self._has_begun = True

    def _check_open(self) -> None:
        if self._has_ended:
            raise TransactionEnded


def write_each(connection: Connection, rows: RowsByTarget) -> None:
    """Writes each row by a statement of PostgreSQL, the guarded changes first. The database gets all of them before it answers the first.

    Raises DBAPIError, and `missed_error` of the first guarded change that met none of its rows.
    """
    errors, kinds, text = connection.dialect.loaded_dbapi.Error, sorted(rows, key=write_order), ""
    driver: Any = connection.connection.dbapi_connection
    with ExitStack() as stack:
        cursors = [stack.enter_context(closing(driver.cursor())) for _ in kinds]
        try:
            with driver.pipeline() if len(kinds) > 1 else nullcontext():
                for kind, cursor in zip(kinds, cursors, strict=True):
                    text = _postgres_statement(kind)
                    ordered = sorted(rows[kind]) if isinstance(kind, GuardedUpsert) else rows[kind]  # so that processes wait in one order
                    cursor.executemany(text, ordered)
        except errors as error:
            if getattr(error, "sqlstate", "") == _MISSED_STATE:
                raise _missed_errors(rows, kinds, cursors)[0] from None
            raise DBAPIError.instance(text, None, error, errors) from error


def missed_error_of(target: RowTarget) -> type[Exception] | None:
    """The error for a change that does not meet each of its rows; None for rows that are inserted, and for changes that may miss."""
    return target.missed_error if isinstance(target, GuardedChange) else None


def _missed_errors(rows: RowsByTarget, kinds: Sequence[RowTarget], cursors: Sequence[Any]) -> list[type[Exception]]:
    """The errors of checked changes that have not met each of their rows, in the order in which they were to run."""
    return [
        missed
        for kind, cursor in zip(kinds, cursors, strict=True)
        if (missed := missed_error_of(kind)) is not None and cursor.rowcount != len(rows[kind])
    ]


@cache
def write_order(target: RowTarget) -> int:
    """The place of a target among others: updates come first, then tables, each after those that its foreign keys name."""
    if isinstance(target, GuardedChange):
        return 0
    table = target if isinstance(target, Table) else target.table
    return 1 + max((write_order(key.column.table) for key in table.foreign_keys if key.column.table is not table), default=0)


@cache
def column_names(table: Table) -> tuple[str, ...]:
    return tuple(table.columns.keys())


def _with_driver_marks(connection: Connection, statement: str) -> str:
    """Returns the statement with the parameter marks of the driver."""
    return statement if connection.dialect.name == "sqlite" else statement.replace("?", "%s")


@cache
def _postgres_statement(target: RowTarget) -> str:
    """For one row. It fails with _MISSED_STATE where a checked change misses the row, so that nothing after it is written."""
    statement = statement_for(target, 1).replace("?", "%s")
    is_checked = missed_error_of(target) is not None
    return f"WITH changed AS ({statement} RETURNING 1) SELECT 1 / COUNT(*) FROM changed" if is_checked else statement  # noqa: S608 (our own text)


@cache
def statement_for(target: RowTarget, count: int) -> str:
    """The statement that writes `count` rows, whose values are given by `?` marks, one row after the other."""
    if isinstance(target, GuardedUpdate):
        return target.build_statement(_marks(count, len(target.values + target.keys)))
    table, columns = (target, column_names(target)) if isinstance(target, Table) else (target.table, target.columns)
    end = f" {target.on_conflict}" if isinstance(target, GuardedUpsert) else ""
    return f"INSERT INTO {table.name} ({','.join(columns)}) {_marks(count, len(columns))}{end}"


def _marks(rows: int, columns: int) -> str:
    row = f"({','.join('?' * columns)})"
    return f"VALUES {','.join([row] * rows)}"
