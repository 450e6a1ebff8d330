"""Cancellation: stops a task at its agent, then the tasks that it caused, and reports those that could not be stopped."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import structlog
from msgspec import Struct
from msgspec.structs import asdict, replace

from adapters.contract import Canceled, CannotCancel, UpstreamFault, VendorRef
from adapters.task import INTERRUPTED
from gateway.calls.authorizer import CallAuthorizer
from gateway.calls.limits.meters import LimitReached
from gateway.calls.outgoing.upstreams import Upstreams
from gateway.storage.database import ReadFailed, WriteFailed
from gateway.tasks.contracts.prompts import with_prompts
from gateway.tasks.log import RUNNING_STATES, TaskRow
from gateway.tasks.turns.in_flight import HeldShare, InFlight
from gateway.tasks.turns.recorder import EndingNotWritten, TurnRecorder, TurnState
from gateway.tasks.turns.stores import TaskStores
from gateway.telemetry.spans import TraceContext
from policies.authority import RulingRequest
from policies.callers import Caller
from policies.delegation.chain import CannotNarrow, Hop
from policies.delegation.history import VERB_STOP_TASK
from policies.delegation.permissions import parse_ceiling
from policies.delegation.rulings import Act, act_of_invoking_agent
from registry.cards.card import Registration, RegistrationStatus
from registry.store import Registry, UnknownName

AGENT_STOP_SECONDS = 30.0  # an agent's time to stop
DESCENDANTS_SECONDS = 10.0  # the time for all agents of the tasks that it caused
CONCURRENT_MAX = 16  # of those tasks are canceled at the same time
SEARCH_ROUNDS = 4  # searches for tasks that were opened during the cancellation
CAUSED_TASKS_KEY = "urn:interlock:a2a:caused-tasks"  # in metadata
VENDOR_REF_SECONDS = 1.0  # to wait until the agent has named its task
POLL_SECONDS = 0.1  # between two reads of the task
CANCEL_TASK = Act("writePolicy", "Key", "tasks", "policy:write", "tasks", "cancel-task")  # of an operator: a task of another person
WITHDRAWN_TEXT = (
    "Canceled by the gateway. The agent cannot be stopped, so it may continue by itself, but it can do nothing more on your behalf."
)
DROPPED_TEXT = "Canceled by the gateway. The agent was not informed: it may keep its question open, and gets no answer to it."
log = structlog.get_logger()
_decode_ref = msgspec.json.Decoder(VendorRef).decode


class NotCancelable(Exception):
    """The agent refuses to stop, or the task has ended already."""


class NotCanceledTask(Struct, frozen=True):
    """A task that continues although the task that caused it was canceled."""

    task_id: str
    agent: str
    reason: str  # not-cancelable | unreachable | late | not-kept


class CanceledTask(TurnState, frozen=True):
    """A canceled task, the number of caused tasks that were canceled with it, and those that were not."""

    canceled_count: int = 0
    not_canceled: tuple[NotCanceledTask, ...] = ()


class Cancellation:
    """Stops tasks, for their owners without a policy, and for operators, who are authorized before. Cancellation works while the database
    cannot be written.
    """

    def __init__(
        self,
        registry: Registry,
        authorizer: CallAuthorizer,
        upstreams: Upstreams,
        *,
        stores: TaskStores,
        turns: TurnRecorder,
        in_flight: InFlight,
    ) -> None:
        self._registry = registry
        self._authorizer = authorizer
        self._stores = stores
        self._upstreams = upstreams
        self._turns = turns
        self._in_flight = in_flight
        self._stopping: set[str] = set()  # tasks whose agent is being asked in the slot of their turn

    async def cancel(self, caller: Caller, row: TaskRow, trace_context: TraceContext) -> CanceledTask:
        """Asks the agent to stop, and then the agents of all tasks that this task caused. A task that is not canceled keeps the tasks
        that it caused.

        Raises NotCancelable, UpstreamFault for an unreachable agent, EndingNotWritten, and LimitReached if no slot is free.
        """
        try:
            canceled = await self._cancel_one(caller, row, trace_context, AGENT_STOP_SECONDS)
        except EndingNotWritten:
            self._in_flight.abandon_turn(row.id)
            await self._cancel_descendants(caller, row, trace_context)
            raise
        self._in_flight.abandon_turn(row.id)
        self._stores.grants.invalidate()
        stopped, unstopped = await self._cancel_descendants(caller, row, trace_context)
        return CanceledTask(canceled.row, canceled.events, canceled_count=stopped, not_canceled=unstopped)

    async def _cancel_descendants(
        self, caller: Caller, row: TaskRow, trace_context: TraceContext
    ) -> tuple[int, tuple[NotCanceledTask, ...]]:
        """Stops the tasks that a task caused, until a search finds no further one. Returns the number of canceled tasks, and the others."""
        deadline = asyncio.get_running_loop().time() + DESCENDANTS_SECONDS
        outcomes: dict[str, NotCanceledTask | None] = {}
        places = asyncio.Semaphore(CONCURRENT_MAX)

        async def stop(one: TaskRow) -> None:
            async with places:
                outcomes[one.id] = await self._cancel_descendant(caller, one, trace_context, deadline)
                if outcomes[one.id] is None:
                    self._in_flight.abandon_turn(one.id)

        for _ in range(SEARCH_ROUNDS):
            fresh = [one for one in await self._open_descendants(row) if one.id not in outcomes]
            if not fresh:
                break
            await asyncio.gather(*(stop(one) for one in fresh))
        unstopped = tuple(outcome for outcome in outcomes.values() if outcome is not None)
        if outcomes:
            log.info("caused_tasks_canceled", task_id=row.id, canceled=len(outcomes) - len(unstopped), left=len(unstopped))
        return len(outcomes) - len(unstopped), unstopped

    async def _open_descendants(self, row: TaskRow) -> list[TaskRow]:
        try:
            return await self._stores.tasks.open_descendants(row)
        except ReadFailed:
            return []

    async def _cancel_descendant(
        self, caller: Caller, row: TaskRow, trace_context: TraceContext, deadline: float
    ) -> NotCanceledTask | None:
        """Cancels a caused task. Returns None if it is canceled or has ended, else the reason why not."""
        left = deadline - asyncio.get_running_loop().time()
        if left <= 0:
            return NotCanceledTask(row.id, row.agent, "late")
        try:
            async with asyncio.timeout(left):
                await self._cancel_one(caller, row, trace_context, left)
        except NotCancelable:
            return await self._still_running(row)
        except UpstreamFault:
            return NotCanceledTask(row.id, row.agent, "unreachable")
        except (TimeoutError, LimitReached):
            return NotCanceledTask(row.id, row.agent, "late")
        except (EndingNotWritten, WriteFailed, ReadFailed):
            return NotCanceledTask(row.id, row.agent, "not-kept")
        return None

    async def _still_running(self, row: TaskRow) -> NotCanceledTask | None:
        """Returns the report on a task whose agent does not stop; None if the task has ended by itself."""
        try:
            now = await self._stores.tasks.find(row.tenant, row.owner, row.id)
        except ReadFailed:
            return NotCanceledTask(row.id, row.agent, "not-kept")
        return None if now.has_ended else NotCanceledTask(row.id, row.agent, "not-cancelable")

    async def _cancel_one(self, caller: Caller, row: TaskRow, trace_context: TraceContext, seconds: float) -> TurnState:
        """Ends one task and returns its state. If the agent cannot be stopped, the task is canceled in the gateway alone."""
        if row.has_ended:
            raise NotCancelable
        row = await self._wait_for_vendor_ref(row)
        ref = _decode_ref(row.vendor_ref)
        agent_stopped = bool(ref.task_id) and await self._stop_at_agent(caller, row, ref, trace_context, seconds)
        record = await self._stores.tasks.read_record(row.tenant, row.owner, row.id)
        now = TurnState(record.row, record.events)
        if now.row.has_ended:
            if not agent_stopped:
                raise NotCancelable
            return now
        log.info("task_canceled", task_id=row.id, agent=row.agent, told=agent_stopped)
        if agent_stopped:  # the agent has withdrawn its question, so the conversation is free for other tasks
            now = replace(now, row=replace(now.row, vendor_ref=with_prompts(now.row.vendor_ref, ())))
        status_text = DROPPED_TEXT if now.row.state in INTERRUPTED else WITHDRAWN_TEXT
        return await self._turns.stop_task(
            now, Canceled(None if agent_stopped else self._turns.transitions.gateway_message(now.row, status_text))
        )

    async def _wait_for_vendor_ref(self, row: TaskRow) -> TaskRow:
        """Returns the task when its agent has named it, at the latest after VENDOR_REF_SECONDS."""
        until = asyncio.get_running_loop().time() + VENDOR_REF_SECONDS
        while row.state in RUNNING_STATES and not _decode_ref(row.vendor_ref).task_id and asyncio.get_running_loop().time() < until:
            await asyncio.sleep(POLL_SECONDS)
            row = await self._stores.tasks.find(row.tenant, row.owner, row.id)
        return row

    async def _stop_at_agent(self, caller: Caller, row: TaskRow, ref: VendorRef, trace_context: TraceContext, seconds: float) -> bool:
        """Returns whether the agent stopped; False if it cannot be asked. Raises NotCancelable, UpstreamFault and LimitReached."""
        target = self._find_callable_agent(row)
        if target is None:
            return False
        async with self._agent_slot(caller, target, row.id, seconds):
            return await self._ask_to_stop(caller, row, target, ref, trace_context, seconds=seconds)

    @asynccontextmanager
    async def _agent_slot(self, caller: Caller, target: Registration, task_id: str, seconds: float) -> AsyncIterator[None]:
        """Holds a slot for the request to stop an agent. Raises LimitReached.

        The slot is that of the turn if it is in flight here, for one request at a time, else a new one.
        """
        slots, own = self._upstreams.slots, task_id in self._in_flight and task_id not in self._stopping
        slot: HeldShare | None = None
        if own:
            self._stopping.add(task_id)
        else:
            until = asyncio.get_running_loop().time() + seconds
            slot = slots.try_acquire(caller, target) or await slots.wait_for_slot(
                caller, target, replace(act_of_invoking_agent(target.name), verb=VERB_STOP_TASK), until
            )
        try:
            yield
        finally:
            self._stopping.discard(task_id) if slot is None else slot.free()

    async def _ask_to_stop(
        self, caller: Caller, row: TaskRow, target: Registration, ref: VendorRef, trace_context: TraceContext, *, seconds: float
    ) -> bool:
        """Sends the request to stop, with `seconds` for the agent to answer, and returns whether the agent stopped.

        `ref` names the task at the agent. Raises NotCancelable and UpstreamFault.
        """
        request = RulingRequest(
            act=act_of_invoking_agent(row.agent),
            tenant=row.tenant,
            task_id=row.id,
            txn=row.txn,
            trace_id=trace_context.trace_id,
        )
        try:
            callee, is_own = Hop(row.agent, parse_ceiling(target.ceiling)), row.owner == caller.principal.owner_key
            grant = self._authorizer.grant_stop(caller, request, callee, is_own=is_own)
        except CannotNarrow:
            return False
        call = self._authorizer.call_builder.build_call(grant, target, trace_context, row.id)
        await self._authorizer.record_or_spool(grant, call)
        call = replace(call, deadline=min(call.deadline, asyncio.get_running_loop().time() + seconds))
        await self._upstreams.adapters.load(target.kind)
        try:
            confirmed = await self._upstreams.adapters.adapter(target.kind, target.upstream).cancel(ref, call)
        except CannotCancel:
            return False
        except UpstreamFault as fault:
            if row.state not in INTERRUPTED:
                raise
            log.warning("question_not_withdrawn", task_id=row.id, agent=row.agent, problem=fault.public, detail=fault.detail)
            return False
        if not confirmed:
            raise NotCancelable
        return True

    def _find_callable_agent(self, row: TaskRow) -> Registration | None:
        """Returns the agent if it is registered and active."""
        try:
            found = self._registry.find(row.tenant, row.agent)
        except UnknownName:
            return None
        return found if found.status is RegistrationStatus.ACTIVE else None


def caused_tasks_metadata(canceled: CanceledTask, name_tasks: bool) -> dict[str, object]:
    """Returns the counts of caused tasks for the metadata of the response. Without `name_tasks` it gives the reasons alone."""
    left = [asdict(one) if name_tasks else {"reason": one.reason} for one in canceled.not_canceled]
    return {"canceled": canceled.canceled_count, "not_canceled": left} if canceled.canceled_count or left else {}
