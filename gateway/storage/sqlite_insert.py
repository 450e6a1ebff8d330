"""All rows of a transaction by one statement of SQLite, which commits them too."""

import re
from typing import Any

import msgspec
from sqlalchemy import Connection, Table
from sqlalchemy.exc import DataError, DBAPIError

from gateway.storage.batch import CommitBroke, Moves, NotKept, Rows, moves_first, names_of

LARGE = 64 << 10  # bytes of JSON; what is longer is given as it is, since JSON costs several times its length in memory
SHUT = ("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_READONLY")  # nothing can be written now
_MOVED = "rows have moved: "
_encode = msgspec.json.Encoder().encode
_nul = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000").search  # where SQLite's JSON would end a text


def intake_for(connection: Connection) -> "SqliteIntake | None":
    """Of this one connection; none at Postgres, which takes each row's statement without waiting for the one before."""
    return SqliteIntake() if connection.dialect.name == "sqlite" else None


class SqliteIntake:
    """A temporary view of one connection, whose trigger takes rows in as JSON: a column for each table and each way of moving rows.

    SQLite gives up the interpreter's lock for every statement it runs, and a busy event loop is slow to hand it back. Ten statements wait
    for it some thirty times, this one three times.
    """

    def __init__(self) -> None:
        self._kinds: list[Table | Moves] = []
        self._statement = ""

    def put(self, connection: Connection, rows: Rows) -> bool:
        bodies = {kind: _json(values) for kind, values in rows.items()}
        if sum(map(len, bodies.values())) > LARGE:
            return False
        within, errors = connection.in_transaction(), connection.dialect.loaded_dbapi.Error
        execute = connection.connection.dbapi_connection.execute  # type: ignore[union-attr]  # sqlite3 has it
        try:
            if not rows.keys() <= set(self._kinds):
                if within:
                    return False  # a rollback would take the view along
                self._learn(execute, [*self._kinds, *(kind for kind in rows if kind not in self._kinds)])
            execute(self._statement, [bodies[kind].decode() if kind in bodies else None for kind in self._kinds])
        except errors as error:
            _, found, number = str(error).partition(_MOVED)
            if found:
                raise self._kinds[int(number)].missed from None  # type: ignore[union-attr]  # only moves say so
            if isinstance(error, connection.dialect.loaded_dbapi.OperationalError) and not within:
                _raise_of_commit(error)
            raise DBAPIError.instance(self._statement, None, error, errors) from error
        return True

    def _learn(self, execute: Any, kinds: list[Table | Moves]) -> None:
        kinds.sort(key=moves_first)
        columns = [f"given{number}" for number in range(len(kinds))]
        steps = " ".join(_step(kind, number) for number, kind in enumerate(kinds))
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


def _json(rows: Any) -> bytes:
    """The rows as JSON. Raises DataError where they hold a NUL, as Postgres does."""
    body = _encode(rows)
    if b"\\u0000" in body and _nul(body):
        raise DataError("a text holds a NUL", None, ValueError("NUL"))
    return body


def _step(kind: Table | Moves, number: int) -> str:
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
