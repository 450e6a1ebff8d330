"""Starts the runs that time and events bring, each once, as the service principal that its document names."""

import time
from collections.abc import Awaitable, Callable
from enum import Enum, auto
from functools import partial
from typing import Any, Final

import msgspec
import structlog

from adapters.a2a_client.wire.v1 import BadMessage
from adapters.contract import UpstreamFault
from adapters.task import Message, Part, Role
from gateway.calls.agent_calls import AgentCalls
from gateway.calls.agent_requests import AgentRequest
from gateway.calls.authorizer import CallRefused
from gateway.calls.limits.meters import LimitReached, PayloadTooLarge
from gateway.calls.turns.cancellation import NotCancelable
from gateway.concurrency.rounds import RequestedRounds
from gateway.events.rules import could_match, sensitivity_of
from gateway.storage.database import Batch, ReadFailed, WriteFailed
from gateway.tasks.contracts.skills import ContractBroken
from gateway.tasks.log import TaskNotWaiting, TaskRow, UnknownTask, to_rfc3339
from gateway.tasks.reader import IdempotencyConflict
from gateway.tasks.turns.in_flight import ShuttingDown, TooManyTasks
from gateway.telemetry.spans import TraceContext
from gateway.workflows.cloud_events.envelope import Event, act_of_receiving
from gateway.workflows.cloud_events.hops import hops_write
from gateway.workflows.cloud_events.matching import EventMatcher
from gateway.workflows.cloud_events.schedules import ScheduleRow, Schedules, ScheduleTerms, Start
from gateway.workflows.cloud_events.scheduling import starting_events, terms_of
from gateway.workflows.cloud_events.sight import may_see_event, transaction_for
from gateway.workflows.dsl.document import Document
from gateway.workflows.engine.event_steps import Authorize
from gateway.workflows.engine.waking import FailurePauses
from gateway.workflows.interpreter.effects import Wanted
from gateway.workflows.problems import DocumentRefused
from gateway.workflows.runs.versions import Versions
from policies.callers import Caller, CallerResolver
from policies.delegation.kills import Killed
from policies.delegation.rulings import Act
from policies.delegation.run_as import ServicePrincipals
from policies.tokens.verifier import TokenRefused
from registry.cards.card import KNOWN_STATUSES, WORKFLOW_KIND
from registry.health.reachability import NotReachable
from registry.store import Registry, UnknownName

OpeningWrite = Callable[[Batch, TaskRow], None]  # in the commit that opens a task
JSON: Final = "application/json"
SORT_SECONDS: Final = 2.0  # for the events of one schedule in one round, so that slow filters hold up no other schedule
BUSY: Final = (LimitReached, TooManyTasks, ShuttingDown, WriteFailed, ReadFailed)  # the start is tried again
REFUSED: Final = (
    CallRefused, TokenRefused, Killed, UnknownName, NotReachable, ContractBroken, BadMessage, PayloadTooLarge, IdempotencyConflict
)  # fmt: skip
log = structlog.get_logger()


class StartOutcome(Enum):
    """What became of a start that was due."""

    STARTED = auto()
    DROPPED = auto()  # the run is not wanted beside others, or was refused
    WAITS = auto()  # for room, or until the gateway can start it; it is tried again


class ServiceRuns:
    """Starts single runs as the service principal that the document names, with the rights that it has now."""

    def __init__(
        self,
        schedules: Schedules,
        versions: Versions,
        *,
        registry: Registry,
        agents: AgentCalls,
        callers: CallerResolver,
        services: ServicePrincipals,
        authorize: Authorize,
        could_allow: Callable[[Caller, Act], bool],
    ) -> None:
        self._could_allow = could_allow
        self._schedules = schedules
        self._versions = versions
        self._registry = registry
        self._agents = agents
        self._callers = callers
        self._services = services
        self._authorize = authorize

    async def start(self, row: ScheduleRow, start: Start) -> StartOutcome:
        """Starts a run, unless it has to wait, is not wanted or is refused. What is dropped is settled: it is not tried again."""
        try:
            event: Event = msgspec.json.decode(start.event) if start.event else {}
            caller = await self.caller(row, transaction_for(event))
            if row.terms.overlap == "queue" and not await self._has_room(row, caller):
                return StartOutcome.WAITS
            if start.event:
                for kind in row.terms.types:
                    await self._authorize(caller, act_of_receiving(kind), "", sensitivity_of(event))
                if not may_see_event(event, caller.principal.owner_key, partial(self._could_allow, caller)):
                    problem = f"{row.terms.run_as} lacks audit:read for an event that concerns others"
                    await self._schedules.settle(row, start, problem=problem)
                    return StartOutcome.DROPPED
            if not await self._make_room(row, caller):
                if row.terms.overlap != "skip":
                    return StartOutcome.WAITS
                log.info("run_skipped", workflow=row.workflow, start=start.id[:80])
                await self._schedules.settle(row, start)
                return StartOutcome.DROPPED
            given = await self._input_of(row, start, event)
            message = Message(start.id, Role.USER, (Part(data=given, media_type=JSON),))
            version = self._registry.find(row.tenant, row.workflow).workflow_version
            opening = partial(_write_both, hops_write(event), await self._schedules.opening_write(row, start, version, given))
            request = AgentRequest(row.workflow, message, TraceContext(), idempotency_key=start.id, opening_write=opening)
            turned = await self._agents.start(caller, request)
        except BUSY as error:
            log.info("run_start_waits", workflow=row.workflow, error=type(error).__name__)
            return StartOutcome.WAITS
        except REFUSED as error:
            log.warning("run_not_started", workflow=row.workflow, service=row.terms.run_as, error=type(error).__name__, problem=str(error))
            await self._schedules.settle(row, start, problem=f"{type(error).__name__}: {error}")
            return StartOutcome.DROPPED
        await self._schedules.settle(row, start, turned.row.id)
        return StartOutcome.STARTED

    async def caller(self, row: ScheduleRow, txn: str = "") -> Caller:
        """The service principal as it is now, in the transaction `txn` if there is one. Raises TokenRefused and Killed."""
        if not self._services.has(row.tenant, row.terms.run_as):
            raise TokenRefused("grant-ended")
        return await self._callers.resolve_service(row.tenant, row.terms.run_as, row.terms.lifetime, txn)

    async def _input_of(self, row: ScheduleRow, start: Start, event: Event) -> Any:
        """The input of a run: its events, or an object where time starts it, with the run's moment where each moment has a run."""
        if not event:
            return {"moment": to_rfc3339(start.at)} if row.terms.missed == "all" else {}
        document = await _find_document(self._versions, row)
        is_whole = document is not None and document.schedule is not None and document.schedule.read == "envelope"
        return [event if is_whole else event.get("data")]

    async def _has_room(self, row: ScheduleRow, caller: Caller) -> bool:
        _, excess = await self._own_runs(row, caller)
        return excess <= 0

    async def _own_runs(self, row: ScheduleRow, caller: Caller) -> tuple[list[TaskRow], int]:
        """The open runs of the service, the oldest first, and how many of all runs would have to end for one more.

        Runs of other people don't count while they wait, and with `queue` not at all: a run that is started waits for its turn among
        theirs.
        """
        live = await self._schedules.live_runs(row, caller.principal.owner_key)
        own = [run for run in live if run.owner == caller.principal.owner_key]
        return own, len(own if row.terms.overlap == "queue" else live) - row.terms.runs + 1

    async def _make_room(self, row: ScheduleRow, caller: Caller) -> bool:
        """Whether another run may start now. With `cancel-previous` the oldest runs of the service make room."""
        own, excess = await self._own_runs(row, caller)
        if excess <= 0:
            return True
        if row.terms.overlap != "cancel-previous" or len(own) < excess:
            return False
        for run in own[:excess]:
            try:
                await self._agents.cancel(caller, run.agent, run.id, TraceContext())
            except (UnknownTask, TaskNotWaiting):
                continue
            except (NotCancelable, UpstreamFault):
                return False
        return True


class ScheduledStarts:
    """Keeps schedules in step with the registry, and starts what is due. Any process does it; each start has one idempotency key."""

    def __init__(
        self,
        schedules: Schedules,
        versions: Versions,
        matcher: EventMatcher,
        *,
        registry: Registry,
        runs: ServiceRuns,
        could_allow: Callable[[Caller, Act], bool],
    ) -> None:
        self._schedules = schedules
        self._versions = versions
        self._matcher = matcher
        self._registry = registry
        self._runs = runs
        self._could_allow = could_allow
        self._generation = -1
        self._pauses = FailurePauses(schedules.now)
        self._rounds = RequestedRounds(self.run_once, "runs_not_started", WriteFailed, ReadFailed)

    async def run_once(self) -> int:
        """Starts the runs that are due, and returns how many. An error of one schedule leaves the others as they are."""
        if self._registry.generation != self._generation:
            await self.reconcile()
        for row in await self._schedules.timed():
            await self._guard("fire", row.tenant, row.workflow, partial(self._schedules.fire, row))
        return sum(
            [await self._guard("start", row.tenant, row.workflow, partial(self._start_of, row)) for row in await self._schedules.waiting()]
        )

    def start_soon(self) -> None:
        """Starts what is due beside the caller, who does not wait for runs of others."""
        self._rounds.ask()

    async def _guard(self, act: str, tenant: str, workflow: str, work: Callable[[], Awaitable[int]]) -> int:
        """What the work on one schedule returns. After an error, which is logged, it is left alone for a while, and others go on.

        Raises WriteFailed and ReadFailed, which concern all schedules.
        """
        key = (act, tenant, workflow)
        if self._pauses.is_waiting(key):
            return 0
        try:
            done = await work()
        except (WriteFailed, ReadFailed):
            raise
        except Exception:  # the root of the work on one schedule
            log.exception("schedule_broke", tenant=tenant, workflow=workflow, retry_seconds=self._pauses.record_failure(key))
            return 0
        self._pauses.record_success(key)
        return done

    async def schedule_of(self, tenant: str, workflow: str) -> ScheduleRow | None:
        """The schedule that a workflow has now, or None."""
        return await self._schedules.find(tenant, workflow)

    async def schedules_of(self, tenant: str) -> list[ScheduleRow]:
        """The schedules of a tenant, in the order of their workflows."""
        return [row for row in await self._schedules.all() if row.tenant == tenant]

    async def set_pause(self, tenant: str, workflow: str, paused_by: str) -> bool:
        """Pauses a schedule in the name of a person, or resumes it where `paused_by` is empty. False: there is none."""
        return await self._schedules.set_pause(tenant, workflow, paused_by)

    async def waiting_counts(self, tenant: str) -> dict[str, int]:
        """How many runs of each workflow wait for their start."""
        return await self._schedules.waiting_counts(tenant)

    async def why_not_started(self, row: ScheduleRow, event: Event) -> str:
        """Why an event does not start a workflow; empty where it does."""
        document = await _find_document(self._versions, row)
        schedule = None if document is None else document.schedule
        if schedule is None or schedule.on is None:
            return "no event starts it"
        if event["type"] not in row.terms.types and "" not in row.terms.types:
            return f"it starts by events of the type {', '.join(row.terms.types)}"
        if not any(could_match(each, event) for each in row.terms.filters):
            return "another attribute differs from the one that `with` names"
        if not await self._is_wanted(row, starting_events(schedule.on), event):
            return "an expression of `with` does not hold"
        return await self._why_refused(row)

    async def _why_refused(self, row: ScheduleRow) -> str:
        """Why the service principal of a schedule can't receive its events; empty where it can."""
        try:
            caller = await self._runs.caller(row)
        except (TokenRefused, Killed):
            return f"the service principal {row.terms.run_as} may not act"
        missing = [act.permission for kind in row.terms.types if not self._could_allow(caller, act := act_of_receiving(kind))]
        return f"the service principal {row.terms.run_as} lacks {', '.join(missing)}" if missing else ""

    async def reconcile(self) -> None:
        """Makes the schedules of all tenants those of the versions that are published now."""
        generation = self._registry.generation
        wanted: dict[tuple[str, str], ScheduleTerms] = {}
        left_alone: set[tuple[str, str]] = set()
        for tenant in self._registry.tenants():
            for entry in self._registry.list(tenant):
                if entry.kind == WORKFLOW_KIND and entry.status in KNOWN_STATUSES:
                    version = entry.workflow_version
                    document = await _read_document(self._versions, tenant, entry.name, version)
                    if document is None:  # another release of the gateway, which takes the document, has its schedule
                        left_alone.add((tenant, entry.name))
                    elif (terms := terms_of(document, version)) is not None:
                        wanted[tenant, entry.name] = terms
        for row in await self._schedules.all():
            if (row.tenant, row.workflow) not in wanted.keys() | left_alone:
                await self._schedules.remove(row.tenant, row.workflow)
        put = [await self._guard("put", *names, partial(self._put, *names, terms)) for names, terms in wanted.items()]
        if all(put):
            self._generation = generation

    async def _put(self, tenant: str, name: str, terms: ScheduleTerms) -> int:
        await self._schedules.put(tenant, name, terms)
        return 1

    async def _start_of(self, row: ScheduleRow) -> int:
        """Starts the runs of one workflow, as far as it may have so many at once, and returns how many."""
        if not await self._schedules.claim(row):
            return 0
        started = 0
        try:
            await self._sort_events(row)
            for start in await self._schedules.starts_of(row, wanted=True):
                outcome = await self._runs.start(row, start)
                if outcome is StartOutcome.WAITS:
                    break
                started += outcome is StartOutcome.STARTED
        finally:
            await self._schedules.release(row)
        return started

    async def _sort_events(self, row: ScheduleRow) -> None:
        """Looks once at each event that may start a run, whether or not there is room for it. The next round goes on after SORT_SECONDS."""
        document = await _find_document(self._versions, row)
        schedule = None if document is None else document.schedule
        wanted = None if schedule is None or schedule.on is None else starting_events(schedule.on)
        ends_at = time.monotonic() + SORT_SECONDS
        while time.monotonic() < ends_at and (starts := await self._schedules.starts_of(row, wanted=False)):
            found, others = list[Start](), list[Start]()
            for each in starts:
                is_wanted = wanted is not None and await self._is_wanted(row, wanted, msgspec.json.decode(each.event))
                (found if is_wanted else others).append(each)
                if time.monotonic() >= ends_at:
                    break
            await self._schedules.sort(row, found, others)

    async def _is_wanted(self, row: ScheduleRow, wanted: Wanted, event: Event) -> bool:
        """Whether an event starts a run."""
        return await self._matcher.for_owner(f"{row.tenant}|{row.workflow}").result(wanted, [event]) is not None


def _write_both(first: OpeningWrite, second: OpeningWrite, batch: Batch, task: TaskRow) -> None:
    first(batch, task)
    second(batch, task)


async def _find_document(versions: Versions, row: ScheduleRow) -> Document | None:
    return await _read_document(versions, row.tenant, row.workflow, row.terms.version)


async def _read_document(versions: Versions, tenant: str, name: str, version: str) -> Document | None:
    """None too for a version that another release of the gateway took and this one refuses."""
    try:
        return await versions.document(tenant, name, version)
    except DocumentRefused:
        return None
