"""Events and triggers as /api shows them. Permissions are checked by the routes."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from typing import Any, Final

from gateway.tasks.log import to_rfc3339
from gateway.workflows.cloud_events.delivery import EventLog, StoredEvents
from gateway.workflows.cloud_events.envelope import act_of_receiving, act_of_sending, check_sender, read_event, read_events
from gateway.workflows.cloud_events.feed import EventFeed, EventHead, StoredEvent
from gateway.workflows.cloud_events.schedules import ScheduleRow
from gateway.workflows.engine.scheduled_starts import ScheduledStarts
from gateway.workflows.engine.waking import RunWaker
from gateway.workflows.runs.values import mask_secrets
from policies.delegation.rulings import Act

SCANNED_MAX: Final = 2000  # events that one page of a list looks at
PAGE: Final = 200
POLL_SECONDS: Final = 0.5
STREAM_ROUNDS: Final = 600  # of POLL_SECONDS, after which a stream ends; the reader's next request is authenticated anew
MaySee = Callable[[Act], bool]


class EventOperations:
    """Takes events, lists and follows those that were taken, and says which workflows an event starts."""

    def __init__(self, events: EventLog, feed: EventFeed, waker: RunWaker, starter: ScheduledStarts) -> None:
        self._events = events
        self._feed = feed
        self._waker = waker
        self._starter = starter

    def parse_events(self, document: Any) -> tuple[list[dict[str, Any]], list[Act]]:
        """The events of a request, and the acts that sending them are. Raises BadEvent."""
        found = read_events(document)
        for event in found:
            check_sender(event)
        return found, [act_of_sending(kind) for kind in sorted({event["type"] for event in found})]

    async def publish(self, tenant: str, sender: str, events: list[dict[str, Any]]) -> StoredEvents:
        """Stores events, and wakes the runs that wait for them. Raises EventConflict."""
        published = await self._events.publish(tenant, sender, events)
        if published.new:
            self._waker.wake_soon()
            self._starter.start_soon()
        return published

    async def list_events(
        self, tenant: str, before: int | None, limit: int, *, kind: str, may_see: MaySee
    ) -> tuple[list[dict[str, Any]], int | None]:
        """A page of events that the caller may receive, the newest first, and the number before which the next page begins, or None."""
        visible, following = await self._visible_before(tenant, before, limit, kind, may_see)
        return [stored_document(each) for each in await self._feed.contents(tenant, visible)], following

    async def _visible_before(
        self, tenant: str, place: int | None, limit: int, kind: str, may_see: MaySee
    ) -> tuple[list[EventHead], int | None]:
        visible, scanned = list[EventHead](), 0
        while scanned < SCANNED_MAX:
            found = await self._feed.before(tenant, place, PAGE, kind)
            for head in found:
                if len(visible) == limit:
                    return visible, place
                place = head.seq
                if may_see(act_of_receiving(head.type)):
                    visible.append(head)
            if len(found) < PAGE:
                return visible, None
            scanned += len(found)
        return visible, place

    async def follow(self, tenant: str, after: int | None, *, kind: str, may_see: MaySee) -> AsyncIterator[list[dict[str, Any]]]:
        """Yields the events after a number, or those from now on for None, as they are stored; an empty list where nothing was."""
        place = await self._feed.last(tenant) if after is None else after
        for _ in range(STREAM_ROUNDS):
            found = await self._feed.after(tenant, place, PAGE)
            place = found[-1].seq if found else place
            visible = [head for head in found if head.type == (kind or head.type) and may_see(act_of_receiving(head.type))]
            yield [stored_document(each) for each in await self._feed.contents(tenant, visible)]
            if len(found) < PAGE:
                await asyncio.sleep(POLL_SECONDS)

    async def triggers(self, tenant: str, names: Collection[str]) -> list[dict[str, Any]]:
        """What starts workflows without a person. `names`: the workflows that the caller may see."""
        waiting = await self._starter.waiting_counts(tenant)
        rows = [row for row in await self._starter.schedules_of(tenant) if row.workflow in names]
        return [trigger_document(row, waiting.get(row.workflow, 0)) for row in rows]

    async def test(self, tenant: str, document: Any, names: Collection[str]) -> list[dict[str, Any]]:
        """Whether an event would start each of these workflows, and if not, why; nothing is stored or started. Raises BadEvent."""
        event = read_event(document)
        check_sender(event)
        rows = [row for row in await self._starter.schedules_of(tenant) if row.workflow in names and row.terms.types]
        reasons = {row.workflow: await self._starter.why_not_started(row, event) for row in rows}
        return [{"workflow": row.workflow, "starts": not reasons[row.workflow], "reason": reasons[row.workflow] or None} for row in rows]


def stored_document(stored: StoredEvent) -> dict[str, Any]:
    """One event. `id` is what a reader names to go on after it. Values whose names are those of secrets are masked."""
    event = {name: mask_secrets(value) if name == "data" else value for name, value in stored.event.items()}
    return {"id": str(stored.seq), "kind": "event", "at": to_rfc3339(stored.at), "sender": stored.sender, "event": event}


def trigger_document(row: ScheduleRow, waiting: int) -> dict[str, Any]:
    """What starts a workflow, when and as whom it does next, and what became of the last start."""
    terms = row.terms
    return {
        "workflow": row.workflow,
        "version": terms.version,
        "run_as": terms.run_as,
        "every_seconds": terms.every / 1000 if terms.every else None,
        "cron": terms.cron or None,
        "after_seconds": terms.after / 1000 if terms.after else None,
        "event_types": [kind or "*" for kind in terms.types],
        "next_at": None if row.next_at is None else to_rfc3339(row.next_at),
        "last_run": row.last_run or None,
        "problem": row.problem or None,
        "waiting": waiting,
        "concurrency": {"runs": terms.runs, "overlap": terms.overlap},
    }
