"""Starts what the triggers of the settings name, by the rights of their service principals: each event once, in order per subject."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final

import msgspec
import structlog

from adapters.a2a_client.wire.v1 import BadMessage
from adapters.contract import UpstreamFault
from adapters.task import Message, Part, Role
from adapters.upstream.egress import EgressRefused
from gateway.calls.agent_calls import AgentCalls
from gateway.calls.agent_requests import AgentRequest
from gateway.calls.authorizer import CallRefused
from gateway.calls.consent.approval_requests import TooManyQuestions
from gateway.calls.limits.meters import LimitReached, PayloadTooLarge
from gateway.concurrency.background import run_in_background
from gateway.concurrency.rounds import RequestedRounds
from gateway.events.queue import QueuedRow
from gateway.events.rules import TriggerRule, could_match, is_condition, sensitivity_of
from gateway.events.starts import TriggerStarts
from gateway.events.templates import ValueMissing, render, render_text
from gateway.storage.database import Batch, ReadFailed, WriteFailed
from gateway.tasks.contracts.skills import ContractBroken
from gateway.tasks.log import TaskRow
from gateway.tasks.reader import IdempotencyConflict
from gateway.tasks.turns.in_flight import ShuttingDown, TooManyTasks
from gateway.telemetry.spans import TraceContext
from gateway.workflows.cloud_events.envelope import Event, act_of_receiving
from gateway.workflows.cloud_events.hops import hops_write
from gateway.workflows.cloud_events.matching import EventMatcher
from gateway.workflows.cloud_events.sight import may_see_event, transaction_for
from gateway.workflows.dsl.durations import UNDO_GRACE, milliseconds_of
from gateway.workflows.interpreter.effects import Wanted, WantedEvent
from gateway.workflows.problems import DocumentRefused
from gateway.workflows.runs.store import RunKey, RunRow, RunStore, insert_run
from gateway.workflows.runs.versions import Versions
from policies.callers import Caller, CallerResolver
from policies.delegation.kills import Killed
from policies.delegation.rulings import Act
from policies.delegation.run_as import ServicePrincipals
from policies.tokens.verifier import TokenRefused
from registry.cards.card import WORKFLOW_KIND, Registration
from registry.health.reachability import NotReachable
from registry.store import Registry, UnknownName

PARALLEL_MAX: Final = 32  # starts of one process at once
LIFETIME_SECONDS: Final = 86_400.0  # of the authority with which an agent or a tool is called
JSON: Final = "application/json"
LASTING: Final = (CallRefused, TokenRefused, Killed, UnknownName, ContractBroken, BadMessage, PayloadTooLarge, IdempotencyConflict)
BUSY: Final = (LimitReached, TooManyTasks, ShuttingDown, NotReachable, UpstreamFault, EgressRefused, DocumentRefused, TooManyQuestions)
Authorize = Callable[[Caller, Act, int], Awaitable[Callable[[Batch], None]]]  # returns what records the Grant; raises CallRefused
CouldAllow = Callable[[Caller, Act], bool]
log = structlog.get_logger()


class NotSeen(Exception):
    """The service principal of a trigger may not see the event, which concerns others."""


class TriggerCalls:
    """Makes the call of one start."""

    def __init__(
        self,
        store: RunStore,
        versions: Versions,
        *,
        registry: Registry,
        agents: AgentCalls,
        callers: CallerResolver,
        services: ServicePrincipals,
        authorize: Authorize,
        could_allow: CouldAllow,
    ) -> None:
        self._store = store
        self._versions = versions
        self._registry = registry
        self._agents = agents
        self._callers = callers
        self._services = services
        self._authorize = authorize
        self._could_allow = could_allow

    async def start(
        self,
        rule: TriggerRule,
        start: str,
        event: Event,
        requesters: Sequence[str],
        write: Callable[[Batch, TaskRow], None],
        *,
        is_first: bool = False,
    ) -> str:
        """The id of the task that an event starts, or has started. `requesters`: who sent the event; `write`: see AgentRequest.

        `is_first`: nothing has tried it before.

        Raises what a call raises, NotSeen and ValueMissing.
        """
        caller = await self.caller(rule, transaction_for(event))
        record = await self._authorize(caller, act_of_receiving(event["type"]), sensitivity_of(event))
        if not may_see_event(event, caller.principal.owner_key, partial(self._could_allow, caller)):
            raise NotSeen(f"{rule.run_as} lacks audit:read, for an event that concerns others")
        key = f"trigger:{rule.name}:{start}"
        parts, given = message_of(rule, event)
        writes = (hops_write(event), write, await self._run_write(rule, given, requesters))
        request = AgentRequest(
            rule.target,
            Message(key, Role.USER, parts),
            TraceContext(),
            rule.skill,
            idempotency_key=key,
            is_key_new=is_first,
            opening_write=partial(_write_opening, record, writes),
        )
        return (await self._agents.start(caller, request)).row.id

    async def caller(self, rule: TriggerRule, txn: str = "") -> Caller:
        """The service principal as it is now, in the transaction `txn` if there is one. Raises TokenRefused and Killed."""
        if not self._services.has(rule.tenant, rule.run_as):
            raise TokenRefused("grant-ended")
        return await self._callers.resolve_service(rule.tenant, rule.run_as, await self._lifetime_of(rule), txn)

    async def _lifetime_of(self, rule: TriggerRule) -> float:
        """Seconds of the authority of what is started: of a run until its deadline, with the time to undo it."""
        entry = self._find_workflow(rule) if rule.workflow else None
        document = None if entry is None else await self._versions.document(rule.tenant, rule.workflow, entry.workflow_version)
        if document is None:
            return LIFETIME_SECONDS
        return (milliseconds_of(document.document.metadata.gateway.deadline) + UNDO_GRACE) / 1000

    def _find_workflow(self, rule: TriggerRule) -> Registration:
        """The workflow that a trigger names. Raises UnknownName."""
        entry = self._registry.find(rule.tenant, rule.workflow)
        if entry.kind != WORKFLOW_KIND:
            raise UnknownName(rule.workflow)
        return entry

    async def why_refused(self, rule: TriggerRule, event: Event) -> str:
        """Why the service principal could not start the target by an event; empty where it could."""
        try:
            caller = await self.caller(rule)
            message_of(rule, event)
        except UnknownName:
            return f"there is no {rule.target}"
        except (TokenRefused, Killed):
            return f"the service principal {rule.run_as} may not act"
        except ValueMissing as missing:
            return str(missing)
        act = act_of_receiving(event["type"])
        if not self._could_allow(caller, act):
            return f"the service principal {rule.run_as} lacks {act.permission}"
        return ""

    async def _run_write(self, rule: TriggerRule, given: Any, senders: Sequence[str]) -> Callable[[Batch, TaskRow], None]:
        """Stores the run, where a workflow is started, with its input as the trigger made it. Raises UnknownName."""
        if not rule.workflow:
            return _write_nothing
        version, now = self._find_workflow(rule).workflow_version, self._store.now()
        author = await self._store.author_of(rule.tenant, rule.workflow, version)
        requesters = tuple(dict.fromkeys(filter(None, (author, *senders))))

        def write(batch: Batch, task: TaskRow) -> None:
            insert_run(batch, RunRow(RunKey(task.tenant, task.id), rule.workflow, version, given, now, requesters=requesters))

        return write


class TriggerStarter:
    """Starts what is due. Any process does it; each start has one idempotency key."""

    def __init__(self, starts: TriggerStarts, matcher: EventMatcher, calls: TriggerCalls) -> None:
        self._starts = starts
        self._matcher = matcher
        self._calls = calls
        self._begun: set[asyncio.Task[None]] = set()
        self._rounds = RequestedRounds(self._begin_due, "triggers_not_started", WriteFailed, ReadFailed)

    @property
    def rules(self) -> Sequence[TriggerRule]:
        return list(self._starts.rules.values())

    async def run_once(self) -> int:
        """Starts what is due, and returns how many starts were looked at."""
        count = 0
        while self._starts.rules and (rows := await self._starts.acquire(PARALLEL_MAX)):
            await asyncio.gather(*(self._try_start(row) for row in rows))
            count += len(rows)
        return count

    def start_soon(self) -> None:
        """Starts what is due beside the sender of the event, who does not wait for it."""
        if self._starts.rules:
            self._rounds.ask()

    async def _begin_due(self) -> None:
        """Begins what is due, as far as there is room beside what was begun already."""
        room = PARALLEL_MAX - len(self._begun)
        for row in await self._starts.acquire(room) if room else ():
            task = run_in_background(self._try_start(row), "triggers_not_started")
            self._begun.add(task)
            task.add_done_callback(partial(self._follow, row))

    def _follow(self, row: QueuedRow, task: "asyncio.Task[None]") -> None:
        """Has others begin for which a start that has ended made room, or whose subject it held up."""
        was_full = len(self._begun) >= PARALLEL_MAX
        self._begun.discard(task)
        if was_full or row.subject:
            self._rounds.ask()

    async def why_not_started(self, rule: TriggerRule, event: Event) -> str:
        """Why an event does not start what a trigger names; empty where it does."""
        if event["type"] != rule.type and not rule.type.endswith("*"):
            return f"it starts by events of the type {rule.type}"
        if not could_match(rule.literals, event):
            return "another attribute differs from the one that `filter` names"
        if not await self._fits(rule, event):
            return "a condition of `filter` does not hold"
        return await self._calls.why_refused(rule, event)

    async def _fits(self, rule: TriggerRule, event: Event) -> bool:
        """Whether the conditions of a trigger hold for an event."""
        conditions = {name: value for name, value in rule.filter.items() if name == "data" or is_condition(value)}
        if not conditions:
            return True
        return await self._matcher.result(Wanted("any", (WantedEvent(conditions),)), [event]) is not None

    async def _try_start(self, row: QueuedRow) -> None:
        """Makes one attempt at a start. Raises nothing, so that one start holds up no other."""
        name = row.columns.name
        rule = self._starts.rules.get((row.tenant, name))
        try:
            if rule is None:
                await self._give_up(row, "the settings name this trigger no more", is_lasting=True)
                return
            event: Event = msgspec.json.decode(row.columns.event)
            if not await self._fits(rule, event):
                await self._starts.drop(row)
                return
            requesters = msgspec.json.decode(row.columns.requesters)
            write = partial(self._write_cause, requesters)
            task_id = await self._calls.start(rule, row.columns.start, event, requesters, write, is_first=row.attempts == 1)
            await self._starts.settle(row, task_id)
        except (WriteFailed, ReadFailed) as error:  # the lease ends, and the start is tried again
            log.warning("trigger_start_waits", trigger=name, letter=row.id, error=type(error).__name__)
        except (NotSeen, ValueMissing, *LASTING) as error:
            await self._give_up(row, _problem_of(error), is_lasting=True)
        except BUSY as error:
            await self._give_up(row, _problem_of(error), is_lasting=False)
        except Exception:  # the root of one start, which holds up no other
            log.exception("trigger_start_broke", trigger=name, letter=row.id)
            await self._give_up(row, "an error of the gateway's own, which its log has as trigger_start_broke", is_lasting=False)

    def _write_cause(self, requesters: Sequence[str], batch: Batch, task: TaskRow) -> None:
        self._starts.cause_write(batch, task.tenant, task.txn, task.id, requesters)

    async def _give_up(self, row: QueuedRow, problem: str, *, is_lasting: bool) -> None:
        with suppress(WriteFailed, ReadFailed):
            is_dead = await self._starts.record_failure(row, problem, is_lasting=is_lasting)
            log.warning("trigger_not_started", trigger=row.columns.name, letter=row.id, dead=is_dead, problem=problem[:500])


def message_of(rule: TriggerRule, event: Event) -> tuple[tuple[Part, ...], Any]:
    """The parts of the message that a trigger sends, and the value that they have. Raises ValueMissing."""
    data = event.get("data")
    if rule.agent and rule.given:
        text = render_text(str(rule.given), event)
        return (Part(text=text),), text
    given = ({} if data is None else data) if rule.given is None else render(rule.given, event)
    if rule.tool:
        tool = rule.tool.partition(".")[2]
        if not isinstance(given, dict):
            raise ValueMissing("the event's data is no object, as the arguments of a tool are")
        return (Part(data={"tool": tool, "arguments": given}, media_type=JSON),), given
    return (Part(data=given, media_type=JSON),), given


def _problem_of(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _write_opening(
    record: Callable[[Batch], None], writes: Sequence[Callable[[Batch, TaskRow], None]], batch: Batch, task: TaskRow
) -> None:
    record(batch)
    batch.flush()  # the row of the task, which others refer to
    for write in writes:
        write(batch, task)


def _write_nothing(_batch: Batch, _task: TaskRow) -> None:
    return
