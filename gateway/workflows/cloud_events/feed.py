"""The stored events of a tenant in one order, which holds across processes: each is numbered after its commit, when the feed is read."""

from collections.abc import Sequence
from typing import Any, Final

import msgspec
from msgspec import Struct
from sqlalchemy import Connection, select

from gateway.storage.database import Batch, Database
from gateway.workflows.runs.tables import workflow_event_counts, workflow_events

NUMBERED_MAX: Final = 1000  # events that one commit numbers
_COUNTER: Final = "INSERT INTO workflow_event_counts (tenant, last) VALUES (?, 0) ON CONFLICT DO NOTHING"
_LOCK: Final = "UPDATE workflow_event_counts SET last = last WHERE tenant = ?"
_COUNT: Final = "UPDATE workflow_event_counts SET last = ? WHERE tenant = ?"
_NUMBER: Final = "UPDATE workflow_events SET seq = ? WHERE tenant = ? AND source = ? AND id = ?"

_HEAD: Final = tuple(workflow_events.c[name] for name in ("seq", "type", "owner", "permission"))


class StoredEvent(Struct, frozen=True):
    """An event with its number, who sent it (tenant|issuer|subject), and when it was stored, in microseconds since 1970."""

    seq: int
    at: int
    sender: str
    event: dict[str, Any]


class EventHead(Struct, frozen=True):
    """What says whether a reader may see an event, without its content, which may have 64 KiB."""

    seq: int
    type: str
    owner: str = ""
    permission: str = ""


class EventFeed:
    """Reads the events of tenants. Every process sees those of all processes."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def last(self, tenant: str) -> int:
        """The number of the newest event; 0 where there was none."""
        await self._number(tenant)
        query = select(workflow_event_counts.c.last).where(workflow_event_counts.c.tenant == tenant)
        return int(await self._database.read(lambda connection: connection.execute(query).scalar()) or 0)

    async def after(self, tenant: str, seq: int, limit: int) -> list[EventHead]:
        """The events after a number, the oldest first."""
        await self._number(tenant)
        table = workflow_events.c
        query = select(*_HEAD).where(table.tenant == tenant, table.seq > seq).order_by(table.seq).limit(limit)
        return await self._database.read(lambda connection: _heads(connection, query))

    async def before(self, tenant: str, seq: int | None, limit: int, kind: str = "") -> list[EventHead]:
        """The events before a number, or all for None, the newest first. `kind`: of this type only, unless it is empty."""
        await self._number(tenant)
        table = workflow_events.c
        query = select(*_HEAD).where(table.tenant == tenant, table.seq.is_not(None)).order_by(table.seq.desc()).limit(limit)
        query = query if seq is None else query.where(table.seq < seq)
        query = query if not kind else query.where(table.type == kind)
        return await self._database.read(lambda connection: _heads(connection, query))

    async def contents(self, tenant: str, heads: Sequence[EventHead]) -> list[StoredEvent]:
        """These events, in this order, without those that were deleted since."""
        if not heads:
            return []
        table = workflow_events.c
        query = select(workflow_events).where(table.tenant == tenant, table.seq.in_([head.seq for head in heads]))
        found = await self._database.read(lambda connection: _read_events(connection, query))
        return [found[head.seq] for head in heads if head.seq in found]

    async def _number(self, tenant: str) -> None:
        """Numbers the events that have no number yet, in the order in which they were stored."""
        table = workflow_events.c
        query = select(table.id).where(table.tenant == tenant, table.seq.is_(None)).limit(1)
        while await self._database.read(lambda connection: connection.execute(query).first()) is not None:
            await self._database.write(lambda batch: _give_numbers(batch, tenant))


def _give_numbers(batch: Batch, tenant: str) -> None:
    batch.run(_COUNTER, (tenant,))
    batch.run(_LOCK, (tenant,))  # so that one process at a time gives numbers
    counts, table = workflow_event_counts.c, workflow_events.c
    last = batch.connection.execute(select(counts.last).where(counts.tenant == tenant)).scalar_one()
    query = select(table.source, table.id).where(table.tenant == tenant, table.seq.is_(None))
    rows = batch.connection.execute(query.order_by(table.at, table.source, table.id).limit(NUMBERED_MAX)).all()
    for number, row in enumerate(rows, last + 1):
        batch.run(_NUMBER, (number, tenant, row.source, row.id))
    batch.run(_COUNT, (last + len(rows), tenant))


def _heads(connection: Connection, query: Any) -> list[EventHead]:
    return [EventHead(row.seq, row.type, row.owner, row.permission) for row in connection.execute(query).all()]


def _read_events(connection: Connection, query: Any) -> dict[int, StoredEvent]:
    rows: Sequence[Any] = connection.execute(query).all()
    return {row.seq: StoredEvent(row.seq, row.at, row.sender, msgspec.json.decode(row.event)) for row in rows}
