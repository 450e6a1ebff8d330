"""Stores the gateway's own events: takes them from the outbox and from the notices, and hands each on in the commit that stores it."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
import structlog
from sqlalchemy import Connection, func, select

from gateway.events.own_types import NOTICE_TYPES, OWN_SOURCE, RUN_ENDED, TASK_ENDED
from gateway.events.recorder import EventRecorder
from gateway.events.rules import HOPS
from gateway.events.tables import event_cursors, event_outbox
from gateway.storage.database import Batch, Database
from gateway.storage.tables import notices, tasks
from gateway.workflows.cloud_events.delivery import DroppedStart, EventSight, EventStore, record_dropped_starts
from gateway.workflows.cloud_events.envelope import Event
from gateway.workflows.cloud_events.hops import read_hops
from gateway.workflows.cloud_events.listens import EPOCH
from gateway.workflows.cloud_events.sight import OWNER, PERMISSION
from gateway.workflows.problems import BadEvent
from gateway.workflows.runs.tables import workflow_runs
from policies.delegation.approval import DECIDE_APPROVALS

BATCH_MAX: Final = 200  # events of one commit
NOTICES: Final = "notices"  # the name of the cursor
_LOCK: Final = "UPDATE epochs SET value = value WHERE name = ?"  # one process at a time hands on, in order
_DONE: Final = "DELETE FROM event_outbox WHERE seq = ?"
_BEGIN: Final = "INSERT INTO event_cursors (name, cursor) VALUES (?, ?) ON CONFLICT DO NOTHING"
_ADVANCE: Final = "UPDATE event_cursors SET cursor = ? WHERE name = ?"
_END: Final = "DELETE FROM event_cursors WHERE name = ?"
log = structlog.get_logger()


class EventRelay:
    """Stores what the gateway tells of itself, each once, whichever process recorded it."""

    def __init__(self, database: Database, events: EventStore, recorder: EventRecorder, now: Callable[[], int]) -> None:
        """`now` returns microseconds since 1970."""
        self._database = database
        self._events = events
        self._recorder = recorder
        self._now = now
        self._follows_notices: bool | None = None  # None: not known yet

    async def begin(self) -> None:
        """Has every notice from now on become an event, where the settings have any of them told."""
        if self._recorder.wants_any(NOTICE_TYPES):
            await self._database.write(_begin_with_notices)
            self._follows_notices = True

    async def run_once(self) -> int:
        """Stores what is due, and returns how many events."""
        stored = 0
        while count := await self._store_recorded():
            stored += count
        return stored + await self._store_notices()

    async def _store_recorded(self) -> int:
        query = select(event_outbox).order_by(event_outbox.c.seq).limit(BATCH_MAX)
        if await self._database.read(lambda connection: connection.execute(query.limit(1)).first()) is None:
            return 0

        def work(batch: Batch) -> int:
            batch.run(_LOCK, (EPOCH,))
            rows = batch.connection.execute(query).all()
            for row in rows:
                try:
                    self._store_row(batch, row)
                except msgspec.MsgspecError as error:  # it would stop every later event
                    log.error("event_unreadable", tenant=row.tenant, event_id=row.id, type=row.type, error=str(error))
                batch.run(_DONE, (row.seq,))
            return len(rows)

        return await self._database.write(work)

    def _store_row(self, batch: Batch, row: Any) -> None:
        hops = read_hops(batch.connection, row.tenant, row.txn) + 1 if row.txn else 0
        data, sight = msgspec.json.decode(row.data, type=dict[str, Any]), EventSight(row.owner, row.permission)
        if row.type != TASK_ENDED or self._recorder.wants(row.tenant, TASK_ENDED):
            self._store(batch, row.tenant, _event(row.type, row.id, row, data, sight=sight, hops=hops), sight)
        if row.type == TASK_ENDED and self._recorder.wants(row.tenant, RUN_ENDED):
            run = workflow_runs.c
            found = batch.connection.execute(select(run.workflow).where(run.tenant == row.tenant, run.id == row.subject)).scalar()
            if found is not None:
                ended: dict[str, Any] = {
                    "run": row.subject,
                    "workflow": found,
                    **{name: data[name] for name in ("state", "owner") if name in data},
                }
                self._store(batch, row.tenant, _event(RUN_ENDED, f"{row.id}-run", row, ended, sight=sight, hops=hops), sight)

    async def _store_notices(self) -> int:
        """Makes events of notices after the cursor. Without anything that waits for one, there is no cursor, and none is made later."""
        if not self._recorder.wants_any(NOTICE_TYPES):
            if self._follows_notices is not False:
                await self._database.write(lambda batch: batch.run(_END, (NOTICES,)))
                self._follows_notices = False
            return 0
        if not self._follows_notices:
            await self.begin()
        cursor = select(event_cursors.c.cursor).where(event_cursors.c.name == NOTICES).scalar_subquery()
        due = select(notices).where(notices.c.seq > cursor).order_by(notices.c.seq).limit(BATCH_MAX)
        if await self._database.read(lambda connection: connection.execute(due.limit(1)).first()) is None:
            return 0

        def work(batch: Batch) -> int:
            batch.run(_LOCK, (EPOCH,))
            rows = batch.connection.execute(due).all()
            for row in rows:
                try:
                    self._store_notice(batch, row)
                except msgspec.MsgspecError as error:  # it would stop every later notice
                    log.error("notice_unreadable", tenant=row.tenant, notice=row.seq, kind=row.kind, error=str(error))
            if rows:
                batch.run(_ADVANCE, (rows[-1].seq, NOTICES))
            return len(rows)

        return await self._database.write(work)

    def _store_notice(self, batch: Batch, row: Any) -> None:
        kind = f"interlock.{row.kind}.v1"
        if kind not in NOTICE_TYPES or not self._recorder.wants(row.tenant, kind):
            return
        permission = DECIDE_APPROVALS.permission if row.kind.startswith("approval.") else ""
        sight = EventSight(row.owner, permission)
        data = {"owner": row.owner, "task": row.task_id, **msgspec.json.decode(row.body, type=dict[str, Any])}
        hops = _read_hops_of_task(batch.connection, row.tenant, row.task_id) + 1
        self._store(batch, row.tenant, _event(kind, f"notice-{row.seq}", row, data, sight=sight, hops=hops), sight)

    def _store(self, batch: Batch, tenant: str, event: Event, sight: EventSight) -> None:
        """Stores one event. One that is too large is left out with a log line, so that it holds up no other."""
        try:
            stored = self._events.store(batch, tenant, sight.owner or OWN_SOURCE, event, now=self._now(), sight=sight)
        except BadEvent as error:
            log.error("own_event_left_out", type=event["type"], subject=str(event["subject"])[:200], problem=str(error))
            return
        dropped: tuple[DroppedStart, ...] = stored.not_started
        record_dropped_starts(batch, tenant, dropped)


def _read_hops_of_task(connection: Connection, tenant: str, task_id: str) -> int:
    """The hops of the event from which a task follows; 0 where people began it, or there is no task."""
    query = select(tasks.c.txn).where(tasks.c.tenant == tenant, tasks.c.id == task_id)
    txn = connection.execute(query).scalar() if task_id else None
    return read_hops(connection, tenant, txn) if txn else 0


def _begin_with_notices(batch: Batch) -> None:
    newest = batch.connection.execute(select(func.max(notices.c.seq))).scalar() or 0
    batch.run(_BEGIN, (NOTICES, newest))


def _event(kind: str, id: str, row: Any, data: Any, *, sight: EventSight, hops: int) -> Event:
    """The event of a row, with the subject and the moment that the row has."""
    moment = datetime.fromtimestamp(row.at / 1_000_000, UTC).isoformat().replace("+00:00", "Z")
    event = {"specversion": "1.0", "id": id, "source": OWN_SOURCE, "type": kind, "subject": row.subject, "time": moment}
    whose = {name: value for name, value in ((OWNER, sight.owner), (PERMISSION, sight.permission)) if value}
    return {**event, **whose, **({HOPS: hops} if hops else {}), "datacontenttype": "application/json", "data": data}
