"""Open checkpoints in pages, each person's own sight of them, and the record of who looked at questions of other people's runs."""

from collections.abc import Callable, Sequence
from typing import Any, Final

from msgspec import Struct
from sqlalchemy import Row, select

from gateway.storage.database import Batch
from gateway.storage.paging import format_place, parse_place
from gateway.storage.tables import ENDED_STATES, tasks
from gateway.workflows.runs.people.checkpoints import PENDING, SIGNAL, Checkpoint, audit_record, checkpoint_from_row
from gateway.workflows.runs.store import RunStore
from gateway.workflows.runs.tables import IS_TASK_OF_CHECKPOINT, workflow_checkpoints, workflow_looks
from policies.audit.log import AuditLog

_LOOK: Final = "INSERT INTO workflow_looks (tenant, checkpoint_id, person, at) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING"
FIRST: Final = (0, "")  # the place before every checkpoint
SCAN_ROWS: Final = 200  # checkpoints that are read at once
SCAN_MAX: Final = 2000  # checkpoints that one page looks through


class Sight(Struct, frozen=True):
    """Which checkpoints a caller sees. `only_of`: where it is not empty, at most those of this person's runs and the escalated ones."""

    is_shown: Callable[[Checkpoint], bool]
    only_of: str = ""


class OpenCheckpoints:
    """Reads checkpoints that wait for an answer."""

    def __init__(self, store: RunStore, audit: AuditLog) -> None:
        self._store = store
        self._audit = audit

    async def page(self, tenant: str, sight: Sight, cursor: str, limit: int) -> tuple[list[Checkpoint], str | None]:
        """A page of open checkpoints of runs that have not ended, the oldest first, and the cursor of the next page. Raises BadCursor.

        A page has fewer than `limit` where the caller may see none of SCAN_MAX checkpoints.
        """
        after, found, scanned = parse_place(cursor) if cursor else FIRST, list[Checkpoint](), 0
        while scanned < SCAN_MAX:
            rows = await self._open_after(tenant, sight, after)
            for row in rows:
                if len(found) == limit:
                    return found, format_place(*after)
                if sight.is_shown(checkpoint := checkpoint_from_row(row)):
                    found.append(checkpoint)
                after = (row.created, row.id)
            scanned += len(rows)
            if len(rows) < SCAN_ROWS:
                return found, None
        return found, format_place(*after)

    async def _open_after(self, tenant: str, sight: Sight, after: tuple[int, str]) -> "Sequence[Row[Any]]":
        table, (at, last) = workflow_checkpoints, after
        query = select(table).join(tasks, IS_TASK_OF_CHECKPOINT).where(table.c.tenant == tenant, table.c.state == PENDING)
        query = query.where(table.c.kind != SIGNAL, table.c.expires > self._store.now(), tasks.c.state.not_in(ENDED_STATES))
        query = query.where((table.c.created > at) | ((table.c.created == at) & (table.c.id > last)))
        if sight.only_of:
            query = query.where((table.c.owner == sight.only_of) | table.c.escalated.is_not(None))
        query = query.order_by(table.c.created, table.c.id).limit(SCAN_ROWS)
        return await self._store.database.read(lambda connection: connection.execute(query).all())

    async def record_looks(self, person: str, seen: Sequence[Checkpoint]) -> None:
        """Writes to the audit that a person (tenant|issuer|subject) looked at questions of other people's runs: once for each question."""
        others = {each.id: each for each in seen if each.owner != person}
        looks, tenants = workflow_looks.c, {each.run.tenant for each in others.values()}
        query = select(looks.checkpoint_id).where(looks.tenant.in_(tenants), looks.checkpoint_id.in_(others), looks.person == person)
        known = set(await self._store.database.read(lambda connection: connection.execute(query).scalars().all())) if others else set()
        new = [each for each in others.values() if each.id not in known]

        def work(batch: Batch) -> None:
            for each in new:
                if batch.run(_LOOK, (each.run.tenant, each.id, person, self._store.now())):
                    self._audit.record(batch, audit_record("checkpoint-seen", each) | {"by": person})

        if new:
            await self._store.database.write(work)
