"""Writes all rows of a SQLite transaction by one statement, which also commits them."""

import re
from typing import Any

import msgspec
from sqlalchemy import Connection
from sqlalchemy.exc import DataError, DBAPIError

from gateway.storage.batch import (
    CommitUncertain,
    GuardedUpdate,
    GuardedUpsert,
    RowsByTarget,
    RowTarget,
    WriteFailed,
    insert_into,
    write_order,
)

JSON_BYTES_MAX = 64 << 10  # larger batches are written row by row, because JSON needs several times its length in memory
UNWRITABLE_ERRORS = ("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_READONLY")  # the statement wrote nothing
_MISSED_PREFIX = "rows have moved: "
_encode_json = msgspec.json.Encoder().encode
_find_nul = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000").search  # SQLite's JSON functions end a text at a NUL


def bulk_insert_for(connection: Connection) -> "SqliteBulkInsert | None":
    """Returns the bulk insert of a SQLite connection.

    Returns None for PostgreSQL, where psycopg pipelines the statements of single rows.
    """
    return SqliteBulkInsert() if connection.dialect.name == "sqlite" else None


class SqliteBulkInsert:
    """Writes rows through a temporary view whose trigger takes JSON: one column for each table and each kind of update.

    SQLite releases the interpreter's lock for each statement, and a busy event loop is slow to return it. Ten statements wait for the
    lock about thirty times, this one three times.
    """

    def __init__(self) -> None:
        self._targets: list[RowTarget] = []
        self._statement = ""

    def write(self, connection: Connection, rows: RowsByTarget) -> bool:
        bodies = {kind: _encode_rows(values) for kind, values in rows.items()}
        if sum(map(len, bodies.values())) > JSON_BYTES_MAX:
            return False
        within, errors = connection.in_transaction(), connection.dialect.loaded_dbapi.Error
        execute = connection.connection.dbapi_connection.execute  # type: ignore[union-attr]  # sqlite3 has it
        try:
            if not rows.keys() <= set(self._targets):
                if within:
                    return False  # a rollback would remove the view
                self._create_view(execute, [*self._targets, *(kind for kind in rows if kind not in self._targets)])
            execute(self._statement, [bodies[kind].decode() if kind in bodies else None for kind in self._targets])
        except errors as error:
            _, found, number = str(error).partition(_MISSED_PREFIX)
            if found:
                raise self._targets[int(number)].missed_error from None  # type: ignore[union-attr,misc]  # only guarded changes raise it
            if isinstance(error, connection.dialect.loaded_dbapi.OperationalError) and not within:
                _raise_commit_error(error)
            raise DBAPIError.instance(self._statement, None, error, errors) from error
        return True

    def _create_view(self, execute: Any, targets: list[RowTarget]) -> None:
        targets.sort(key=write_order)
        columns = [f"given{number}" for number in range(len(targets))]
        steps = " ".join(_trigger_step(kind, number) for number, kind in enumerate(targets))
        execute("DROP VIEW IF EXISTS temp.intake")
        execute(f"CREATE TEMP VIEW intake AS SELECT {','.join(f'NULL AS {column}' for column in columns)}")
        execute(f"CREATE TEMP TRIGGER intake_rows INSTEAD OF INSERT ON intake BEGIN {steps} END")
        self._statement = f"INSERT INTO temp.intake ({','.join(columns)}) VALUES ({','.join('?' * len(columns))})"  # noqa: S608 (our names)
        self._targets = targets


def _raise_commit_error(error: Exception) -> None:
    """Raises WriteFailed or CommitUncertain for the error of a statement that also commits.

    Returns if the statement certainly wrote nothing because of its own data.
    """
    name = str(getattr(error, "sqlite_errorname", ""))
    if name.startswith(UNWRITABLE_ERRORS):
        raise WriteFailed("the database can't be reached") from error
    if name != "SQLITE_FULL":
        raise CommitUncertain from error


def _encode_rows(rows: Any) -> bytes:
    """Returns the rows as JSON. Raises DataError if a text contains a NUL, like PostgreSQL."""
    body = _encode_json(rows)
    if b"\\u0000" in body and _find_nul(body):
        raise DataError("a text holds a NUL", None, ValueError("NUL"))
    return body


def _trigger_step(target: RowTarget, number: int) -> str:
    """For all rows of that column of the view; the whole statement ends where not each of them is met."""
    json_rows = f"json_each(NEW.given{number})"
    if isinstance(target, GuardedUpdate):
        update = target.build_statement(f"SELECT {_json_columns(len(target.values + target.keys))} FROM {json_rows}")  # noqa: S608 (our own names)
        return f"{update}; {_missed_step(number)}" if target.missed_error is not None else f"{update};"
    statement, count = insert_into(target)
    if isinstance(target, GuardedUpsert):  # `WHERE true` tells SQLite that ON begins no join
        rows = f"SELECT {_json_columns(count)} FROM {json_rows} WHERE true"  # noqa: S608 (names of our own tables)
        return f"{statement} {rows} {target.on_conflict}; {_missed_step(number)}"
    return f"{statement} SELECT {_json_columns(count)} FROM {json_rows};"  # noqa: S608 (names of our own tables)


def _missed_step(number: int) -> str:
    """Ends the statement where not each row of the column was met."""
    return f"SELECT RAISE(ABORT, '{_MISSED_PREFIX}{number}') WHERE changes() <> json_array_length(NEW.given{number});"


def _json_columns(count: int) -> str:
    return ",".join(f"json_extract(value, '$[{position}]') AS column{position + 1}" for position in range(count))
