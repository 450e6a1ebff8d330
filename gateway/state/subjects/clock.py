"""The clock of claims and effects: one for all processes, so that a process whose own clock is wrong breaks no claim."""

from collections.abc import Callable

from sqlalchemy import Connection, text

_DATABASE_CLOCK = text("SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS bigint)")


class SubjectClock:
    """Microseconds since 1970: by PostgreSQL's clock, which its processes share; with SQLite by the clock of the only process, `now`."""

    def __init__(self, now: Callable[[], int]) -> None:
        self._now = now

    def read(self, connection: Connection) -> int:
        """The time now; in a transaction that waited for a lock, the time after the wait."""
        if connection.dialect.name == "sqlite":
            return self._now()
        return int(connection.execute(_DATABASE_CLOCK).scalar_one())
