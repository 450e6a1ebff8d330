"""What triggers are to start: one row for each event and trigger, started in order per subject, and what became of the last one."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec
from msgspec import Struct
from sqlalchemy import func, select

from gateway.events.deliveries import letter_members
from gateway.events.queue import EventQueue, QueuedRow
from gateway.events.rules import TriggerRule
from gateway.events.tables import event_causes, event_starts, event_triggers
from gateway.storage.database import Batch, Database

REMOVED_TEXT: Final = "the settings name this trigger no more"
CAUSES_KEPT_US: Final = 30 * 86_400 * 1_000_000
_NOTE: Final = (
    "INSERT INTO event_triggers (tenant, name, last_task, problem, updated) VALUES (?, ?, ?, ?, ?) "
    "ON CONFLICT (tenant, name) DO UPDATE SET last_task = CASE WHEN excluded.last_task = '' THEN event_triggers.last_task "
    "ELSE excluded.last_task END, problem = excluded.problem, updated = excluded.updated"
)
_CAUSE: Final = "INSERT INTO event_causes (tenant, txn, task_id, requesters, at) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
_PRUNE: Final = "DELETE FROM event_causes WHERE at < ?"


class TriggerStatus(Struct, frozen=True):
    """What became of a trigger's last start, and how many starts wait or were given up."""

    last_task: str = ""
    problem: str = ""
    waiting: int = 0
    dead: int = 0


class TriggerStarts:
    """Reads and settles starts. Several processes share them."""

    def __init__(self, database: Database, queue: EventQueue, rules: Mapping[tuple[str, str], TriggerRule], now: Callable[[], int]) -> None:
        """`now` returns microseconds since 1970."""
        self._database = database
        self._queue = queue
        self.rules = rules
        self._now = now

    async def acquire(self, count: int) -> list[QueuedRow]:
        """At most `count` starts that are due, each the first of its trigger and subject."""
        return await self._queue.acquire(count)

    async def drop(self, row: QueuedRow) -> None:
        """The event does not fit the trigger's conditions, so nothing is started."""
        await self._queue.finish(row)

    async def settle(self, row: QueuedRow, task_id: str) -> None:
        """The start is done with: its task is `task_id`."""
        finish, now = self._queue.finishing_write(row), self._now()

        def work(batch: Batch) -> None:
            finish(batch)
            batch.run(_NOTE, (row.tenant, row.columns.name, task_id, "", now))

        await self._database.write(work)

    async def record_failure(self, row: QueuedRow, problem: str, *, is_lasting: bool) -> bool:
        """The start failed, and is tried again unless it is a dead letter now, which is returned."""
        is_dead = await self._queue.record_failure(row, problem, is_lasting=is_lasting)
        note = (row.tenant, row.columns.name, "", problem[:500], self._now())
        await self._database.write(lambda batch: batch.run(_NOTE, note))
        return is_dead

    def cause_write(self, batch: Batch, tenant: str, txn: str, task_id: str, requesters: Sequence[str]) -> None:
        """Stores the people behind a transaction that a trigger begins, in the commit that opens its task."""
        batch.run(_CAUSE, (tenant, txn, task_id, msgspec.json.encode(requesters).decode(), self._now()))

    async def sweep(self) -> None:
        """Ends starts of triggers that the settings name no more, and deletes what is old."""
        await self._queue.end_foreign([name for _, name in self.rules], REMOVED_TEXT)
        before = self._now() - CAUSES_KEPT_US
        await self._database.write(lambda batch: batch.run(_PRUNE, (before,)))

    async def read_statuses(self, tenant: str) -> dict[str, TriggerStatus]:
        """How the triggers of a tenant stand, by name."""
        row, known = event_starts.c, event_triggers
        counting = select(row.name, row.state, func.count()).where(row.tenant == tenant).group_by(row.name, row.state)
        latest = select(known).where(known.c.tenant == tenant)
        counted = {(each[0], each[1]): each[2] for each in await self._database.read(lambda c: c.execute(counting).all())}
        last = {each.name: each for each in await self._database.read(lambda c: c.execute(latest).all())}
        found = {}
        for name in {rule.name for rule in self.rules.values() if rule.tenant == tenant}:
            task, problem = (last[name].last_task, last[name].problem) if name in last else ("", "")
            found[name] = TriggerStatus(task, problem, counted.get((name, "pending"), 0), counted.get((name, "dead"), 0))
        return found

    async def list_dead_letters(self, tenant: str, cursor: str, limit: int) -> tuple[list[dict[str, Any]], str | None]:
        """The events that a trigger could not be started by, the newest first."""
        rows, following = await self._queue.list_dead_letters(tenant, cursor, limit)
        return [{**letter_members(row), "kind": "trigger", "target": row.name, "agent": None, "task_id": None} for row in rows], following

    async def retry(self, tenant: str, delivery_id: str) -> None:
        """Has a start tried again, beginning with the first attempt. Raises UnknownLetter."""
        await self._queue.retry(tenant, delivery_id)

    async def drop_letter(self, tenant: str, letter_id: str) -> None:
        """Gives a start up for good. Raises UnknownLetter."""
        await self._queue.drop_letter(tenant, letter_id)


def read_requesters(connection: Any, tenant: str, txn: str) -> str:
    """The JSON of the people behind a transaction that a trigger began; empty for any other transaction."""
    table = event_causes.c
    return connection.execute(select(table.requesters).where(table.tenant == tenant, table.txn == txn)).scalar() or ""
