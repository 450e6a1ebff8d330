"""Takeover: turns whose process is gone go on at their agents in another one; where that can't be, the agent is told to stop."""

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import cast

import msgspec
import structlog

from adapters.catalog import UnknownKind
from adapters.contract import Adapter, Call, CannotCancel, CannotReattach, Event, Failed, Reattachable, Turn, UpstreamFault, VendorRef
from adapters.task import Message, Role, Task
from gateway.calls.handoff import enforce_contract, skill_begun_with
from gateway.calls.outgoing.telemetry import resume_trace_context
from gateway.calls.outgoing.upstreams import TraceContext
from gateway.calls.parts import CallParts
from gateway.calls.resumption.resumed_turns import ResumedTurns
from gateway.calls.revocation.running import KILLED, PUBLIC_TEXTS
from gateway.calls.turns.runner import PreparedTurn
from gateway.storage.database import Batch, ReadFailed, WriteFailed
from gateway.tasks.contracts.skills import contract_of
from gateway.tasks.log import TaskEnded, TaskRecord, TaskRow
from gateway.tasks.reader import session_id_of
from gateway.tasks.turns.store import GATEWAY_FAILURE, TaskStores, TurnRecorder, TurnState
from policies.audit.log import decision_record
from policies.authority import Authority, RulingRequest
from policies.callers import CallerResolver
from policies.delegation.kills import Killed
from policies.delegation.rulings import Grant, act_of_invoking_agent
from policies.tokens.verifier import TokenRefused
from registry.cards.card import FEATURES, Registration
from registry.store import UnknownName

RESUMED, ENDED, MOVED = "resumed", "ended", "moved"  # what became of a task whose process is gone
LOGGED_TASKS_MAX = 20  # ids of one line of the log
STOP_SECONDS = 10.0  # for an agent to confirm that it stopped
LOST_TEXT = "The gateway stopped while the agent was at work; its outcome is not known."
LOST_HERE_TEXT = "The gateway lost sight of the agent; its outcome is not known."
STOPPED_TEXT = "The gateway stopped while the agent was at work, and could not go on there later. The agent was told to stop."
NO_MESSAGE = Message("", Role.USER, ())
log = structlog.get_logger()
_decode_ref = msgspec.json.Decoder(VendorRef).decode


class Takeover:
    """Looks for tasks that nobody works on: of processes that are gone, and of this one when it has lost sight of them.

    One process takes each up: it claims the task's row, which shuts out every other process, the lost one included. A turn that goes on
    does so by the grant that it began with, as it holds now.
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
        """Takes up or ends what nobody works on; returns how many tasks that were."""
        async with self._round_lock:
            found = [row for row in await self._stores.tasks.find_orphans() if not self._is_handled_here(row.id)]
            random.shuffle(found)  # so that processes which look at the same moment begin with different ones
            outcomes = {row.id: await self._one_alone(row) for row in found}
        resumed, failed = ([task for task, outcome in outcomes.items() if outcome == wanted] for wanted in (RESUMED, ENDED))
        if resumed or failed:
            given = {"resumed_tasks": resumed[:LOGGED_TASKS_MAX], "failed_tasks": failed[:LOGGED_TASKS_MAX]}
            log.warning("tasks_recovered", count=len(resumed) + len(failed), resumed=len(resumed), failed=len(failed), **given)
        return len(resumed) + len(failed)

    def _is_handled_here(self, task_id: str) -> bool:
        """Whether this process works on the task, or still has its ending to write."""
        return task_id in self._parts.in_flight or self._turns.has_deferred_ending(task_id)

    async def _one_alone(self, row: TaskRow) -> str:
        """As `_one`, but logs what fails for this task, so that the round goes on with the others. The next round tries again."""
        with resume_trace_context(row.trace) as trail:
            try:
                return await self._take_up_or_end(row, trail)
            except (WriteFailed, ReadFailed):  # the database says so itself
                log.debug("takeover_failed", task_id=row.id, exc_info=True)
            except Exception:  # the root of what becomes of one task
                log.exception("takeover_failed", task_id=row.id, agent=row.agent)
            return MOVED

    async def _take_up_or_end(self, row: TaskRow, trail: TraceContext) -> str:
        """RESUMED, ENDED, or MOVED for a task that changed since it was looked at, and so is not lost."""
        record = await self._stores.tasks.read_record(row.tenant, row.owner, row.id)
        if record.row.runner != row.runner:
            return MOVED
        ending = Failed(LOST_HERE_TEXT if row.runner == self._stores.tasks.runner else LOST_TEXT, kind=GATEWAY_FAILURE)
        try:
            if _decode_ref(record.row.vendor_ref).task_id and await self._take_up(record, trail):
                return RESUMED
        except TaskEnded:
            return MOVED
        except UpstreamFault as fault:
            log.warning("turn_not_taken_up", task_id=row.id, agent=row.agent, error=fault.public)
        except Killed:
            ending = Failed(PUBLIC_TEXTS[KILLED], kind=KILLED)
        return ENDED if await self._turns.end_lost_task(record, ending) else MOVED

    async def _take_up(self, record: TaskRecord, trail: TraceContext) -> bool:
        """False where the authority does not hold any more, or the agent is not known here.

        Raises TaskEnded, Killed, and UpstreamFault where the agent can't be called with what is configured here.
        """
        row = record.row
        try:
            caller = await self._callers.resolve_agent_in_turn(row.tenant, row.agent, row.grant_id)
            target = self._parts.callees.find_visible(caller, row.agent)  # one that is down may be back by now
            grant = self._authority.grant_continuation(
                caller, RulingRequest(act_of_invoking_agent(row.agent), row.tenant, task_id=row.id, txn=row.txn)
            )
            adapter = await self._prepare_adapter(target, row)
        except (TokenRefused, UnknownName, UnknownKind) as error:
            log.info("turn_not_taken_up", task_id=row.id, agent=row.agent, error=type(error).__name__)
            return False
        with self._parts.telemetry.prepared_turn(trail, target, row) as (onward, span):
            builder = self._parts.authorizer.call_builder
            call = builder.build_call(grant, target, onward, row.id, builder.deadline_for(caller, onward))
            claimed = await self._claim(row, grant)
        log.info("turn_taken_up", task_id=row.id, agent=row.agent, runner=row.runner)
        session = session_id_of(row) if FEATURES in target.facts else ""
        turn = Turn(NO_MESSAGE, _decode_ref(row.vendor_ref), stream=True, session=session)
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
        """The agent's, within the contract that its turn was begun with. Raises UnknownKind."""
        await self._parts.upstreams.adapters.load(target.kind)
        adapter = self._parts.upstreams.adapters.adapter(target.kind, target.upstream)
        if not target.contracts:
            return adapter
        output = contract_of(target, await skill_begun_with(self._stores.tasks, row)).output
        return adapter if output is None else enforce_contract(adapter, output, self._stores.turn_limits)

    async def _claim(self, row: TaskRow, grant: Grant) -> TaskRow:
        """The task under this process, in one commit with the decision. Raises TaskEnded when somebody else was faster."""
        memory, record = self._stores, decision_record(grant.decision, grant.delegation.principal)

        def work(batch: Batch) -> TaskRow:
            memory.audit.record(batch, record)
            return memory.tasks.claim(batch, row)

        return await memory.database.write(work)


class _ReattachingAdapter:
    """The Adapter of a turn that another process began. Where its agent can't be asked what became of it, it is told to stop."""

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
        """Whether the agent confirms that it stopped."""
        try:
            async with asyncio.timeout(STOP_SECONDS):
                return await self._inner.cancel(ref, call)
        except (CannotCancel, UpstreamFault, TimeoutError):
            return False


_: type[Adapter] = _ReattachingAdapter
