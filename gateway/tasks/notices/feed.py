"""The feed of notices. Each is written in the commit of what it tells, and numbers follow the order of commits in all processes."""

import asyncio
from collections.abc import Collection, Mapping
from typing import Any, Final

import msgspec
from msgspec import Struct
from sqlalchemy import Connection, Row, select

from gateway.storage.database import Batch, Database
from gateway.storage.tables import notices
from policies.tables import epochs

CHECKPOINT_KINDS: Final = tuple(f"checkpoint.{what}" for what in ("opened", "escalated", "answered", "expired", "relaxed", "withdrawn"))
EPOCH: Final = "notices"  # its row is locked until the commit, so no reader sees a number before a lower one
KEPT_US: Final = 30 * 86_400 * 1_000_000
PAGE_MAX: Final = 200
_NEXT: Final = "UPDATE epochs SET value = value + 1 WHERE name = ?"
_INSERT: Final = "INSERT INTO notices (seq, tenant, kind, subject, task_id, owner, body, at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"


class Notice(Struct, frozen=True):
    """One thing to tell. `kind` is such as "checkpoint.opened"; `subject` the id of the checkpoint or approval; `at` microseconds."""

    tenant: str
    kind: str
    subject: str
    task_id: str
    owner: str
    body: Mapping[str, Any]
    at: int
    seq: int = 0  # given by the database


def write_notice(batch: Batch, notice: Notice) -> None:
    """Adds a notice to the feed, in the commit of what it tells."""
    batch.run(_NEXT, (EPOCH,))
    seq = batch.connection.execute(select(epochs.c.value).where(epochs.c.name == EPOCH)).scalar_one()
    body = msgspec.json.encode(notice.body).decode()
    batch.run(_INSERT, (seq, notice.tenant, notice.kind, notice.subject, notice.task_id, notice.owner, body, notice.at))


def read_after(connection: Connection, seq: int, tenant: str = "", limit: int = PAGE_MAX, kinds: Collection[str] = ()) -> list[Notice]:
    """The notices after number `seq`, the oldest first: of one tenant, or of all; of these kinds, or of all."""
    query = select(notices).where(notices.c.seq > seq).order_by(notices.c.seq).limit(limit)
    if tenant:
        query = query.where(notices.c.tenant == tenant)
    if kinds:
        query = query.where(notices.c.kind.in_(kinds))
    return [_from_row(row) for row in connection.execute(query)]


def _from_row(row: "Row[Any]") -> Notice:
    return Notice(row.tenant, row.kind, row.subject, row.task_id, row.owner, msgspec.json.decode(row.body), row.at, row.seq)


class NoticeFeed:
    """Reads the feed, and tells when there is more."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._changed = asyncio.Event()

    def on_change(self) -> None:
        """Wakes all readers that wait. Called when the epoch has changed, by any process."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def after(self, seq: int, tenant: str, limit: int = PAGE_MAX, kinds: Collection[str] = ()) -> list[Notice]:
        """The notices of a tenant after number `seq`."""
        return await self._database.read(lambda connection: read_after(connection, seq, tenant, limit, kinds))

    @property
    def next_change(self) -> asyncio.Event:
        """Is set when something is added after now. Taken before a read, so that nothing is missed between the read and the waiting."""
        return self._changed

    async def prune(self, now: int) -> None:
        """Deletes notices of a month ago."""
        await self._database.write(lambda batch: batch.run("DELETE FROM notices WHERE at < ?", (now - KEPT_US,)))
