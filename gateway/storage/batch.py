"""What the jobs of one transaction keep: rows that wait for its end, and statements that are run at once."""

from collections.abc import Mapping, Sequence
from contextlib import closing
from functools import cache
from typing import Any, NamedTuple, Protocol

from sqlalchemy import Connection, Table
from sqlalchemy.exc import DBAPIError, SQLAlchemyError


class WriteFailed(Exception):
    """The database did not take the write. Nothing of it was kept, unless the connection broke just as it committed."""


class CommitUncertain(Exception):
    """Whether it was kept is for the database to say."""


class GuardedUpdate(NamedTuple):
    """How rows of a table change: each by its `keys`, which must name a row as it stands; `missed` is raised when they name none."""

    table: Table
    values: tuple[str, ...]
    keys: tuple[str, ...]
    missed_error: type[Exception]

    def build_statement(self, rows_source: str) -> str:
        """The update, from rows of `source` whose columns are column1, column2, …: the values first, then the keys."""
        name, columns = self.table.name, [f"given.column{number}" for number in range(1, len(self.values) + len(self.keys) + 1)]
        sets = ",".join(f"{value}={given}" for value, given in zip(self.values, columns, strict=False))
        match = " AND ".join(f"{name}.{key}={given}" for key, given in zip(self.keys, columns[len(self.values) :], strict=True))
        return f"UPDATE {name} SET {sets} FROM ({rows_source}) AS given WHERE {match}"  # noqa: S608 (names of our own tables)


RowsByTarget = Mapping[Table | GuardedUpdate, Sequence[tuple[Any, ...]]]


class BulkInsert(Protocol):
    """A quicker way to put rows in, which commits too where no transaction has begun."""

    def write(self, connection: Connection, rows: RowsByTarget) -> bool:
        """All of them, those that move first; False, and none of them, when this is not the way for these rows.

        Raises as `put_each` does, NotKept and CommitBroke.
        """
        ...


class Batch:
    """One transaction under way. Rows that are only inserted or moved go in together, at its end or when somebody has to see them."""

    def __init__(self, connection: Connection, bulk_insert: BulkInsert | None = None) -> None:
        self._connection = connection
        self._bulk_insert = bulk_insert
        self._rows: dict[Table | GuardedUpdate, list[tuple[Any, ...]]] = {}
        self._has_begun = False

    @property
    def connection(self) -> Connection:
        """For statements other than plain inserts; sees every row added before."""
        self._begin()
        self.flush()
        return self._connection

    def add(self, table: Table, row: dict[str, Any]) -> None:
        self._rows.setdefault(table, []).append(tuple(map(row.get, column_names(table))))

    def update(self, guarded_update: GuardedUpdate, values: tuple[Any, ...]) -> None:
        """Changes one row, not later than `flush`, which raises `moves.missed` when it is not there as its keys say."""
        self._rows.setdefault(guarded_update, []).append(values)

    def run(self, statement: str, values: tuple[Any, ...]) -> int:
        """Runs one statement at once, with `?` marks, and returns the number of rows it changed. Does not see rows just added."""
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

    def flush(self) -> None:
        """Puts what waits into the transaction. Raises as `put_each` does."""
        if self._rows:
            self._begin()
            rows, self._rows = self._rows, {}
            if self._bulk_insert is None or not self._bulk_insert.write(self._connection, rows):
                write_each(self._connection, rows)

    def commit(self) -> None:
        """Puts what waits, and commits. Raises as `flush` does, NotKept and CommitBroke."""
        if self._rows and not self._has_begun and self._bulk_insert is not None:
            if self._bulk_insert.write(self._connection, self._rows):
                return
            self._bulk_insert = None
        self.flush()
        try:
            self._connection.commit()
        except (SQLAlchemyError, OSError) as error:
            raise CommitUncertain from error

    def _begin(self) -> None:
        """Raises NotKept."""
        if not self._has_begun:
            try:
                self._connection.begin()
            except SQLAlchemyError as error:
                raise WriteFailed("the database can't be reached") from error
            self._has_begun = True


def write_each(connection: Connection, rows: RowsByTarget) -> None:
    """A statement for each row, those that move first; psycopg sends them all before it reads the first answer.

    Raises what DBAPIError stands for, and the `missed` of rows that moved.
    """
    errors, text = connection.dialect.loaded_dbapi.Error, ""
    with closing(connection.connection.cursor()) as cursor:
        try:
            for kind in sorted(rows, key=updates_first):
                text = _with_driver_marks(connection, _single_row_statement(kind))
                cursor.executemany(text, rows[kind])
                if isinstance(kind, GuardedUpdate) and cursor.rowcount != len(rows[kind]):
                    raise kind.missed_error
        except errors as error:
            raise DBAPIError.instance(text, None, error, errors) from error


def updates_first(target: Table | GuardedUpdate) -> bool:
    """A key to sort by."""
    return isinstance(target, Table)


@cache
def column_names(table: Table) -> tuple[str, ...]:
    return tuple(table.columns.keys())


def _with_driver_marks(connection: Connection, statement: str) -> str:
    """The statement with the marks that the driver knows."""
    return statement if connection.dialect.name == "sqlite" else statement.replace("?", "%s")


@cache
def _single_row_statement(target: Table | GuardedUpdate) -> str:
    """For one row given by marks."""
    if isinstance(target, GuardedUpdate):
        return target.build_statement(f"VALUES ({','.join('?' * len(target.values + target.keys))})")
    names = column_names(target)
    return f"INSERT INTO {target.name} ({','.join(names)}) VALUES ({','.join('?' * len(names))})"  # noqa: S608 (names of our own tables)
