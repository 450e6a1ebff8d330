"""How the rows of a transaction get into a database: by a single statement into SQLite, by a pipeline of statements into Postgres."""

import re
from contextlib import closing
from functools import cache
from typing import Any

import msgspec
from sqlalchemy import Connection, Table
from sqlalchemy.exc import DataError, DBAPIError

from gateway.batch import CommitBroke, Keeper, Moves, NotKept, Rows, marked, names_of

_encode = msgspec.json.Encoder().encode
_nul = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000").search  # where SQLite's JSON would end a text
SHUT = ("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_READONLY")  # nothing can be written now
_MOVED = "rows have moved: "


def keeper_for(connection: Connection) -> Keeper:
    """For this one connection."""
    return Intake() if connection.dialect.name == "sqlite" else Pipeline()


class Pipeline:
    """A statement for each row; psycopg sends them all before it reads the first answer."""

    alone = False

    def put(self, connection: Connection, rows: Rows) -> None:
        errors, text = connection.dialect.loaded_dbapi.Error, ""
        with closing(connection.connection.cursor()) as cursor:
            try:
                for kind in sorted(rows, key=_moves_first):
                    text = marked(connection, _one(kind))
                    cursor.executemany(text, rows[kind])
                    if isinstance(kind, Moves) and cursor.rowcount != len(rows[kind]):
                        raise kind.missed
            except errors as error:
                raise DBAPIError.instance(text, None, error, errors) from error


class Intake:
    """A temporary view of one connection, whose trigger takes rows in as JSON: a column for each table and each way of moving rows.

    SQLite gives up the interpreter's lock for every statement it runs, and a busy event loop is slow to hand it back. Ten statements wait
    for it some thirty times; this one waits three times, and commits as well where no transaction has begun.
    """

    alone = True

    def __init__(self) -> None:
        self._kinds: list[Table | Moves] = []
        self._statement = ""

    def put(self, connection: Connection, rows: Rows) -> None:
        errors = connection.dialect.loaded_dbapi.Error
        execute = connection.connection.dbapi_connection.execute  # type: ignore[union-attr]  # sqlite3 has it
        try:
            if not rows.keys() <= set(self._kinds):
                self._learn(execute, [*self._kinds, *(kind for kind in rows if kind not in self._kinds)])
            execute(self._statement, [_text(rows[kind]) if kind in rows else None for kind in self._kinds])
        except errors as error:
            _, found, number = str(error).partition(_MOVED)
            if found:
                raise self._kinds[int(number)].missed from None  # type: ignore[union-attr]  # only moves say so
            if isinstance(error, connection.dialect.loaded_dbapi.OperationalError) and not connection.in_transaction():
                _raise_of_commit(error)
            raise DBAPIError.instance(self._statement, None, error, errors) from error

    def _learn(self, execute: Any, kinds: list[Table | Moves]) -> None:
        kinds.sort(key=_moves_first)
        columns = [f"given{number}" for number in range(len(kinds))]
        steps = " ".join(_all(kind, number) for number, kind in enumerate(kinds))
        execute("DROP VIEW IF EXISTS temp.intake")
        execute(f"CREATE TEMP VIEW intake AS SELECT {','.join(f'NULL AS {column}' for column in columns)}")
        execute(f"CREATE TEMP TRIGGER intake_rows INSTEAD OF INSERT ON intake BEGIN {steps} END")
        self._statement = f"INSERT INTO temp.intake ({','.join(columns)}) VALUES ({','.join('?' * len(columns))})"  # noqa: S608 (our names)
        self._kinds = kinds


def _raise_of_commit(error: Exception) -> None:
    """What a statement that commits as well came to. Nothing when it is certain that none of it was kept, whoever is to blame."""
    name = str(getattr(error, "sqlite_errorname", ""))
    if name.startswith(SHUT):
        raise NotKept("the database can't be reached") from error
    if name != "SQLITE_FULL":
        raise CommitBroke from error


def _moves_first(kind: Table | Moves) -> bool:
    return isinstance(kind, Table)


def _text(rows: Any) -> str:
    """The rows as JSON. Raises DataError where they hold a NUL, as Postgres does."""
    body = _encode(rows)
    if b"\\u0000" in body and _nul(body):
        raise DataError("a text holds a NUL", None, ValueError("NUL"))
    return body.decode()


@cache
def _one(kind: Table | Moves) -> str:
    """For one row given by marks."""
    if isinstance(kind, Moves):
        return kind.statement(f"VALUES ({','.join('?' * len(kind.values + kind.keys))})")
    names = names_of(kind)
    return f"INSERT INTO {kind.name} ({','.join(names)}) VALUES ({','.join('?' * len(names))})"  # noqa: S608 (names of our own tables)


def _all(kind: Table | Moves, number: int) -> str:
    """For all rows of that column of the view; the whole statement ends where not each of them is met."""
    given = f"json_each(NEW.given{number})"
    if isinstance(kind, Moves):
        update = kind.statement(f"SELECT {_values(len(kind.values + kind.keys))} FROM {given}")  # noqa: S608 (our own names)
        missed = f"SELECT RAISE(ABORT, '{_MOVED}{number}') WHERE changes() <> json_array_length(NEW.given{number})"
        return f"{update}; {missed};"
    names = names_of(kind)
    return f"INSERT INTO {kind.name} ({','.join(names)}) SELECT {_values(len(names))} FROM {given};"  # noqa: S608 (names of our own tables)


def _values(count: int) -> str:
    return ",".join(f"json_extract(value, '$[{position}]') AS column{position + 1}" for position in range(count))
