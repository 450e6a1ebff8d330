"""The clock of claims and effects: one for all processes, so that a process whose own clock is wrong breaks no claim."""

import time
from collections.abc import Callable

from sqlalchemy import Connection, text

from gateway.storage.batch import Batch

NOTED_US, RECENT_US = 1_000_000, 60_000_000
_DATABASE_CLOCK = text("SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS bigint)")


class SubjectClock:
    """Microseconds since 1970: by PostgreSQL's clock, which its processes share; with SQLite by the clock of the only process, `now`."""

    def __init__(self, now: Callable[[], int]) -> None:
        self._now = now
        self._ahead = 0  # of the database's clock over that of this process, which counts microseconds since its machine has started
        self._noted = -RECENT_US  # when, on the clock of this process

    def read(self, connection: Connection) -> int:
        """The time now; in a transaction that waited for a lock, the time after the wait."""
        if connection.dialect.name == "sqlite":
            return self._now()
        return self.note(int(connection.execute(_DATABASE_CLOCK).scalar_one()))

    def note(self, moment: int) -> int:
        """Takes note of the time that a query has read, and returns it. 0: the database has no clock of its own."""
        if not moment:
            return self._now()
        counted = _microseconds()
        self._ahead = moment - counted  # first: another thread goes by it as soon as `_noted` is recent
        self._noted = counted
        return moment

    def estimate(self, batch: Batch) -> int:
        """The time now, mostly without a query: what went by since the database was asked, NOTED_US at most, is counted here."""
        if batch.is_sqlite:
            return self._now()
        counted = _microseconds()
        return self._ahead + counted if counted - self._noted < NOTED_US else self.read(batch.connection)

    def recent(self, is_sqlite: bool) -> int | None:
        """The time now without a query; None where this process has not asked the database in the last minute."""
        if is_sqlite:
            return self._now()
        counted = _microseconds()
        return self._ahead + counted if counted - self._noted < RECENT_US else None

    def moment_of(self, moment: int, is_sqlite: bool) -> int:
        """A recent moment of the process's own clock on this clock; 0 where that is not known."""
        now = self.recent(is_sqlite)
        return 0 if now is None else moment + now - self._now()


def _microseconds() -> int:
    return time.monotonic_ns() // 1000
