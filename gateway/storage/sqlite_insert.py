"""Writes all rows of a SQLite transaction by one statement for each table and each kind of update."""

from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from itertools import chain
from typing import Any, Final

from sqlalchemy import Connection
from sqlalchemy.exc import DataError, DBAPIError

from gateway.storage.batch import (
    CommitUncertain,
    RowsByTarget,
    RowTarget,
    WriteFailed,
    missed_error_of,
    statement_for,
    write_order,
)

ROWS_MAX: Final = 32  # of one statement: SQLite keeps each prepared statement, so that there are at most as many for each target
PREPARED_MAX: Final = 256  # statements that SQLite keeps for a connection
UNWRITABLE_ERRORS = ("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_READONLY")  # the statement wrote nothing


def bulk_insert_for(connection: Connection) -> "SqliteBulkInsert | None":
    """Returns the bulk insert of a SQLite connection.

    Returns None for PostgreSQL, where psycopg pipelines the statements of single rows.
    """
    return SqliteBulkInsert() if connection.dialect.name == "sqlite" else None


class SqliteBulkInsert:
    """Writes the rows of all jobs of a commit by few statements, with their values as parameters.

    SQLite releases the interpreter's lock for every statement, and a busy event loop is slow to return it. So a statement writes up to
    ROWS_MAX rows, and the rows of a single statement commit themselves.
    """

    def write(self, connection: Connection, rows: RowsByTarget) -> None:
        parts = [
            (target, rows[target][at : at + ROWS_MAX])
            for target in sorted(rows, key=write_order)
            for at in range(0, len(rows[target]), ROWS_MAX)
        ]
        driver: Any = connection.connection.dbapi_connection
        errors, is_own = connection.dialect.loaded_dbapi.Error, not connection.in_transaction()
        begins = is_own and (len(parts) > 1 or missed_error_of(parts[0][0]) is not None)  # such a change may turn out not to be committed
        must_roll_back = is_own
        try:
            if begins:
                driver.execute("BEGIN IMMEDIATE")
            for target, part in parts:
                _write_part(driver, target, part)
            if begins:
                driver.execute("COMMIT")
            must_roll_back = False
        except errors as error:
            if is_own and isinstance(error, connection.dialect.loaded_dbapi.OperationalError):
                _raise_commit_error(error)
            raise DBAPIError.instance("", None, error, errors) from error
        finally:
            if must_roll_back:
                with suppress(errors):  # a connection that can't roll back can't begin either
                    driver.rollback()


def _write_part(driver: Any, target: RowTarget, rows: Sequence[tuple[Any, ...]]) -> None:
    """Writes rows by one statement. Raises `missed_error` of a guarded change that has not met all of them, and DataError for a NUL.

    PostgreSQL stores no NUL in a text, and SQLite's functions end a text there.
    """
    values = tuple(chain.from_iterable(rows))
    if "\0" in "".join([value for value in values if isinstance(value, str)]):  # one search costs a third of a search in each text
        raise DataError("a text holds a NUL", None, ValueError("NUL"))
    changed = driver.execute(_rollback_statement_for(target, len(rows)), values).rowcount
    if (missed := missed_error_of(target)) is not None and changed != len(rows):
        raise missed


@cache
def _rollback_statement_for(target: RowTarget, count: int) -> str:
    """Returns the statement that writes `count` rows. If it fails, SQLite ends the whole transaction, which `Batch` expects.

    Without OR ROLLBACK, SQLite copies each page that the statement changes, to be able to take back the statement alone.
    """
    verb, rest = statement_for(target, count).split(" ", 1)
    return f"{verb} OR ROLLBACK {rest}"


def _raise_commit_error(error: Exception) -> None:
    """Raises WriteFailed or CommitUncertain for the error of a transaction that also commits.

    Returns if it certainly wrote nothing because of its own data.
    """
    name = str(getattr(error, "sqlite_errorname", ""))
    if name.startswith(UNWRITABLE_ERRORS):
        raise WriteFailed("the database can't be reached") from error
    if name != "SQLITE_FULL":
        raise CommitUncertain from error
