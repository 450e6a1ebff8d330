"""Steps that send events and steps that listen for them, each with the rights that the run has at that moment."""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

from msgspec import Struct
from sqlalchemy import Connection

from gateway.calls.authorizer import CallRefused
from gateway.events.own_types import OWN_NAME
from gateway.events.rules import SENSITIVITY, sensitivity_of
from gateway.storage.database import Batch, WriteFailed
from gateway.workflows.cloud_events.delivery import BACKLOG_MAX, EventStore, record_dropped_starts
from gateway.workflows.cloud_events.envelope import (
    HOPS,
    RESERVED_SOURCE,
    Event,
    act_of_receiving,
    act_of_sending,
    check_type,
    read_event,
)
from gateway.workflows.cloud_events.hops import HOPS_MAX, read_hops
from gateway.workflows.cloud_events.listens import Listening, Listens, types_of
from gateway.workflows.cloud_events.matching import EventMatcher
from gateway.workflows.cloud_events.progress import NOT_TAKEN
from gateway.workflows.cloud_events.sight import may_see_event
from gateway.workflows.engine.results import own_error
from gateway.workflows.engine.steps import RunIdentity, StepCalls
from gateway.workflows.interpreter.effects import StepKey, Wanted
from gateway.workflows.interpreter.errors import WorkflowError, standard_error
from gateway.workflows.problems import BadEvent, EventConflict
from gateway.workflows.runs.requesters import add_requesters, txn_of
from gateway.workflows.runs.store import RunKey, key_text
from policies.callers import Caller
from policies.delegation.history import read_totals
from policies.delegation.rulings import Act

CONSUMED_MAX: Final = 1000  # events in the result of one listening step
# Records the ruling on an act about a task, and raises the sensitivity of the caller's transaction; raises CallRefused.
Authorize = Callable[[Caller, Act, str, int], Awaitable[object]]


class Received(Struct, frozen=True):
    """The events that ended a listening step, and who sent them: for each event the sender, and the requesters of a service's run."""

    events: list[Event]
    senders: Collection[str]


def fault_of_sending(error: EventConflict, pointer: str) -> WorkflowError:
    """The error of a step whose event was not stored."""
    return own_error("event-conflict", 409, "Event Conflict", str(error), pointer)


def _check_count(listening: Listening, key: StepKey) -> None:
    """Raises WorkflowError where a step has more events than it may have."""
    if len(listening.consumed) >= CONSUMED_MAX:
        raise standard_error("runtime", f"{CONSUMED_MAX} events matched, and the listening did not end with them", key.pointer)
    if listening.lost:
        detail = f"the run was not given {listening.lost} events, since {BACKLOG_MAX} waited already while it was paused or nothing ran it"
        raise own_error("events-lost", 500, "Events Lost", detail, key.pointer)


class EventSteps:
    """Makes, stores and receives events for runs."""

    def __init__(
        self,
        listens: Listens,
        matcher: EventMatcher,
        calls: StepCalls,
        authorize: Authorize,
        events: EventStore,
        *,
        could_allow: Callable[[Caller, Act], bool],
    ) -> None:
        self._listens = listens
        self._matcher = matcher
        self._calls = calls
        self._authorize = authorize
        self._events = events
        self._could_allow = could_allow

    async def complete(
        self, identity: RunIdentity, key: StepKey, written: Mapping[str, Any], now: int, *, sensitivity: int | None
    ) -> dict[str, Any]:
        """Returns the event of an emitting step with the attributes that it lacks; nothing is stored yet. Raises WorkflowError.

        `sensitivity` is what the document declares of the event; it lowers what the run has read, and never raises it.
        """
        moment = datetime.fromtimestamp(now / 1_000_000, UTC).isoformat().replace("+00:00", "Z")
        own = {"id": f"{identity.run.id}:{key_text(key)}", "source": f"{RESERVED_SOURCE}workflow:{identity.workflow}", "time": moment}
        given = {name: value for name, value in written.items() if value is not None}
        try:
            event = read_event({"specversion": "1.0", **own, **given, **await self._marks_of(identity, key, sensitivity)})
            check_type(event["type"])
        except BadEvent as error:
            raise standard_error("validation", f"the event {error}", key.pointer) from error
        if reserved := [name for name in given if name.startswith(OWN_NAME)]:
            raise standard_error("validation", f"`{reserved[0]}` is an attribute that only the gateway sets", key.pointer)
        if event["source"] != own["source"] and event["source"].lower().startswith(RESERVED_SOURCE):
            raise standard_error("validation", f"only the gateway names sources that begin with {RESERVED_SOURCE}", key.pointer)
        await self._check(identity, act_of_sending(event["type"]), key)
        return event

    async def _marks_of(self, identity: RunIdentity, key: StepKey, declared: int | None) -> dict[str, int]:
        """Returns the hops of an event that a run sends, and its sensitivity. Raises WorkflowError for too many hops."""

        def look(connection: Connection) -> tuple[int, int]:
            tenant, txn = identity.run.tenant, identity.txn
            return read_hops(connection, tenant, txn) + 1, read_totals(connection, tenant, txn).taint

        hops, taint = await self._listens.database.read(look)
        if hops > HOPS_MAX:
            detail = f"more than {HOPS_MAX} runs that events started led to this event: workflows start each other in a circle"
            raise own_error("event-loop", 508, "Event Loop", detail, key.pointer)
        sensitivity = taint if declared is None else min(taint, declared)
        return {HOPS: hops, SENSITIVITY: sensitivity} if sensitivity else {HOPS: hops}

    def event_write(self, identity: RunIdentity, owner: str, event: Event, now: int) -> Callable[[Batch], object]:
        """Stores the event of a step, in the commit of the step's result. An event that is stored already stays as it is."""

        def store(batch: Batch) -> None:
            tenant, run = identity.run.tenant, identity.run.id
            requesters = add_requesters(batch, tenant, txn_of(batch.connection, tenant, run), ())  # as they are by now
            stored = self._events.store(batch, tenant, owner, event, now=now, task_id=run, requesters=requesters)
            record_dropped_starts(batch, tenant, stored.not_started)

        return store

    async def receive(self, identity: RunIdentity, owner: str, key: StepKey, wanted: Wanted) -> "Received | None":
        """The events that end a listening step of the run of `owner`, or None as long as there are too few.

        Their sensitivity becomes that of the run's transaction. Raises WorkflowError and RunTaken.
        """
        for kind in sorted(types_of(wanted)):
            caller = await self._check(identity, act_of_receiving(kind), key)
        could_allow, matcher = partial(self._could_allow, caller), self._matcher.for_owner(owner)
        listening = await self._listens.open(identity.run, key_text(key), wanted)
        while page := await self._listens.unread(identity.run, key_text(key), listening.seen):
            dropped = []
            for given in page:
                is_seen = may_see_event(given.event, caller.principal.owner_key, could_allow)
                taken = await matcher.take(wanted, listening.progress, given.event, listening.consumed) if is_seen else NOT_TAKEN
                if taken.is_consumed:
                    listening.add(given)
                else:
                    dropped.append(given.number)
                if taken.is_last:
                    await self._note_sensitivity(identity, key, listening.consumed)
                    return Received(listening.consumed, listening.senders)
            _check_count(listening, key)
            listening.seen = page[-1].number
            await self._listens.advance(identity.run, key_text(key), listening, dropped)
        _check_count(listening, key)
        return None

    async def _note_sensitivity(self, identity: RunIdentity, key: StepKey, events: Sequence[Event]) -> None:
        """Raises the sensitivity of the run's transaction by that of events, before the run goes on with them.

        Raises WorkflowError where an agent of the chain is not cleared for it.
        """
        highest = max(events, key=sensitivity_of, default=None)
        if highest is not None and sensitivity_of(highest):
            await self._check(identity, act_of_receiving(highest["type"]), key, sensitivity_of(highest))

    def closing_write(self, run: RunKey, key: StepKey, senders: Collection[str]) -> Callable[[Batch], None]:
        """Ends the listening, in the commit of the step's result. The senders of its events do not approve in a run of a service."""
        close = self._listens.closing_write(run, key_text(key))

        def work(batch: Batch) -> None:
            close(batch)
            add_requesters(batch, run.tenant, txn_of(batch.connection, run.tenant, run.id), senders)

        return work

    async def stop(self, run: RunKey, key: StepKey) -> None:
        """Ends the listening of a step whose time is over, or whose branch has lost."""
        try:
            await self._listens.close(run, key_text(key))
        except WriteFailed:
            return  # the sweep of events deletes it once the run has ended

    async def _check(self, identity: RunIdentity, act: Act, key: StepKey, sensitivity: int = 0) -> Caller:
        """The run as a caller.

        Raises SignInNeeded, RightsEnded, and WorkflowError unless the run's person may do this now, within the workflow's ceiling.
        """
        self._calls.check_published(identity, key.pointer)
        caller = await self._calls.caller(identity, key.pointer)
        try:
            await self._authorize(caller, act, identity.run.id, sensitivity)
        except CallRefused as refused:
            decision = refused.ruling.decision
            detail = f"{act.permission}: refused ({decision.reason_id}); interlock why {decision.id}"
            raise standard_error("authorization", detail, key.pointer) from refused
        return caller
