"""The registry of live gateway processes that share a database, based on heartbeats, and the election of one of them."""

import asyncio
import threading
from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import Connection, Engine, select, text
from sqlalchemy.exc import SQLAlchemyError

from gateway.storage.database import Batch, Database
from gateway.storage.tables import processes

GONE_HEARTBEATS = 2  # own heartbeats after which a process without heartbeat and database session counts as dead
SILENT_HEARTBEATS = 30  # own heartbeats for one that has a database session: its machine may be gone
ELECTION_LOCK = 4_242_003  # advisory lock of the session of the elected process
_UPSERT_HEARTBEAT = "INSERT INTO processes (id, started, seen) VALUES (?, ?, ?) ON CONFLICT (id) DO UPDATE SET seen = excluded.seen"
_SELECT_SESSIONS = "SELECT DISTINCT application_name FROM pg_stat_activity WHERE datname = current_database()"


@dataclass(slots=True)
class _OtherProcess:
    """What this process knows of another.

    `seen` is on the other's clock; `heartbeats` counts this process's own heartbeats since `seen` changed. So clocks need not agree,
    and an outage of the database makes no process dead.
    """

    seen: int
    heartbeats: int = 0


class Election:
    """Elects one process for periodic work that only one has to do: the one whose session holds an advisory lock of PostgreSQL.

    The lock goes with its session, so another process is elected when this one ends, is killed, or loses its connection. For a moment two
    processes may then do the same work, which must be harmless. A process on SQLite is always elected.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._guard = threading.Lock()
        self._session: Connection | None = None  # that holds the lock

    async def is_won(self) -> bool:
        """Returns whether this process is the elected one, after it has tried to be."""
        return self._engine.dialect.name != "postgresql" or await asyncio.to_thread(self._try)

    def give_up(self) -> None:
        """Lets another process be elected."""
        with self._guard:
            self._drop_session()

    def _try(self) -> bool:
        with self._guard:
            try:
                if self._session is not None:
                    self._session.exec_driver_sql("SELECT 1")
                    return True
                session = self._session = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
                if session.exec_driver_sql(f"SELECT pg_try_advisory_lock({ELECTION_LOCK})").scalar_one():
                    return True
            except SQLAlchemyError:  # the database is away; the next round tries again
                pass
            self._drop_session()
            return False

    def _drop_session(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.invalidate()  # ends the session itself: one that went back to the pool would keep the lock
            session.close()


class ProcessRegistry:
    """Registers this process among those that share a database. Each row of `processes` is a live process."""

    def __init__(self, database: Database, process: str, now: Callable[[], int]) -> None:
        """`process` is also the name of the sessions that the process holds at PostgreSQL (see engine_for)."""
        self._database = database
        self._process = process
        self._now = now
        self._others: dict[str, _OtherProcess] = {}

    async def register(self) -> None:
        """Registers this process. On SQLite, deletes all other rows, since only one process can use the database."""

        def work(batch: Batch) -> None:
            if self._database.is_sqlite:
                batch.run("DELETE FROM processes", ())
            self._write_heartbeat(batch)

        await self._database.write(work)

    async def heartbeat(self) -> bool:
        """Writes a heartbeat, and deletes processes that are dead.

        Returns whether any was deleted. Raises WriteFailed and ReadFailed.
        """
        try:
            await self._database.write(self._write_heartbeat)
            if self._database.is_sqlite:
                return False
            gone = self._find_gone(*await self._database.read(_read_processes))
            if gone:
                await self._database.write(lambda batch: _delete_gone(batch, gone))
            return bool(gone)
        except BaseException:
            self._others.clear()  # without the database, silence of others proves nothing
            raise

    async def is_alive(self, process: str) -> bool:
        """Returns whether a process is registered; the row of a killed process is deleted within seconds. Raises ReadFailed."""
        found = select(processes.c.id).where(processes.c.id == process)
        return await self._database.read(lambda connection: connection.execute(found).first()) is not None

    async def depart(self) -> None:
        """Deletes this process's row, so that other processes take over its work."""
        await self._database.write(lambda batch: batch.run("DELETE FROM processes WHERE id = ?", (self._process,)))

    def _write_heartbeat(self, batch: Batch) -> None:
        now = self._now()
        batch.run(_UPSERT_HEARTBEAT, (self._process, now, now))

    def _find_gone(self, rows: dict[str, int], sessions: set[str]) -> list[tuple[str, int]]:
        """Returns (id, seen) of the dead processes."""
        others = {name: seen for name, seen in rows.items() if name != self._process}
        self._others = {name: known for name, known in self._others.items() if others.get(name) == known.seen}
        gone = []
        for name, seen in others.items():
            other = self._others.setdefault(name, _OtherProcess(seen))
            other.heartbeats += 1
            if other.heartbeats > (SILENT_HEARTBEATS if name in sessions else GONE_HEARTBEATS):
                gone.append((name, seen))
        return gone


def _read_processes(connection: Connection) -> tuple[dict[str, int], set[str]]:
    """Returns when each process was last seen, and the names of the open database sessions."""
    rows = connection.execute(select(processes.c.id, processes.c.seen)).all()
    return {row.id: row.seen for row in rows}, set(connection.execute(text(_SELECT_SESSIONS)).scalars())


def _delete_gone(batch: Batch, gone: list[tuple[str, int]]) -> None:
    """Deletes dead processes, except those that have written a heartbeat since."""
    for name, seen in gone:
        batch.run("DELETE FROM processes WHERE id = ? AND seen = ?", (name, seen))
