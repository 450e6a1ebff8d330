"""Presence: which processes of the gateway live, as far as the database that they share can tell."""

from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import Connection, select, text

from gateway.storage.database import Batch, Database
from gateway.storage.tables import processes

GONE_HEARTBEATS = 2  # a process without a session at the database, and without a sign of life for so many beats of ours
SILENT_HEARTBEATS = 30  # one whose session stands, but which gives no sign: its machine may be gone
_UPSERT_HEARTBEAT = "INSERT INTO processes (id, started, seen) VALUES (?, ?, ?) ON CONFLICT (id) DO UPDATE SET seen = excluded.seen"
_SELECT_SESSIONS = "SELECT DISTINCT application_name FROM pg_stat_activity WHERE datname = current_database()"


@dataclass(slots=True)
class _OtherProcess:
    """`seen` is its own clock's; `beats` counts ours since it moved, so that clocks need not agree and an outage makes nobody dead."""

    seen: int
    heartbeats: int = 0


class ProcessRegistry:
    """One process among those that share a database. A row of `processes` is a process that lives."""

    def __init__(self, database: Database, process: str, now: Callable[[], int]) -> None:
        """`process` is also the name of the sessions that the process holds at Postgres (see engine_for)."""
        self._database = database
        self._process = process
        self._now = now
        self._others: dict[str, _OtherProcess] = {}

    async def register(self) -> None:
        """From now on we are there. On SQLite we are alone: it is one process's own."""

        def work(batch: Batch) -> None:
            if self._database.is_sqlite:
                batch.run("DELETE FROM processes", ())
            self._write_heartbeat(batch)

        await self._database.write(work)

    async def heartbeat(self) -> bool:
        """A sign of life; and whether others, who gave none for long though they could, were struck off. Raises NotKept and NotRead."""
        try:
            await self._database.write(self._write_heartbeat)
            if self._database.is_sqlite:
                return False
            gone = self._find_gone(*await self._database.read(_read_processes))
            if gone:
                await self._database.write(lambda batch: _delete_gone(batch, gone))
            return bool(gone)
        except BaseException:
            self._others.clear()  # who can't see can't say that others are silent
            raise

    async def is_alive(self, process: str) -> bool:
        """Whether a process is there, as far as anybody noticed: one that was killed is struck off within seconds. Raises NotRead."""
        found = select(processes.c.id).where(processes.c.id == process)
        return await self._database.read(lambda connection: connection.execute(found).first()) is not None

    async def depart(self) -> None:
        """We are no more: what we leave undone is for others to end."""
        await self._database.write(lambda batch: batch.run("DELETE FROM processes WHERE id = ?", (self._process,)))

    def _write_heartbeat(self, batch: Batch) -> None:
        now = self._now()
        batch.run(_UPSERT_HEARTBEAT, (self._process, now, now))

    def _find_gone(self, rows: dict[str, int], sessions: set[str]) -> list[tuple[str, int]]:
        """(id, seen) of the processes that are no more."""
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
    """When each process was seen, and whose sessions stand."""
    rows = connection.execute(select(processes.c.id, processes.c.seen)).all()
    return {row.id: row.seen for row in rows}, set(connection.execute(text(_SELECT_SESSIONS)).scalars())


def _delete_gone(batch: Batch, gone: list[tuple[str, int]]) -> None:
    """Unless one of them gave a sign after all."""
    for name, seen in gone:
        batch.run("DELETE FROM processes WHERE id = ? AND seen = ?", (name, seen))
