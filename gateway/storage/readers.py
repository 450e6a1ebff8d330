"""Threads that read the database. Each keeps its connection, so that a read costs neither a look at the pool nor a ping."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

T = TypeVar("T")
Rows = list[tuple[Any, ...]]
READER_THREADS = 4
READER_CACHE_KB = 256  # of SQLite for each thread; its default of 2 MB repeats what the operating system caches


class ReaderThreads:
    """Runs reads. A read on a connection that turns out to be lost is repeated once on a new one, so `work` may run twice."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._threads = ThreadPoolExecutor(READER_THREADS, thread_name_prefix="interlock-reader")
        self._own: dict[int, Connection] = {}  # by thread

    async def run(self, work: Callable[[], T]) -> T:
        """Runs `work`, which calls the methods below, in one of the threads."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def transact(self, work: Callable[[Connection], T]) -> T:
        """Runs `work` within one transaction. Raises SQLAlchemyError.

        The transaction has changed nothing, and is committed: after a rollback psycopg forgets all statements that it has prepared.
        """

        def run(connection: Connection) -> T:
            try:
                found = work(connection)
                connection.commit()
            except BaseException:
                connection.rollback()
                raise
            return found

        return self._with_connection(run)

    def query(self, statement: str, values: tuple[Any, ...]) -> Rows:
        """Runs one query with `?` marks outside a transaction, so that nothing else is sent. Raises SQLAlchemyError."""
        return self._with_connection(lambda connection: _query(connection, statement, values))

    def close(self) -> None:
        """Ends the threads after the reads that have begun, and gives their connections back."""
        self._threads.shutdown(wait=True)
        for connection in self._own.values():
            connection.close()

    def _with_connection(self, work: Callable[[Connection], T]) -> T:
        known = self._own.get(threading.get_ident())
        if known is not None:
            try:
                return work(known)
            except SQLAlchemyError:
                if not known.invalidated:
                    raise
                self._forget(known)
        connection = self._open_connection()
        self._own[threading.get_ident()] = connection
        try:
            return work(connection)
        except SQLAlchemyError:
            if connection.invalidated:
                self._forget(connection)
            raise

    def _open_connection(self) -> Connection:
        connection = self._engine.connect().execution_options(interlock_read=True)
        if connection.dialect.name == "sqlite":
            driver: Any = connection.connection.dbapi_connection
            driver.execute(f"PRAGMA cache_size = -{READER_CACHE_KB}")
        return connection

    def _forget(self, connection: Connection) -> None:
        del self._own[threading.get_ident()]
        connection.close()


def _query(connection: Connection, statement: str, values: tuple[Any, ...]) -> Rows:
    errors, is_sqlite = connection.dialect.loaded_dbapi.Error, connection.dialect.name == "sqlite"
    driver: Any = connection.connection.dbapi_connection
    try:
        if is_sqlite:
            return list(driver.execute(statement, values))
        driver.set_autocommit(True)  # nothing is sent: psycopg begins no transaction
        try:
            return list(driver.execute(_with_postgres_marks(statement), values))
        finally:
            driver.set_autocommit(False)
    except errors as error:
        if not is_sqlite and driver.closed:
            connection.invalidate(error)
        raise DBAPIError.instance(statement, None, error, errors) from error


@cache
def _with_postgres_marks(statement: str) -> str:
    return statement.replace("?", "%s")
