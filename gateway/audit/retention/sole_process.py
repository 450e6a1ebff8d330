"""Work that one process at a time does for minutes: elected by a lock of PostgreSQL. SQLite has one process anyway."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import SQLAlchemyError

from gateway.storage.database import ReadFailed

_KEY: Final = int.from_bytes(hashlib.blake2b(b"retention", digest_size=8).digest(), signed=True)


class SoleProcess:
    """The lock belongs to a connection of its own, and goes with the process that dies."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._is_busy = False

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[bool]:
        """Yields whether no other process, and nothing else in this one, does the work. Raises ReadFailed."""
        if self._is_busy:
            yield False
            return
        self._is_busy = True
        try:
            if self._engine.dialect.name == "sqlite":
                yield True
                return
            connection = await asyncio.to_thread(self._connect)
            try:
                yield await asyncio.to_thread(_try_lock, connection)
            finally:
                await asyncio.to_thread(_unlock, connection)
        finally:
            self._is_busy = False

    def _connect(self) -> Connection:
        try:
            return self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        except SQLAlchemyError as error:
            raise ReadFailed("the database is not reachable") from error


def _try_lock(connection: Connection) -> bool:
    try:
        return bool(connection.execute(text("SELECT pg_try_advisory_lock(:key)"), {"key": _KEY}).scalar_one())
    except SQLAlchemyError as error:
        raise ReadFailed("the database did not answer") from error


def _unlock(connection: Connection) -> None:
    """Gives the connection back without the lock. A lost connection has lost the lock too."""
    with connection:
        try:
            connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": _KEY})
        except SQLAlchemyError:
            connection.invalidate()
