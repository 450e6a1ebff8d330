"""The broker: find, allow, keep, send. The only file that knows the order, for every door alike."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial

import msgspec
import structlog

from adapters.a2a_client.wire.v1 import BadMessage
from adapters.contract import Call, ConsentNeeded, Failed, NotSent, UpstreamFault
from adapters.mcp_client.wire.messages import McpAnswer, McpRefused, McpRequest
from adapters.task import Message
from adapters.upstream.targets import EgressRefused
from gateway.calls.authorizer import CallAuthorizer, retry_while_history_changes
from gateway.calls.cancellation import CanceledTask, Cancellation
from gateway.calls.limits.limits import LimitReached, PayloadTooLarge, TooManyCalls, release
from gateway.calls.limits.pausable_timeout import call_with_pausable_timeout
from gateway.calls.limits.slots import ShareUsed
from gateway.calls.outgoing.telemetry import TOOL_ERROR, CallTelemetry, is_tool_error
from gateway.calls.outgoing.upstreams import ToolServers, TraceContext, Upstreams
from gateway.calls.pausing import PausedTask, TaskPausing
from gateway.calls.requests import (
    AgentRequest,
    AuthorizedRequest,
    ListenRequest,
    ToolServerRequest,
    check_handoff,
    combine_writes,
    new_task_row,
    pending_message_of,
    prepare_turn,
    restore_pending_message,
    ruling_request_for_agent,
    ruling_request_for_listening,
    ruling_request_for_server,
    webhook_write,
    with_grant,
)
from gateway.calls.revocation.running import RunningWorkStopper
from gateway.calls.running import PreparedTurn, TurnRunner
from gateway.calls.targets.callees import Callees
from gateway.calls.targets.front_door import FrontDoor
from gateway.calls.targets.unknown_names import UnknownNameDenials, UnknownNameDenied
from gateway.tasks.contracts.prompts import BadPromptAnswer
from gateway.tasks.log import RUNNING_STATES, IdempotencyKeyUsed, TaskEnded, TaskRecord, TaskRow, UnknownTask
from gateway.tasks.reader import TaskReader, front_door_idempotency_key
from gateway.tasks.turns.in_flight import HeldShare, InFlight
from gateway.tasks.turns.store import TaskStores, TurnRecorder, TurnState
from gateway.tasks.watcher import PausedTaskWatcher
from gateway.telemetry.spans import note_outcome
from policies.authority import RulingRequest
from policies.callers import Caller
from policies.delegation.history import VERB_STOP_TASK
from policies.delegation.rulings import Grant, Question
from registry.cards.card import Family, Registration
from registry.names import FRONT_DOOR
from registry.store import Registry, UnknownName

__all__ = ["AgentRequest", "Broker", "ListenRequest", "ToolServerRequest"]
log = structlog.get_logger()


TaskBeforeAndAfter = tuple[TaskRow | None, TaskRow]  # a task as it was, if it is not new, and as it is to be


class Broker:
    """Every door calls it; it talks to adapters, stores and the authority on their behalf."""

    def __init__(
        self,
        registry: Registry,
        authorizer: CallAuthorizer,
        stores: TaskStores,
        upstreams: Upstreams,
        front_door: FrontDoor,
        *,
        calls: CallTelemetry,
    ) -> None:
        self._front_door = front_door
        self._authorizer = authorizer
        self._stores = stores
        self._upstreams = upstreams
        self.call_telemetry = calls
        self.callees = Callees(registry, authorizer, front_door, upstreams.absences)
        self._turns = TurnRecorder(stores)
        self._reader = TaskReader(stores.tasks)
        self._in_flight = InFlight()
        self._watcher = PausedTaskWatcher(stores.tasks, stores.now)
        self.turn_runner = TurnRunner(authorizer, stores, self._turns, self._in_flight, self._watcher, calls=calls)
        self.stopper = RunningWorkStopper(stores, self._turns, self._in_flight, self._watcher)
        self.pausing = TaskPausing(authorizer, stores, self._turns)
        self.unknown_name_denials = UnknownNameDenials(self.callees, authorizer, upstreams.limits)
        self._cancellation = Cancellation(registry, authorizer, upstreams, stores=stores, turns=self._turns, in_flight=self._in_flight)

    async def send(self, caller: Caller, request: AgentRequest) -> TurnState:
        """Delegates and waits until the agent ends its turn."""
        ready = await self._prepare(caller, request)
        if isinstance(ready, TurnState):
            return ready
        turned = _check_answer_accepted(await self.turn_runner.run(ready))
        return await self._reader.read_whole(turned) if request.message.task_id else turned

    async def start(self, caller: Caller, request: AgentRequest) -> TurnState:
        """Delegates and returns at once; the turn goes on whatever becomes of the caller."""
        ready = await self._prepare(caller, msgspec.structs.replace(request, is_watched=True))
        if isinstance(ready, TurnState):
            return ready
        self.turn_runner.run_in_background(ready)
        return await self._reader.read_whole(ready.opened) if request.message.task_id else ready.opened

    async def _prepare(self, caller: Caller, request: AgentRequest) -> PreparedTurn | TurnState:
        """Chooses the agent where the message goes to the front door, and prepares the call. A name that is unknown is denied on record."""
        if request.agent == FRONT_DOOR:
            request = msgspec.structs.replace(request, idempotency_key=front_door_idempotency_key(request.idempotency_key))
            if (repeated := await self._find_repeated(caller, request)) is not None:  # whoever fits by now
                return repeated
            chosen = await self._front_door.agent_for(caller, request.message, request.skill)
            request = msgspec.structs.replace(request, agent=chosen)
        try:
            return await self._find_and_open(caller, request)
        except UnknownNameDenied:
            raise  # its denial is kept already
        except UnknownName as unknown:
            await self.unknown_name_denials.check_name(unknown, caller, request.agent, request.message, request.trace_context.trace_id)
            raise

    async def _find_and_open(self, caller: Caller, request: AgentRequest) -> PreparedTurn | TurnState:
        if (repeated := await self._find_repeated(caller, request)) is not None:
            return repeated
        before = await self._find_continued_task(caller, request)
        target, slots = self.callees.find(caller, request.agent, Family.AGENT), self._upstreams.slots
        row, parent = before or new_task_row(self._stores, caller, request), caller.delegation.task_id
        self._in_flight.add_turn(row.id, parent)
        if before:
            self._watcher.stop_watching(row.id)
        try:
            if target.family is Family.SERVER:
                self.callees.find_visible(caller, target.name)
            goes = restore_pending_message(request, before)
            asked = ruling_request_for_agent(goes, target, row)
            try:
                self._in_flight.hold_shares(row.id, self._upstreams.limits.acquire(caller, asked.act, goes.message))
                last = self._authorizer.call_builder.deadline_for(caller, request.trace_context)
                slot = slots.try_acquire(caller, target) or await slots.wait_for_slot(caller, target, asked.act, last)
            except (LimitReached, PayloadTooLarge) as refused:
                await self.unknown_name_denials.check_limit(refused, caller, asked.act, request.message, request.trace_context.trace_id)
                raise
            self._in_flight.hold_shares(row.id, (slot,))
            ready = await retry_while_history_changes(partial(self._authorize_and_open, caller, goes, target, asked, (before, row)))
            if isinstance(ready, TurnState):
                self._in_flight.remove_turn(row.id, parent)  # it waits
            return ready
        except IdempotencyKeyUsed:
            self._in_flight.remove_turn(row.id, parent)
            if (repeated := await self._find_repeated(caller, request)) is None:
                raise
            return repeated
        except BaseException:
            self._in_flight.remove_turn(row.id, parent)
            raise

    async def _authorize_and_open(
        self,
        caller: Caller,
        request: AgentRequest,
        target: Registration,
        ruling_request: RulingRequest,
        previous_and_new: TaskBeforeAndAfter,
    ) -> PreparedTurn | TurnState:
        """Ruled on and kept; nothing has left yet."""
        before, row = previous_and_new
        if before and request.logged_message and not request.continues_decision_id:
            ruling_request = await self.pausing.with_earlier_approval(caller, ruling_request, target, before)
        grant = await self._authorizer.rule(caller, ruling_request)
        check_handoff(request, target, before)
        message = msgspec.structs.replace(request.logged_message or request.message, context_id=row.context_id, task_id=row.id)
        if isinstance(grant, Question):
            waiting = PausedTask(row, before, message, target, pending_message_of(request), webhook_write(request, row, before))
            return await self.pausing.pause(caller, waiting, ruling_request, grant)
        row, left = self.pausing.resumable_grant(caller, target, with_grant(row, grant))
        opened = (
            self._turns.transitions.resumed_events(before, row, message)
            if before
            else TurnState(*self._stores.tasks.opening_events(row, message))
        )
        turn, adapter = await prepare_turn(self._stores, self._upstreams.adapters, request, AuthorizedRequest(grant, target, row, before))
        last = min(self._in_flight.deadline_of(row.parent_id), self._authorizer.call_builder.deadline_for(caller, request.trace_context))
        with self.call_telemetry.prepared_turn(request.trace_context, target, row) as (trail, span):
            call = self._authorizer.call_builder.build_call(grant, target, trail, row.id, last)
            held = self._stores.tasks.live_events(row) if request.is_watched else None
            await self._authorizer.record_task_opening(
                call, opened, before, combine_writes(webhook_write(request, opened.row, before), left)
            )
        return PreparedTurn(opened, turn, call, adapter, caller.delegation.task_id, held, span=span)

    async def _find_continued_task(self, caller: Caller, request: AgentRequest) -> TaskRow | None:
        """The task that the message answers, if it names one (A2A 1.0 s3.4)."""
        message = request.message
        if not message.task_id:
            return None
        try:
            row = await self._reader.find_row(caller, request.agent, message.task_id)
        except UnknownTask:
            self.callees.find_visible(caller, request.agent)  # as without a task: an agent that may not be known is not there
            raise
        check_answerable(row, message)
        await self.pausing.check_answerable(row, message)
        return row

    async def _find_repeated(self, caller: Caller, request: AgentRequest) -> TurnState | None:
        key = request.idempotency_key
        return (
            None
            if key is None
            else await self._reader.find_repeated(caller, request.agent, key, request.message, wait_for_end=not request.is_watched)
        )

    async def call_server(self, caller: Caller, request: ToolServerRequest) -> McpAnswer:
        """Asks an MCP server: a decision and its record, but no task. A request that stops an earlier one is never rate-limited."""
        target, limits, slots = self.callees.find(caller, request.server, Family.SERVER), self._upstreams.limits, self._upstreams.slots
        shares: Sequence[HeldShare] = (
            () if request.act.verb == VERB_STOP_TASK else limits.acquire(caller, request.act, request.request.params)
        )
        kept: Grant | None = None
        outcome = "failed"
        try:
            slot = slots.try_acquire(caller, target) or await slots.wait_for_slot(
                caller, target, request.act, self._authorizer.call_builder.deadline_for(caller, request.trace_context)
            )
            shares = (*shares, slot)
            kept = grant = await self._authorizer.authorize(
                caller, ruling_request_for_server(target, request), target, request.request.params
            )
            last = min(
                self._in_flight.deadline_of(caller.delegation.task_id),
                self._authorizer.call_builder.deadline_for(caller, request.trace_context),
            )
            call = self._authorizer.call_builder.build_call(grant, target, request.trace_context, grant.decision.id, last)
            answer = await _counted(
                self.call_telemetry,
                partial(_call_and_log_failure, self._upstreams.tool_servers, call, request.request, self._in_flight),
                call,
                request,
            )
            outcome = "ok"
            return McpAnswer(answer.result, grant.decision.id) if _must_name_decision(grant) else answer
        except ConsentNeeded:
            if kept is not None:
                await self.pausing.return_approval(kept)
            raise
        finally:
            release(shares)
            if kept is not None:
                self._authorizer.record_outcome(kept, outcome)

    async def listen(self, caller: Caller, request: ListenRequest) -> None:
        """Listens to an MCP server until it ends the stream; a decision and its record, as for a read."""
        target = self.callees.find(caller, request.server, Family.SERVER)
        grant = await self._authorizer.authorize(caller, ruling_request_for_listening(target, request))
        call = self._authorizer.call_builder.build_call(grant, target, request.trace_context, grant.decision.id)
        await _listen_to_server(self._upstreams, caller, call, request, self._in_flight)

    async def cancel(self, caller: Caller, agent: str, task_id: str, trace_context: TraceContext) -> CanceledTask:
        """Has a task of the caller's stopped, and those it caused. Raises as Cancellation does, and UnknownTask."""
        return await self._cancellation.cancel(caller, await self._reader.find_row(caller, agent, task_id), trace_context)

    async def resume(self, caller: Caller, row: TaskRow, prepared_turn: PreparedTurn) -> None:
        """Keeps and runs a turn of a task that waited until now. Raises TooManyCalls, for which it waits on, and as Ledger.open."""
        opened, call = prepared_turn.opened, prepared_turn.call
        shares = await _release_on_failure(
            _acquire_concurrency(self._upstreams, caller, call), self._authorizer.record_task_opening(call, opened, row)
        )
        self._in_flight.add_turn(opened.row.id, "")
        self._in_flight.hold_shares(opened.row.id, shares)
        self.turn_runner.run_in_background(prepared_turn)

    def is_handling(self, task_id: str) -> bool:
        """Whether the task is worked on here, or its ending is still to be kept."""
        return task_id in self._in_flight or self._turns.has_deferred_ending(task_id)

    async def end_lost_task(self, record: TaskRecord, failure: Failed) -> bool:
        """Ends a task that nobody works on; False when it moved since it was looked at."""
        return await self._turns.end_lost_task(record, failure)

    def take_over(self, caller: Caller, prepared_turn: PreparedTurn) -> None:
        """Runs a turn that another process began, whose task is this process's now. It counts in its limits, and is not refused by them."""
        shares: Sequence[HeldShare] = ()
        with suppress(TooManyCalls):
            shares = _acquire_concurrency(self._upstreams, caller, prepared_turn.call)
        self._in_flight.add_turn(prepared_turn.opened.row.id, "")
        self._in_flight.hold_shares(prepared_turn.opened.row.id, shares)
        self.turn_runner.run_in_background(prepared_turn)

    async def close(self) -> None:
        """Waits a moment for turns under way; what is still running then is for another process to go on with."""
        await self.turn_runner.close()
        await self.stopper.close()
        await self._turns.close()


def _acquire_concurrency(upstreams: Upstreams, caller: Caller, call: Call) -> Sequence[HeldShare]:
    """What a turn takes that was counted when it was asked for, and had to wait. Raises TooManyCalls, and then took nothing."""
    shares = upstreams.limits.acquire_concurrency(caller, call.grant.decision.act)
    slot = upstreams.slots.try_acquire(caller, call.target)
    if slot is None:
        release(shares)
        raise ShareUsed("As many calls are under way as may be.", 1)
    return (*shares, slot)


def check_answerable(row: TaskRow, message: Message) -> None:
    """Whether a message can answer the task that it names. Raises BadMessage and TaskEnded."""
    if message.context_id and message.context_id != row.context_id:
        raise BadMessage("message.contextId", "is not the context of the task named in message.taskId")
    if row.has_ended or row.state in RUNNING_STATES:
        raise TaskEnded


def _check_answer_accepted(turned: TurnState) -> TurnState:
    """Raises BadAnswer where the agent refused the answer that the turn brought."""
    if turned.is_answer_refused:
        raise BadPromptAnswer(
            "message.parts", "is not taken as an answer by the agent, and the task still waits: its message says for what"
        )
    return turned


async def _release_on_failure(shares: Sequence[HeldShare], writing: Awaitable[None]) -> Sequence[HeldShare]:
    """The shares, once it is kept; they are given back where it is not."""
    try:
        await writing
    except BaseException:
        release(shares)
        raise
    return shares


def _must_name_decision(grant: Grant) -> bool:
    """Whether what goes on from this act has to name it: where people approved of it, or where an errand counted it."""
    counted = grant.history_mark is not None and grant.history_mark.version is not None and grant.decision.txn
    return bool(grant.decision.approval or counted)


async def _counted(calls: CallTelemetry, ask: Callable[[], Awaitable[McpAnswer]], call: Call, asked: ToolServerRequest) -> McpAnswer:
    """A server's answer, counted with its duration. A result with `isError` counts as a failure of the tool."""
    began, outcome = time.perf_counter(), "failed"
    try:
        answer = await ask()
        outcome = "ok"
        if asked.request.method == "tools/call" and is_tool_error(answer.result):
            outcome = TOOL_ERROR
            note_outcome(TOOL_ERROR)
        return answer
    except asyncio.CancelledError:
        outcome = "canceled"
        raise
    finally:
        calls.count(call.target, outcome, began)


async def _listen_to_server(upstreams: Upstreams, caller: Caller, call: Call, request: ListenRequest, in_flight: InFlight) -> None:
    slot = upstreams.listening_slots.try_acquire(caller, call.target)
    if slot is None:
        raise NotSent("As many streams with servers are open as your share allows", call.target.name)
    waiting = in_flight.begin_call(call.grant)
    try:
        await upstreams.tool_servers.listen(call, request.notifications_wanted, request.listener, request.session)
    except asyncio.CancelledError:
        in_flight.raise_if_abandoned(waiting)
        raise
    finally:
        slot.free()
        in_flight.end_call(waiting)


async def _call_and_log_failure(tools: ToolServers, call: Call, request: McpRequest, in_flight: InFlight) -> McpAnswer:
    """What the server answers; the log hears of it when it does not."""
    peer, waiting = request.peer, in_flight.begin_call(call.grant)
    try:
        if peer is not None and peer.capabilities:
            return await call_with_pausable_timeout(tools.call, call, request, peer)
        return await tools.call(call, request)
    except (UpstreamFault, EgressRefused, McpRefused) as fault:
        if isinstance(fault, McpRefused) and fault.has_next_step:
            raise
        detail = fault.cause if isinstance(fault, UpstreamFault) else fault.detail if isinstance(fault, McpRefused) else ""
        log.warning("server_failed", server=call.target.name, decision_id=call.grant.decision.id, problem=fault.public, detail=detail)
        raise
    except asyncio.CancelledError:
        in_flight.raise_if_abandoned(waiting)
        raise
    finally:
        in_flight.end_call(waiting)
