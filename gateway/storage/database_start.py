"""Reaching the database at start: waits while it is away, and says in one line what is wrong with it."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

RETRY_SECONDS = 0.5
PERMANENT_ERRORS = ("authentication failed", "no password supplied", "does not exist", "pg_hba.conf", "invalid port number")  # of Postgres

DAMAGED_FILE_ERRORS = ("not a database", "malformed")  # of SQLite


class DatabaseUnusable(Exception):
    """The gateway can't begin with this database. `todo` says what to do about it."""

    def __init__(self, problem: str, todo: str) -> None:
        super().__init__(problem)
        self.todo = todo


@dataclass(frozen=True, slots=True)
class DatabaseWait:
    """How long a database that is away is waited for, in seconds, and the clock for it. `told` hears once what is waited for."""

    seconds: float
    report: Callable[[str], None]
    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


def wait_for_database(engine: Engine, patience: DatabaseWait) -> None:
    """Returns once the database answers. Raises DatabaseUnusable: at once for what waiting does not mend, else when time is over."""
    deadline, waiting = patience.now() + patience.seconds, False
    while True:
        try:
            with engine.connect() as connection:
                connection.execution_options(interlock_read=True).exec_driver_sql("SELECT 1")
            return
        except SQLAlchemyError as error:
            problem = problem_of(error)
            if is_permanent(engine, problem) or patience.now() >= deadline:
                raise describe_unusable(engine, error) from error
        if not waiting:
            patience.report(f"{describe_location(engine)}: {problem}; waiting up to {patience.seconds:.0f} s for it")
            waiting = True
        patience.sleep(RETRY_SECONDS)


def describe_unusable(engine: Engine, error: SQLAlchemyError) -> DatabaseUnusable:
    """What to tell of an error, with what to do."""
    problem = problem_of(error)
    if any(sign in problem for sign in DAMAGED_FILE_ERRORS):
        todo = f"restore it from a backup; what can still be read of it: sqlite3 {engine.url.database} .recover"
    elif engine.dialect.name == "sqlite":
        todo = "make its folder, or let this user write there; database.url says where it is"
    elif is_permanent(engine, problem):
        todo = "look at database.url, and at the users and databases of the server"
    else:
        todo = "start it, or look at database.url; database.wait says how long it is waited for"
    return DatabaseUnusable(f"{describe_location(engine)}: {problem}", todo)


def is_permanent(engine: Engine, problem: str) -> bool:
    """Whether waiting does not mend it: it is no server that starts."""
    return engine.dialect.name == "sqlite" or any(sign in problem for sign in PERMANENT_ERRORS)


def problem_of(error: SQLAlchemyError) -> str:
    """The driver's own words for it, in one line. No password is ever among them."""
    said = str(error.orig if isinstance(error, DBAPIError) and error.orig is not None else error)
    line = said.strip().partition("\n")[0].strip()
    return line.rpartition("failed: ")[2][:300] or type(error).__name__


def cause_of(error: Exception) -> str:
    """What the database said, of its own error or of one that was raised for it; empty for any other."""
    cause = error if isinstance(error, SQLAlchemyError) else error.__cause__
    return problem_of(cause) if isinstance(cause, SQLAlchemyError) else ""


def describe_location(engine: Engine) -> str:
    """Where the database is, without who we are there."""
    url = engine.url
    if engine.dialect.name == "sqlite":
        return f"the database {url.database}"
    return f"the database {url.database or ''} at {url.host or 'the local socket'}:{url.port or 5432}"
