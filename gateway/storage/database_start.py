"""Connects to the database at start: waits while it is unreachable, and describes permanent errors in one line."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

RETRY_SECONDS = 0.5
PERMANENT_ERRORS = ("authentication failed", "no password supplied", "does not exist", "pg_hba.conf", "invalid port number")  # of Postgres

DAMAGED_FILE_ERRORS = ("not a database", "malformed")  # of SQLite
UNUSABLE_FILE_ERRORS = (*DAMAGED_FILE_ERRORS, "unable to open", "readonly")  # of SQLite: others, such as a full disk, may pass


class DatabaseUnusable(Exception):
    """The gateway cannot start with this database. `todo` says what to do.

    With `may_pass` a later start can succeed although no person changes anything, such as once a server runs again.
    """

    def __init__(self, problem: str, todo: str, *, may_pass: bool = False) -> None:
        super().__init__(problem)
        self.todo = todo
        self.may_pass = may_pass


@dataclass(frozen=True, slots=True)
class DatabaseWait:
    """How many seconds to wait for an unreachable database, with the clock. `report` is called once with what is awaited."""

    seconds: float
    report: Callable[[str], None]
    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


def wait_for_database(engine: Engine, patience: DatabaseWait) -> None:
    """Returns once the database answers.

    Raises DatabaseUnusable at once for a permanent error, otherwise after the wait.
    """
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
    """Returns the error with what to do about it."""
    problem = problem_of(error)
    if any(sign in problem for sign in DAMAGED_FILE_ERRORS):
        todo = f"restore it from a backup, or recover what is readable: sqlite3 {engine.url.database} .recover"
    elif engine.dialect.name == "sqlite":
        todo = "create its folder, or give this user write access there; database.url says where it is"
    elif is_permanent(engine, problem):
        todo = "check database.url, and the users and databases of the server"
    else:
        todo = "start it, or check database.url; database.wait says how long the gateway waits"
    if engine.dialect.name == "sqlite":
        may_pass = not any(sign in problem for sign in UNUSABLE_FILE_ERRORS)
    else:
        may_pass = not is_permanent(engine, problem)
    return DatabaseUnusable(f"{describe_location(engine)}: {problem}", todo, may_pass=may_pass)


def is_permanent(engine: Engine, problem: str) -> bool:
    """Returns whether waiting cannot help, because the error is not that of a server that is starting."""
    return engine.dialect.name == "sqlite" or any(sign in problem for sign in PERMANENT_ERRORS)


def problem_of(error: SQLAlchemyError) -> str:
    """Returns the driver's message in one line. It never contains a password."""
    message = str(error.orig if isinstance(error, DBAPIError) and error.orig is not None else error)
    line = message.strip().partition("\n")[0].strip()
    return line.rpartition("failed: ")[2][:300] or type(error).__name__


def cause_of(error: Exception) -> str:
    """Returns the database's message for its error or an error raised from it, or an empty text for other errors."""
    cause = error if isinstance(error, SQLAlchemyError) else error.__cause__
    return problem_of(cause) if isinstance(cause, SQLAlchemyError) else ""


def describe_location(engine: Engine) -> str:
    """Returns where the database is, without the user name."""
    url = engine.url
    if engine.dialect.name == "sqlite":
        return f"the database {url.database}"
    host, port = (",".join(url.normalized_query.get(name, ())) for name in ("host", "port"))  # libpq takes both from the query too
    return f"the database {url.database or ''} at {url.host or host or 'the local socket'}:{url.port or port or 5432}"
