"""The clock of claims and effects: one for all processes, so that a process whose own clock is wrong breaks no claim."""

import time
from collections.abc import Callable

from sqlalchemy import Connection, text

from gateway.storage.batch import Batch

_DATABASE_CLOCK = text("SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS bigint)")


class SubjectClock:
    """Microseconds since 1970: by PostgreSQL's clock, which its processes share; with SQLite by the clock of the only process, `now`."""

    def __init__(self, now: Callable[[], int]) -> None:
        self._now = now
        self._ahead: int | None = None  # of the database's clock, over the microseconds that this process has run

    def read(self, connection: Connection) -> int:
        """The time now; in a transaction that waited for a lock, the time after the wait."""
        if connection.dialect.name == "sqlite":
            return self._now()
        return self.note(int(connection.execute(_DATABASE_CLOCK).scalar_one()))

    def note(self, moment: int) -> int:
        """Takes note of the time that a query has read, and returns it. 0: the database has no clock of its own."""
        if not moment:
            return self._now()
        self._ahead = moment - _microseconds()
        return moment

    def estimate(self, batch: Batch) -> int:
        """The time now without a query, once this process has asked the database. Its own clock only counts what went by since."""
        if batch.is_sqlite:
            return self._now()
        return self.read(batch.connection) if self._ahead is None else self._ahead + _microseconds()


def _microseconds() -> int:
    return time.monotonic_ns() // 1000
