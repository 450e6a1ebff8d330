"""Takeover: another process continues turns whose process has ended, or tells the agent to stop where that is not possible."""

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, suppress
from typing import cast

import msgspec
import structlog

from adapters.catalog import UnknownKind
from adapters.contract import (
    Adapter,
    Answer,
    Call,
    CannotCancel,
    CannotReattach,
    Event,
    Failed,
    Reattachable,
    Turn,
    UpstreamFault,
    VendorRef,
)
from adapters.task import INTERRUPTED, Message, Role, Task
from gateway.calls.handoff import enforce_contract, skill_begun_with
from gateway.calls.parts import CallParts
from gateway.calls.resumption.resumed_turns import ResumedTurns
from gateway.calls.revocation.running import KILLED, PUBLIC_TEXTS
from gateway.calls.turns.runner import PreparedTurn
from gateway.storage.database import Batch, ReadFailed, WriteFailed
from gateway.tasks.contracts.prompts import BadPromptAnswer, find_answers, open_prompts
from gateway.tasks.contracts.skills import contract_of
from gateway.tasks.log import TaskMoved, TaskRecord, TaskRow
from gateway.tasks.reader import session_id_of
from gateway.tasks.turns.recorder import GATEWAY_FAILURE, TurnRecorder, TurnState
from gateway.tasks.turns.stores import TaskStores
from gateway.telemetry.spans import TraceContext
from gateway.telemetry.upstream_calls import resume_trace_context
from policies.audit.log import decision_record
from policies.authority import Authority, RulingRequest
from policies.callers import CallerResolver
from policies.delegation.kills import Killed
from policies.delegation.rulings import Grant, act_of_invoking_agent
from policies.tokens.verifier import TokenRefused
from registry.cards.card import FEATURES, WORKFLOW_KIND, Family, Registration
from registry.store import UnknownName

RESUMED, ENDED, MOVED, FAILED = "resumed", "ended", "moved", "failed"  # what became of a task whose process is gone
LOGGED_TASKS_MAX = 20  # ids of one line of the log
STOP_SECONDS = 10.0  # for an agent to confirm that it stopped
LOST_TEXT = "The gateway stopped while the agent was working; the outcome is not known."
LOST_HERE_TEXT = "The gateway lost its connection to the agent's turn; the outcome is not known."
STOPPED_TEXT = "The gateway stopped while the agent was working and could not reattach. The agent was told to stop."
NO_MESSAGE = Message("", Role.USER, ())
log = structlog.get_logger()
_decode_ref = msgspec.json.Decoder(VendorRef).decode


class Takeover:
    """Finds tasks without a working process: those of processes that have ended, and those that this process has lost.

    The process that claims the task's row continues the task; the claim excludes every other process, the former one included. A turn
    continues under the grant with which it started, as that grant is now.
    """

    def __init__(
        self,
        parts: CallParts,
        resumed_turns: ResumedTurns,
        authority: Authority,
        callers: CallerResolver,
        *,
        stores: TaskStores,
        turns: TurnRecorder,
    ) -> None:
        self._parts = parts
        self._resumed_turns = resumed_turns
        self._authority = authority
        self._callers = callers
        self._stores = stores
        self._turns = turns
        self._round_lock = asyncio.Lock()

    async def run_once(self) -> int:
        """Takes over or ends tasks without a working process, and returns how many."""
        async with self._round_lock:
            found = [row for row in await self._stores.tasks.find_orphans() if not self._is_handled_here(row.id)]
            random.shuffle(found)  # so that concurrent processes start with different tasks
            outcomes = {row.id: await self._one_alone(row) for row in found}
        resumed, failed = ([task for task, outcome in outcomes.items() if outcome == wanted] for wanted in (RESUMED, ENDED))
        if resumed or failed:
            logged_tasks = {"resumed_tasks": resumed[:LOGGED_TASKS_MAX], "failed_tasks": failed[:LOGGED_TASKS_MAX]}
            log.warning("tasks_recovered", count=len(resumed) + len(failed), resumed=len(resumed), failed=len(failed), **logged_tasks)
        return len(resumed) + len(failed)

    def _is_handled_here(self, task_id: str) -> bool:
        """Whether this process works on the task, or still has its ending to write."""
        return task_id in self._parts.in_flight or self._turns.has_deferred_ending(task_id)

    async def resume(self, row: TaskRow, ending: Failed) -> str:
        """Continues a suspended task, or ends it by `ending` where its authority has ended; returns RESUMED, ENDED or MOVED.

        Returns FAILED after an error, which is logged: the task is as it was.
        """
        if self._is_handled_here(row.id):
            return MOVED
        return await self._one_alone(row, ending)

    async def _one_alone(self, row: TaskRow, ending: Failed | None = None) -> str:
        """Takes over or ends one task. Logs a failure, so that the run continues with the other tasks; the next run tries again."""
        with resume_trace_context(row.trace) as trace_context:
            try:
                return await self._take_up_or_end(row, trace_context, ending)
            except (WriteFailed, ReadFailed):  # the database layer logs its outage
                log.debug("takeover_failed", task_id=row.id, exc_info=True)
                return MOVED
            except Exception:  # the root of the work on one task
                log.exception("takeover_failed", task_id=row.id, agent=row.agent)
            return FAILED

    async def _take_up_or_end(self, row: TaskRow, trace_context: TraceContext, ending: Failed | None) -> str:
        """RESUMED, ENDED, or MOVED for a task that changed since it was looked at, and so is not lost."""
        record = await self._stores.tasks.read_record(row.tenant, row.owner, row.id)
        if record.row.runner != row.runner:
            return MOVED
        ending = ending or Failed(LOST_HERE_TEXT if row.runner == self._stores.tasks.runner else LOST_TEXT, kind=GATEWAY_FAILURE)
        try:
            if _decode_ref(record.row.vendor_ref).task_id and await self._take_up(record, trace_context):
                return RESUMED
        except TaskMoved:
            return MOVED
        except UpstreamFault as fault:
            log.warning("turn_not_taken_up", task_id=row.id, agent=row.agent, error=fault.public)
        except Killed:
            ending = Failed(PUBLIC_TEXTS[KILLED], kind=KILLED)
        return ENDED if await self._turns.end_lost_task(record, ending) else MOVED

    async def _take_up(self, record: TaskRecord, trace_context: TraceContext) -> bool:
        """Returns False if the authority has ended or the agent is unknown here.

        Raises TaskMoved, Killed, and UpstreamFault if the agent cannot be called with this configuration.
        """
        row = record.row
        try:
            caller = await self._callers.resolve_agent_in_turn(row.tenant, row.agent, row.grant_id, with_outdated_roles=True)
            target = self._parts.callees.find_registered(caller, row.agent, Family.AGENT)  # its own ceiling need not name it
            grant = self._authority.grant_continuation(
                caller, RulingRequest(act_of_invoking_agent(row.agent), row.tenant, task_id=row.id, txn=row.txn)
            )
            adapter = await self._prepare_adapter(target, row)
        except (TokenRefused, UnknownName, UnknownKind) as error:
            log.info("turn_not_taken_up", task_id=row.id, agent=row.agent, error=type(error).__name__)
            return False
        with self._parts.telemetry.prepared_turn(trace_context, target, row) as (turn_trace, span):
            builder = self._parts.authorizer.call_builder
            call = builder.build_call(grant, target, turn_trace, row.id, builder.deadline_for(caller, turn_trace))
            claimed = await self._claim(row, grant)
        log.info("turn_taken_up", task_id=row.id, agent=row.agent, runner=row.runner)
        session = session_id_of(row) if FEATURES in target.facts else ""
        message, answers = find_undelivered_answers(record) if target.kind == WORKFLOW_KIND else (NO_MESSAGE, ())
        turn = Turn(message, _decode_ref(row.vendor_ref), stream=True, session=session, answers=answers)
        held = self._stores.tasks.live_events(claimed)
        self._resumed_turns.take_over(
            caller,
            PreparedTurn(
                TurnState(claimed, ()),
                turn,
                call,
                adapter,
                live_events=held,
                reattaching_adapter=_ReattachingAdapter(adapter, record.to_task()),
                span=span,
            ),
        )
        return True

    async def _prepare_adapter(self, target: Registration, row: TaskRow) -> Adapter:
        """Returns the agent's adapter, which enforces the contract of the turn's skill. Raises UnknownKind."""
        await self._parts.upstreams.adapters.load(target.kind)
        adapter = self._parts.upstreams.adapters.adapter(target.kind, target.upstream)
        if not target.contracts:
            return adapter
        output = contract_of(target, await skill_begun_with(self._stores.tasks, row)).output
        return adapter if output is None else enforce_contract(adapter, output, self._stores.turn_limits)

    async def _claim(self, row: TaskRow, grant: Grant) -> TaskRow:
        """Makes this process the task's runner, in one commit with the decision. Raises TaskMoved if another process was faster."""
        stores, record = self._stores, decision_record(grant.decision, grant.delegation.principal)

        def work(batch: Batch) -> TaskRow:
            stores.audit.record(batch, record)
            return stores.tasks.claim(batch, row)

        return await stores.database.write(work)


def find_undelivered_answers(record: TaskRecord) -> tuple[Message, tuple[Answer, ...]]:
    """Returns the message that answers the task's open prompts, with its answers, if the turn that it began has not ended."""
    prompts = open_prompts(record.row.vendor_ref)
    for event in reversed(record.events) if prompts else ():
        if event.kind == "status" and event.status.state in INTERRUPTED:
            break
        if event.kind == "message" and event.message.role is Role.USER:
            with suppress(BadPromptAnswer):
                return event.message, find_answers(prompts, event.message)
            break
    return NO_MESSAGE, ()


class _ReattachingAdapter:
    """The adapter of a turn that another process started. If the agent cannot report the turn's outcome, the agent is told to stop."""

    def __init__(self, inner: Adapter, known_task: Task) -> None:
        self._inner = inner
        self._known_task = known_task

    async def run(self, turn: Turn, call: Call) -> AsyncIterator[Event]:
        inner = self._inner
        try:
            if not isinstance(inner, Reattachable):
                raise CannotReattach
            async with aclosing(cast("AsyncGenerator[Event, None]", inner.reattach(turn, self._known_task, call))) as events:
                async for event in events:
                    yield event
        except CannotReattach:
            stopped = await self._stop_agent(turn.ref or VendorRef(), call)
            yield Failed(STOPPED_TEXT if stopped else LOST_TEXT, kind=GATEWAY_FAILURE)

    async def cancel(self, ref: VendorRef, call: Call) -> bool:
        return await self._inner.cancel(ref, call)

    async def _stop_agent(self, ref: VendorRef, call: Call) -> bool:
        """Returns whether the agent confirms that it stopped."""
        try:
            async with asyncio.timeout(STOP_SECONDS):
                return await self._inner.cancel(ref, call)
        except (CannotCancel, UpstreamFault, TimeoutError):
            return False


_: type[Adapter] = _ReattachingAdapter
