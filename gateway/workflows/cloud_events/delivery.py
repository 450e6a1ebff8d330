"""Stores events, and gives each to the runs and schedules that wait for it, in one commit. An event that comes twice is stored once."""

import hashlib
from collections.abc import Sequence
from functools import reduce
from operator import or_
from typing import Any, Final

import msgspec
import structlog
from msgspec import Struct
from sqlalchemy import bindparam, func, select

from gateway.events.own_types import OWN_TYPES
from gateway.events.rules import HOPS_MAX, SENSITIVITY, EventRoutes, RoutedEvent, could_match, start_key
from gateway.storage.database import Batch
from gateway.storage.tables import ENDED_STATES, tasks
from gateway.workflows.cloud_events.envelope import HOPS, Event, encode_event
from gateway.workflows.cloud_events.schedules import decode_terms
from gateway.workflows.problems import EventConflict
from gateway.workflows.runs.store import RunStore
from gateway.workflows.runs.tables import (
    workflow_events,
    workflow_listen_types,
    workflow_listens,
    workflow_schedules,
    workflow_starts,
    workflow_trigger_types,
)
from policies.audit.log import AuditLog

KEPT_US: Final = 7 * 86_400 * 1_000_000  # how long an event is stored, and so known when it comes again
KEPT_MAX: Final = 100_000  # events of a tenant
BACKLOG_MAX: Final = 10_000  # events that one listening step was given and has not looked at
STARTS_MAX: Final = 1000  # runs of one workflow that wait for their start
UNCHECKED_MAX: Final = 10_000  # events that may start a run of one workflow and were not looked at
PRUNED_MAX: Final = 1000  # events that one sweep deletes
log = structlog.get_logger()
_INSERT: Final = (
    "INSERT INTO workflow_events (tenant, source, id, type, sender, at, event, owner, permission) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) "
    "ON CONFLICT DO NOTHING"
)
_COUNT: Final = "UPDATE workflow_listens SET received = received + 1 WHERE tenant = ? AND run_id = ? AND key = ? AND received - seen < ?"
_LOSE: Final = "UPDATE workflow_listens SET lost = lost + 1 WHERE tenant = ? AND run_id = ? AND key = ?"
_GIVE: Final = (
    "INSERT INTO workflow_received (tenant, run_id, key, number, event, senders) "
    "SELECT tenant, run_id, key, received, ?, ? FROM workflow_listens WHERE tenant = ? AND run_id = ? AND key = ?"
)
_START: Final = (
    "INSERT INTO workflow_starts (tenant, workflow, id, created, event, requesters, wanted) VALUES (?, ?, ?, ?, ?, ?, 0) "
    "ON CONFLICT DO NOTHING"
)
_WAITING: Final = (
    "SELECT EXISTS (SELECT 1 FROM workflow_listen_types WHERE tenant = ? AND type IN (?, ?)), "
    "EXISTS (SELECT 1 FROM workflow_trigger_types WHERE tenant = ? AND type IN (?, ?))"
)
_PROBLEM: Final = "UPDATE workflow_schedules SET problem = ? WHERE tenant = ? AND workflow = ?"
_OLDEST: Final = (
    "DELETE FROM workflow_events WHERE (tenant, source, id) IN (SELECT tenant, source, id FROM workflow_events WHERE at < ? LIMIT ?)"
)
_EXCESS: Final = (
    "DELETE FROM workflow_events WHERE (tenant, source, id) IN "
    "(SELECT tenant, source, id FROM workflow_events WHERE tenant = ? ORDER BY at DESC LIMIT ? OFFSET ?)"
)
_LEFT_LISTENS: Final = (
    "DELETE FROM workflow_listens WHERE EXISTS (SELECT 1 FROM tasks WHERE tasks.tenant = workflow_listens.tenant "
    "AND tasks.id = workflow_listens.run_id AND tasks.state IN (?, ?, ?, ?))"
)


class DroppedStart(Struct, frozen=True):
    """An event that starts no run of a workflow, since too many of its runs wait for their start."""

    workflow: str
    source: str
    id: str


class Awaited(Struct, frozen=True):
    """What may go on by an event: runs that listen, workflows that it starts, and triggers of the settings."""

    runs: bool = False
    workflows: bool = False
    triggers: bool = False

    def __or__(self, other: "Awaited") -> "Awaited":
        return Awaited(self.runs or other.runs, self.workflows or other.workflows, self.triggers or other.triggers)


NOTHING_AWAITED: Final = Awaited()


class StoredOutcome(Struct, frozen=True):
    """What became of one event: whether it was new, the workflows that it should have started a run of, and what waited for it."""

    is_new: bool
    not_started: tuple[DroppedStart, ...] = ()
    awaited: Awaited = NOTHING_AWAITED


class StoredEvents(Struct, frozen=True):
    """What became of the events of a request: how many were new, which starts were dropped, and what waited for any of them."""

    new: int
    not_started: tuple[DroppedStart, ...]
    awaited: Awaited


class EventSight(Struct, frozen=True):
    """Who sees an event of the gateway's own: the person whom it concerns, holders of a permission, and readers of the audit."""

    owner: str = ""
    permission: str = ""


ANYBODY: Final = EventSight()  # events of others: all who may receive their type


class EventStore:
    """Stores events, and gives each to who waits for it, in one commit."""

    def __init__(self, audit: AuditLog, routes: EventRoutes) -> None:
        self._audit = audit
        self._routes = routes
        self._found: tuple[Batch | None, dict[tuple[str, str], tuple[bool, bool]]] = (None, {})

    def store(
        self,
        batch: Batch,
        tenant: str,
        sender: str,
        event: Event,
        *,
        now: int,
        task_id: str = "",
        requesters: Sequence[str] = (),
        sight: EventSight = ANYBODY,
    ) -> StoredOutcome:
        """Stores an event, unless it is stored already, and gives it to who waits for it.

        `requesters`: where a run of a service sends it, the people who brought that run about. Raises EventConflict where another
        event has its source and id; then nothing of the commit is stored. The caller records the starts that were dropped.
        """
        text = encode_event(event)
        values = (tenant, event["source"], event["id"], event["type"], sender, now, text, sight.owner, sight.permission)
        if not batch.run(_INSERT, values):
            _check_same(batch, tenant, sender, event)
            return StoredOutcome(is_new=False)
        self._audit.record(batch, _record(tenant, event, text, task_id))
        routed = RoutedEvent(event, text, msgspec.json.encode([sender, *requesters]).decode(), now)
        has_triggers = self._routes.write(batch, tenant, routed) > 0
        if event.get(HOPS, 0) > HOPS_MAX:
            return StoredOutcome(is_new=True)
        is_listened, has_starts = self._find_waiting(batch, tenant, event["type"])
        if is_listened:
            _give_to_listens(batch, tenant, routed)
        dropped = _give_to_schedules(batch, tenant, routed) if has_starts else []
        not_started = tuple(DroppedStart(workflow, event["source"], event["id"]) for workflow in dropped)
        return StoredOutcome(True, not_started, Awaited(is_listened, has_starts, has_triggers))

    def _find_waiting(self, batch: Batch, tenant: str, kind: str) -> tuple[bool, bool]:
        """Whether any run listens for events of a type, and whether they start any workflow, looked up once in a transaction.

        What begins to wait later in the same transaction counts as later than all of its events.
        """
        if self._found[0] is not batch:
            self._found = (batch, {})
        known = self._found[1]
        if (tenant, kind) not in known:
            known[tenant, kind] = _find_waiting(batch, tenant, kind)
        return known[tenant, kind]


class EventLog:
    """Receives events from outside, and deletes old ones."""

    def __init__(self, store: RunStore, events: EventStore) -> None:
        self._store = store
        self._events = events

    def publish(self, batch: Batch, tenant: str, sender: str, events: Sequence[Event]) -> StoredEvents:
        """Stores events in the commit of `batch`. `sender` is the owner key of the person. Raises EventConflict."""
        now = self._store.now()
        stored = [self._events.store(batch, tenant, sender, event, now=now) for event in events]
        dropped = tuple(start for each in stored for start in each.not_started)
        record_dropped_starts(batch, tenant, dropped)
        return StoredEvents(sum(each.is_new for each in stored), dropped, reduce(or_, (each.awaited for each in stored), NOTHING_AWAITED))

    async def prune(self) -> None:
        """Deletes events that are old or too many, and what runs that have ended listened for."""
        before = self._store.now() - KEPT_US

        def work(batch: Batch) -> None:
            batch.run(_OLDEST, (before, PRUNED_MAX))
            for tenant in _tenants(batch):
                batch.run(_EXCESS, (tenant, PRUNED_MAX, KEPT_MAX))
            batch.run(_LEFT_LISTENS, ENDED_STATES)

        await self._store.database.write(work)


def record_dropped_starts(batch: Batch, tenant: str, dropped: Sequence[DroppedStart]) -> None:
    """Has the triggers of workflows say which event started no run, the last one of each.

    Called once at the end of a commit, so that all commits lock the rows in one order.
    """
    for workflow, start in sorted({start.workflow: start for start in dropped}.items()):
        log.warning("start_dropped", tenant=tenant, workflow=workflow, source=start.source[:200], id=start.id[:200])
        text = f"starts-full: the event {start.id[:200]} of {start.source[:200]} started no run, since too many runs wait for their start"
        batch.run(_PROBLEM, (text, tenant, workflow))


def _check_same(batch: Batch, tenant: str, sender: str, event: Event) -> None:
    """Raises EventConflict unless the sender has sent the same event before, at whatever time."""
    table = workflow_events.c
    mine = (table.tenant == tenant) & (table.source == event["source"]) & (table.id == event["id"])
    stored = batch.connection.execute(select(table.sender, table.event).where(mine)).first()
    if stored is None or stored.sender != sender or _content(msgspec.json.decode(stored.event)) != _content(event):
        name = f"source {event['source'][:200]} and id {event['id'][:200]}"
        detail = "it is of another sender, or has another type or content. Send it with an id of its own."
        raise EventConflict(f"Another event has the {name}: {detail}")


def _content(event: Event) -> dict[str, Any]:
    return {name: value for name, value in event.items() if name not in ("time", HOPS, SENSITIVITY)}


def _find_waiting(batch: Batch, tenant: str, kind: str) -> tuple[bool, bool]:
    """Whether any run listens for events of a type, and whether they start any workflow. Most events end here."""
    names = tuple(_names_of(tenant, kind).values())
    listened, starts = batch.fetch(_WAITING, (*names, *names)) or (False, False)
    return bool(listened), bool(starts)


def _give_to_listens(batch: Batch, tenant: str, routed: RoutedEvent) -> None:
    event = routed.event
    for run_id, key, filters in batch.connection.execute(_LISTENS, _names_of(tenant, event["type"])).all():
        if not any(could_match(each, event) for each in msgspec.json.decode(filters)):
            continue
        listen = (tenant, run_id, key)
        if batch.run(_COUNT, (*listen, BACKLOG_MAX)):
            batch.run(_GIVE, (routed.text, routed.requesters, *listen))
        else:  # the run is paused, or no process looks at its events: its step fails, and says so
            batch.run(_LOSE, listen)


def _listens() -> Any:
    """The query for the open listening steps of runs that have not ended, in the order in which every process locks them."""
    types, listens = workflow_listen_types.c, workflow_listens.c
    is_listen = (types.tenant == listens.tenant) & (types.run_id == listens.run_id) & (types.key == listens.key)
    is_run = (tasks.c.tenant == types.tenant) & (tasks.c.id == types.run_id) & tasks.c.state.not_in(ENDED_STATES)
    query = select(listens.run_id, listens.key, listens.filters).join(workflow_listen_types, is_listen).join(tasks, is_run)
    query = query.where(types.tenant == bindparam("tenant"), types.type.in_((bindparam("kind"), bindparam("any"))))
    return query.distinct().order_by(listens.run_id, listens.key)


def _schedules() -> Any:
    """The query for the workflows that events of a type start."""
    types, schedules = workflow_trigger_types.c, workflow_schedules.c
    is_schedule = (schedules.tenant == types.tenant) & (schedules.workflow == types.workflow)
    query = select(types.workflow, schedules.terms).join(workflow_schedules, is_schedule).distinct()
    query = query.where(types.tenant == bindparam("tenant"), types.type.in_((bindparam("kind"), bindparam("any"))))
    return query.order_by(types.workflow)


_LISTENS: Final = _listens()  # built once: building a query takes longer than running it
_SCHEDULES: Final = _schedules()


def _names_of(tenant: str, kind: str) -> dict[str, str]:
    """What filters name that could take a type: itself, or every type, which those of the gateway's own are not among."""
    return {"tenant": tenant, "kind": kind, "any": kind if kind in OWN_TYPES else ""}


def _give_to_schedules(batch: Batch, tenant: str, routed: RoutedEvent) -> list[str]:
    """Has a run of each workflow started that this event may start. The start's id is made of the event's own names.

    Returns the workflows for which too many runs wait to start one more.
    """
    dropped, event = list[str](), routed.event
    for workflow, terms in batch.connection.execute(_SCHEDULES, _names_of(tenant, event["type"])).all():
        filters = decode_terms(terms).filters
        if any(could_match(each, event) for each in filters):
            if _has_room(batch, tenant, workflow):
                batch.run(_START, (tenant, workflow, start_key(event), routed.at, routed.text, routed.requesters))
            else:
                dropped.append(workflow)
    return dropped


def _has_room(batch: Batch, tenant: str, workflow: str) -> bool:
    """Whether a workflow has fewer starts than may wait."""
    starts = workflow_starts.c
    query = select(starts.wanted, func.count()).where(starts.tenant == tenant, starts.workflow == workflow).group_by(starts.wanted)
    counts: dict[int, int] = {row[0]: row[1] for row in batch.connection.execute(query)}
    return counts.get(1, 0) < STARTS_MAX and counts.get(0, 0) < UNCHECKED_MAX


def _tenants(batch: Batch) -> list[str]:
    """Tenants that have more events than are kept."""
    query = select(workflow_events.c.tenant).group_by(workflow_events.c.tenant).having(func.count() > KEPT_MAX)
    return list(batch.connection.execute(query).scalars())


def _record(tenant: str, event: Event, text: str, task_id: str) -> dict[str, object]:
    return {
        "kind": "event-stored",
        "tenant": tenant,
        "decision_id": "",
        "txn": "",
        "task_id": task_id,
        "event_type": event["type"],
        "event_source": event["source"],
        "event_id": event["id"],
        "digest": hashlib.sha256(text.encode()).hexdigest(),
    }
