"""Events and triggers as /api shows them. Permissions are checked by the routes."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from gateway.events.rules import TriggerRule, sensitivity_of
from gateway.events.sources import SourceRule
from gateway.events.standard_webhooks import TOLERANCE_SECONDS, SignedRequest
from gateway.events.starts import TriggerStarts, TriggerStatus
from gateway.storage.database import Batch, Database
from gateway.tasks.log import to_rfc3339
from gateway.workflows.cloud_events.delivery import Awaited, EventLog, StoredEvents
from gateway.workflows.cloud_events.envelope import act_of_receiving, act_of_sending, check_sender, read_event
from gateway.workflows.cloud_events.feed import EventFeed, EventHead, StoredEvent
from gateway.workflows.cloud_events.inbound import SourceReader, read_request
from gateway.workflows.cloud_events.schedules import ScheduleRow
from gateway.workflows.cloud_events.sight import may_see
from gateway.workflows.cloud_events.triggers import TriggerStarter
from gateway.workflows.engine.scheduled_starts import ScheduledStarts
from gateway.workflows.engine.waking import RunWaker
from gateway.workflows.problems import EventReplayed
from gateway.workflows.runs.values import mask_secrets
from policies.delegation.rulings import Act
from policies.ids import now_us
from policies.tokens.replay_guard import ReplayGuard

SCANNED_MAX: Final = 2000  # events that one page of a list looks at
PAGE: Final = 200
POLL_SECONDS: Final = 0.5
TIMED: Final = ("every_seconds", "cron", "timezone", "missed", "after_seconds", "next_at", "paused")  # of a trigger that time starts
STREAM_ROUNDS: Final = 600  # of POLL_SECONDS, after which a stream ends; the reader's next request is authenticated anew


class EventReader(Protocol):
    """Who reads events: the owner key of the person, and what that person may do."""

    @property
    def owner(self) -> str: ...

    @property
    def could_allow(self) -> Callable[[Act], bool]: ...


@dataclass(frozen=True, slots=True)
class EventWakers:
    """What goes on by an event: runs that listen, workflows that it starts, and triggers of the settings."""

    runs: RunWaker
    workflows: ScheduledStarts
    triggers: TriggerStarter

    def wake(self, awaited: Awaited) -> None:
        """Has those look for what is due that an event was given to, beside its sender."""
        if awaited.runs:
            self.runs.wake_soon()
        if awaited.workflows:
            self.workflows.start_soon()
        if awaited.triggers:
            self.triggers.start_soon()


class EventOperations:
    """Takes events, lists and follows those that were taken, and says what an event starts."""

    def __init__(
        self, database: Database, events: EventLog, feed: EventFeed, wakers: EventWakers, starts: TriggerStarts, *, replays: ReplayGuard
    ) -> None:
        self._database = database
        self._events = events
        self._feed = feed
        self._wakers = wakers
        self._starts = starts
        self._replays = replays
        self._sources = SourceReader()

    def parse_events(self, headers: Mapping[str, str], body: bytes, document: Any) -> tuple[list[dict[str, Any]], list[Act]]:
        """The events of a request, and the acts that sending them are. Raises BadEvent."""
        found = read_request(headers, body, document)
        for event in found:
            check_sender(event)
        return found, [act_of_sending(kind) for kind in sorted({event["type"] for event in found})]

    def publish(self, batch: Batch, tenant: str, sender: str, events: list[dict[str, Any]]) -> StoredEvents:
        """Stores events in the commit of `batch`, after which the caller wakes what waits for them. Raises EventConflict."""
        return self._events.publish(batch, tenant, sender, events)

    def wake(self, published: StoredEvents) -> None:
        """Has what waits for events go on that were stored."""
        self._wakers.wake(published.awaited)

    async def publish_signed(self, rule: SourceRule, signed: SignedRequest, headers: Mapping[str, str], document: Any) -> StoredEvents:
        """Stores the event of a verified request of a source.

        A request that is signed anew under an id that was taken does nothing, since senders repeat what they got no answer to. Raises
        BadEvent, EventTypeNotAllowed, EventSchemaBroken, EventReplayed for the very same request, and EventConflict.
        """
        event = self._sources.read(rule, signed, headers, document)
        spent, not_after = f"webhook:{rule.name}:{signed.timestamp}:{signed.id}", signed.timestamp + TOLERANCE_SECONDS

        def work(batch: Batch) -> StoredEvents | None:
            is_first = self._replays.consume_in(batch, rule.tenant, spent, not_after)
            return self.publish(batch, rule.tenant, rule.sender, [event]) if is_first else None

        published = await self._database.write(work)
        if published is None:
            raise EventReplayed
        self.wake(published)
        return published

    async def list_events(
        self, tenant: str, before: int | None, limit: int, *, kind: str, reader: EventReader
    ) -> tuple[list[dict[str, Any]], int | None]:
        """A page of events that the caller may receive, the newest first, and the number before which the next page begins, or None."""
        visible, following = await self._visible_before(tenant, before, limit, kind, reader)
        return [stored_document(each) for each in await self._feed.contents(tenant, visible)], following

    async def _visible_before(
        self, tenant: str, place: int | None, limit: int, kind: str, reader: EventReader
    ) -> tuple[list[EventHead], int | None]:
        visible, scanned = list[EventHead](), 0
        while scanned < SCANNED_MAX:
            found = await self._feed.before(tenant, place, PAGE, kind)
            for head in found:
                if len(visible) == limit:
                    return visible, place
                place = head.seq
                if _is_visible(head, reader):
                    visible.append(head)
            if len(found) < PAGE:
                return visible, None
            scanned += len(found)
        return visible, place

    async def follow(self, tenant: str, after: int | None, *, kind: str, reader: EventReader) -> AsyncIterator[list[dict[str, Any]]]:
        """Yields the events after a number, or those from now on for None, as they are stored; an empty list where nothing was."""
        place = await self._feed.last(tenant) if after is None else after
        for _ in range(STREAM_ROUNDS):
            found = await self._feed.after(tenant, place, PAGE)
            place = found[-1].seq if found else place
            visible = [head for head in found if head.type == (kind or head.type) and _is_visible(head, reader)]
            yield [stored_document(each) for each in await self._feed.contents(tenant, visible)]
            if len(found) < PAGE:
                await asyncio.sleep(POLL_SECONDS)

    async def triggers(self, tenant: str, names: Collection[str] | None) -> list[dict[str, Any]]:
        """What starts workflows, agents and tools without a person. `names`: entries of the registry; None: all."""
        starter = self._wakers.workflows
        waiting = await starter.waiting_counts(tenant)
        rows = [row for row in await starter.schedules_of(tenant) if names is None or row.workflow in names]
        rules = self._rules_of(tenant, names)
        statuses = await self._starts.read_statuses(tenant) if rules else {}
        shown = [trigger_document(row, waiting.get(row.workflow, 0), now_us()) for row in rows]
        return shown + [rule_document(rule, statuses.get(rule.name, TriggerStatus())) for rule in rules]

    async def set_trigger_pause(self, tenant: str, workflow: str, paused_by: str) -> bool:
        """Pauses the schedule of a workflow in the name of a person, or resumes it where `paused_by` is empty. False: there is none."""
        return await self._wakers.workflows.set_pause(tenant, workflow, paused_by)

    async def test(self, tenant: str, document: Any, names: Collection[str] | None) -> list[dict[str, Any]]:
        """Whether an event would start each of these, and if not, why; nothing is stored or started. Raises BadEvent.

        The event may be one of the gateway's own, since a test sends nothing.
        """
        event, starter = read_event(document), self._wakers.workflows
        rows = [row for row in await starter.schedules_of(tenant) if row.terms.types and (names is None or row.workflow in names)]
        found = [(trigger_target(workflow=row.workflow), await starter.why_not_started(row, event)) for row in rows]
        for rule in self._rules_of(tenant, names):
            found.append((rule_target(rule), await self._wakers.triggers.why_not_started(rule, event)))
        return [{**target, "starts": not reason, "reason": reason or None} for target, reason in found]

    def _rules_of(self, tenant: str, names: Collection[str] | None) -> list[TriggerRule]:
        return [rule for rule in self._wakers.triggers.rules if rule.tenant == tenant and (names is None or rule.target in names)]


def _is_visible(head: EventHead, reader: EventReader) -> bool:
    """Whether a reader may receive events of the type, and this one if it is one of the gateway's own."""
    is_receivable = reader.could_allow(act_of_receiving(head.type))
    return is_receivable and may_see(head.type, head.owner, head.permission, reader=reader.owner, could_allow=reader.could_allow)


def stored_document(stored: StoredEvent) -> dict[str, Any]:
    """One event. `id` is what a reader names to go on after it. Values whose names are those of secrets are masked."""
    event = {name: mask_secrets(value) if name == "data" else value for name, value in stored.event.items()}
    told = {"at": to_rfc3339(stored.at), "sender": stored.sender, "sensitivity": sensitivity_of(stored.event), "event": event}
    return {"id": str(stored.seq), "kind": "event", **told}


def trigger_document(row: ScheduleRow, waiting: int, now: int) -> dict[str, Any]:
    """What starts a workflow, when and as whom it does next, and what became of the last start. `now`: microseconds since 1970."""
    terms = row.terms
    return {
        **trigger_target(workflow=row.workflow),
        "version": terms.version,
        "run_as": terms.run_as,
        "every_seconds": terms.every / 1000 if terms.every else None,
        "cron": terms.cron or None,
        "timezone": (terms.timezone or "UTC") if terms.cron else None,
        "missed": terms.missed if terms.cron or terms.every else None,
        "after_seconds": terms.after / 1000 if terms.after else None,
        "event_types": [kind or "*" for kind in terms.types],
        "next_at": None if row.next_at is None else to_rfc3339(row.next_at),
        "upcoming": [to_rfc3339(moment) for moment in row.upcoming(now)],
        "paused": None if row.paused_at is None else {"at": to_rfc3339(row.paused_at), "by": row.paused_by},
        "last_run": row.last_run or None,
        "problem": row.problem or None,
        "waiting": waiting,
        "dead": 0,
        "concurrency": {"runs": terms.runs, "overlap": terms.overlap},
    }


def rule_document(rule: TriggerRule, status: TriggerStatus) -> dict[str, Any]:
    """What a trigger of the settings starts, as whom, and what became of its starts."""
    timed: dict[str, Any] = dict.fromkeys((*TIMED, "concurrency", "version"))
    return {
        **rule_target(rule),
        **timed,
        "upcoming": [],
        "run_as": rule.run_as,
        "event_types": [rule.type],
        "filter": dict(rule.filter),
        "last_run": status.last_task or None,
        "problem": status.problem or None,
        "waiting": status.waiting,
        "dead": status.dead,
    }


def rule_target(rule: TriggerRule) -> dict[str, Any]:
    """What a trigger of the settings starts, and its name."""
    return trigger_target(name=rule.name, workflow=rule.workflow, agent=rule.agent, tool=rule.tool)


def trigger_target(*, name: str = "", workflow: str = "", agent: str = "", tool: str = "") -> dict[str, Any]:
    """What is started: one of a workflow, an agent and a tool. `name`: of the trigger, where the settings have it."""
    return {"name": name or None, "workflow": workflow or None, "agent": agent or None, "tool": tool or None}
