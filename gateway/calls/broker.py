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
from gateway.calls.authorizer import Ledger, while_moving
from gateway.calls.cancellation import Cancellation, Stopped
from gateway.calls.limits.limits import LimitReached, PayloadTooLarge, TooManyCalls, leave
from gateway.calls.limits.pausable_timeout import patient
from gateway.calls.limits.slots import ShareUsed
from gateway.calls.outgoing.telemetry import TOOL_ERROR, UpstreamCalls, is_tool_error
from gateway.calls.outgoing.upstreams import Outside, ToolServers, Trail
from gateway.calls.pausing import Parking, Waiting
from gateway.calls.requests import (
    Allowed,
    Sending,
    ServerCall,
    ServerListening,
    asked_of,
    check_handoff,
    granted,
    kept_beside,
    kept_webhook,
    listening_of,
    meant,
    new_row,
    outgoing_of,
    request_of,
    turn_for,
)
from gateway.calls.revocation.running import Halt
from gateway.calls.running import Ready, Running
from gateway.calls.targets.callees import Callees
from gateway.calls.targets.front_door import FrontDoor
from gateway.calls.targets.unknown_names import UnknownNames, Unseen
from gateway.tasks.contracts.prompts import BadAnswer
from gateway.tasks.log import RUNNING, KeyUsed, TaskEnded, TaskRecord, TaskRow, UnknownTask
from gateway.tasks.reader import TaskReader, front_door_key
from gateway.tasks.turns.in_flight import Share, UnderWay
from gateway.tasks.turns.store import Memory, Turned, Turns
from gateway.tasks.watcher import Vigil
from gateway.telemetry.spans import note_outcome
from policies.authority import Request
from policies.callers import Caller
from policies.delegation.history import STOP
from policies.delegation.rulings import Grant, Question
from registry.cards.card import Family, Registration
from registry.names import FRONT_DOOR
from registry.store import Registry, UnknownName

__all__ = ["Broker", "Sending", "ServerCall", "ServerListening"]
log = structlog.get_logger()


Rows = tuple[TaskRow | None, TaskRow]  # a task as it was, if it is not new, and as it is to be


class Broker:
    """Every door calls it; it talks to adapters, stores and the authority on their behalf."""

    def __init__(
        self, registry: Registry, ledger: Ledger, memory: Memory, outside: Outside, front_door: FrontDoor, *, calls: UpstreamCalls
    ) -> None:
        self._front_door = front_door
        self._ledger = ledger
        self._memory = memory
        self._outside = outside
        self.calls = calls
        self.callees = Callees(registry, ledger, front_door, outside.absences)
        self._turns = Turns(memory)
        self._reader = TaskReader(memory.tasks)
        self._under_way = UnderWay()
        self._vigil = Vigil(memory.tasks, memory.now)
        self.running = Running(ledger, memory, self._turns, self._under_way, self._vigil, calls=calls)
        self.halt = Halt(memory, self._turns, self._under_way, self._vigil)
        self.parking = Parking(ledger, memory, self._turns)
        self.unknown = UnknownNames(self.callees, ledger, outside.limits)
        self._cancellation = Cancellation(registry, ledger, outside, memory=memory, turns=self._turns, under_way=self._under_way)

    async def send(self, caller: Caller, sending: Sending) -> Turned:
        """Delegates and waits until the agent ends its turn."""
        ready = await self._ready(caller, sending)
        if isinstance(ready, Turned):
            return ready
        turned = _check_taken(await self.running.run(ready))
        return await self._reader.whole(turned) if sending.message.task_id else turned

    async def start(self, caller: Caller, sending: Sending) -> Turned:
        """Delegates and returns at once; the turn goes on whatever becomes of the caller."""
        ready = await self._ready(caller, msgspec.structs.replace(sending, watched=True))
        if isinstance(ready, Turned):
            return ready
        self.running.begin(ready)
        return await self._reader.whole(ready.opened) if sending.message.task_id else ready.opened

    async def _ready(self, caller: Caller, sending: Sending) -> Ready | Turned:
        """Chooses the agent where the message goes to the front door, and prepares the call. A name that is unknown is denied on record."""
        if sending.agent == FRONT_DOOR:
            sending = msgspec.structs.replace(sending, idempotency_key=front_door_key(sending.idempotency_key))
            if (repeated := await self._repeated(caller, sending)) is not None:  # whoever fits by now
                return repeated
            chosen = await self._front_door.agent_for(caller, sending.message, sending.skill)
            sending = msgspec.structs.replace(sending, agent=chosen)
        try:
            return await self._prepared(caller, sending)
        except Unseen:
            raise  # its denial is kept already
        except UnknownName as unknown:
            await self.unknown.check_name(unknown, caller, sending.agent, sending.message, sending.trail.trace_id)
            raise

    async def _prepared(self, caller: Caller, sending: Sending) -> Ready | Turned:
        if (repeated := await self._repeated(caller, sending)) is not None:
            return repeated
        before = await self._continued(caller, sending)
        target, slots = self.callees.find(caller, sending.agent, Family.AGENT), self._outside.slots
        row, parent = before or new_row(self._memory, caller, sending), caller.delegation.task_id
        self._under_way.enter(row.id, parent)
        if before:
            self._vigil.end(row.id)
        try:
            if target.family is Family.SERVER:
                self.callees.known(caller, target.name)
            goes = meant(sending, before)
            asked = asked_of(goes, target, row)
            try:
                self._under_way.hold(row.id, self._outside.limits.enter(caller, asked.act, goes.message))
                last = self._ledger.calls.last(caller, sending.trail)
                slot = slots.enter(caller, target) or await slots.wait(caller, target, asked.act, last)
            except (LimitReached, PayloadTooLarge) as refused:
                await self.unknown.check_limit(refused, caller, asked.act, sending.message, sending.trail.trace_id)
                raise
            self._under_way.hold(row.id, (slot,))
            ready = await while_moving(partial(self._opened, caller, goes, target, asked, (before, row)))
            if isinstance(ready, Turned):
                self._under_way.leave(row.id, parent)  # it waits
            return ready
        except KeyUsed:
            self._under_way.leave(row.id, parent)
            if (repeated := await self._repeated(caller, sending)) is None:
                raise
            return repeated
        except BaseException:
            self._under_way.leave(row.id, parent)
            raise

    async def _opened(self, caller: Caller, sending: Sending, target: Registration, asked: Request, rows: Rows) -> Ready | Turned:
        """Ruled on and kept; nothing has left yet."""
        before, row = rows
        if before and sending.said and not sending.begun:
            asked = await self.parking.carried(caller, asked, target, before)
        grant = await self._ledger.ruling(caller, asked)
        check_handoff(sending, target, before)
        message = msgspec.structs.replace(sending.said or sending.message, context_id=row.context_id, task_id=row.id)
        if isinstance(grant, Question):
            waiting = Waiting(row, before, message, target, outgoing_of(sending), kept_webhook(sending, row, before))
            return await self.parking.park(caller, waiting, asked, grant)
        row, left = self.parking.left_behind(caller, target, granted(row, grant))
        opened = self._turns.steps.resumed(before, row, message) if before else Turned(*self._memory.tasks.opening(row, message))
        turn, adapter = await turn_for(self._memory, self._outside.adapters, sending, Allowed(grant, target, row, before))
        last = min(self._under_way.last(row.parent_id), self._ledger.calls.last(caller, sending.trail))
        with self.calls.prepared_turn(sending.trail, target, row) as (trail, span):
            call = self._ledger.calls.make(grant, target, trail, row.id, last)
            held = self._memory.tasks.tail(row) if sending.watched else None
            await self._ledger.open(call, opened, before, kept_beside(kept_webhook(sending, opened.row, before), left))
        return Ready(opened, turn, call, adapter, caller.delegation.task_id, held, span=span)

    async def _continued(self, caller: Caller, sending: Sending) -> TaskRow | None:
        """The task that the message answers, if it names one (A2A 1.0 s3.4)."""
        message = sending.message
        if not message.task_id:
            return None
        try:
            row = await self._reader.row(caller, sending.agent, message.task_id)
        except UnknownTask:
            self.callees.known(caller, sending.agent)  # as without a task: an agent that may not be known is not there
            raise
        check_answers(row, message)
        await self.parking.check(row, message)
        return row

    async def _repeated(self, caller: Caller, sending: Sending) -> Turned | None:
        key = sending.idempotency_key
        return None if key is None else await self._reader.repeated(caller, sending.agent, key, sending.message, wait=not sending.watched)

    async def reach(self, caller: Caller, asked: ServerCall) -> McpAnswer:
        """Asks an MCP server: a decision and its record, but no task. A request that stops an earlier one is never rate-limited."""
        target, limits, slots = self.callees.find(caller, asked.server, Family.SERVER), self._outside.limits, self._outside.slots
        shares: Sequence[Share] = () if asked.act.verb == STOP else limits.enter(caller, asked.act, asked.request.params)
        kept: Grant | None = None
        outcome = "failed"
        try:
            slot = slots.enter(caller, target) or await slots.wait(caller, target, asked.act, self._ledger.calls.last(caller, asked.trail))
            shares = (*shares, slot)
            kept = grant = await self._ledger.kept(caller, request_of(target, asked), target, asked.request.params)
            last = min(self._under_way.last(caller.delegation.task_id), self._ledger.calls.last(caller, asked.trail))
            call = self._ledger.calls.make(grant, target, asked.trail, grant.decision.id, last)
            answer = await _counted(self.calls, partial(_answer, self._outside.tools, call, asked.request, self._under_way), call, asked)
            outcome = "ok"
            return McpAnswer(answer.result, grant.decision.id) if _gone_on_from(grant) else answer
        except ConsentNeeded:
            if kept is not None:
                await self.parking.give_back(kept)
            raise
        finally:
            leave(shares)
            if kept is not None:
                self._ledger.post_outcome(kept, outcome)

    async def listen(self, caller: Caller, asked: ServerListening) -> None:
        """Listens to an MCP server until it ends the stream; a decision and its record, as for a read."""
        target = self.callees.find(caller, asked.server, Family.SERVER)
        grant = await self._ledger.kept(caller, listening_of(target, asked))
        call = self._ledger.calls.make(grant, target, asked.trail, grant.decision.id)
        await _listen(self._outside, caller, call, asked, self._under_way)

    async def cancel(self, caller: Caller, agent: str, task_id: str, trail: Trail) -> Stopped:
        """Has a task of the caller's stopped, and those it caused. Raises as Cancellation does, and UnknownTask."""
        return await self._cancellation.cancel(caller, await self._reader.row(caller, agent, task_id), trail)

    async def take_up(self, caller: Caller, row: TaskRow, ready: Ready) -> None:
        """Keeps and runs a turn of a task that waited until now. Raises TooManyCalls, for which it waits on, and as Ledger.open."""
        opened, call = ready.opened, ready.call
        shares = await _kept_in(_occupied(self._outside, caller, call), self._ledger.open(call, opened, row))
        self._under_way.enter(opened.row.id, "")
        self._under_way.hold(opened.row.id, shares)
        self.running.begin(ready)

    def looks_after(self, task_id: str) -> bool:
        """Whether the task is worked on here, or its ending is still to be kept."""
        return task_id in self._under_way or self._turns.is_late(task_id)

    async def end_lost(self, record: TaskRecord, why: Failed) -> bool:
        """Ends a task that nobody works on; False when it moved since it was looked at."""
        return await self._turns.end_lost(record, why)

    def take_over(self, caller: Caller, ready: Ready) -> None:
        """Runs a turn that another process began, whose task is this process's now. It counts in its limits, and is not refused by them."""
        shares: Sequence[Share] = ()
        with suppress(TooManyCalls):
            shares = _occupied(self._outside, caller, ready.call)
        self._under_way.enter(ready.opened.row.id, "")
        self._under_way.hold(ready.opened.row.id, shares)
        self.running.begin(ready)

    async def close(self) -> None:
        """Waits a moment for turns under way; what is still running then is for another process to go on with."""
        await self.running.close()
        await self.halt.close()
        await self._turns.close()


def _occupied(outside: Outside, caller: Caller, call: Call) -> Sequence[Share]:
    """What a turn takes that was counted when it was asked for, and had to wait. Raises TooManyCalls, and then took nothing."""
    shares = outside.limits.occupy(caller, call.grant.decision.act)
    slot = outside.slots.enter(caller, call.target)
    if slot is None:
        leave(shares)
        raise ShareUsed("As many calls are under way as may be.", 1)
    return (*shares, slot)


def check_answers(row: TaskRow, message: Message) -> None:
    """Whether a message can answer the task that it names. Raises BadMessage and TaskEnded."""
    if message.context_id and message.context_id != row.context_id:
        raise BadMessage("message.contextId", "is not the context of the task named in message.taskId")
    if row.ended or row.state in RUNNING:
        raise TaskEnded


def _check_taken(turned: Turned) -> Turned:
    """Raises BadAnswer where the agent refused the answer that the turn brought."""
    if turned.refused:
        raise BadAnswer("message.parts", "is not taken as an answer by the agent, and the task still waits: its message says for what")
    return turned


async def _kept_in(shares: Sequence[Share], kept: Awaitable[None]) -> Sequence[Share]:
    """The shares, once it is kept; they are given back where it is not."""
    try:
        await kept
    except BaseException:
        leave(shares)
        raise
    return shares


def _gone_on_from(grant: Grant) -> bool:
    """Whether what goes on from this act has to name it: where people approved of it, or where an errand counted it."""
    counted = grant.mark is not None and grant.mark.version is not None and grant.decision.txn
    return bool(grant.decision.approval or counted)


async def _counted(calls: UpstreamCalls, ask: Callable[[], Awaitable[McpAnswer]], call: Call, asked: ServerCall) -> McpAnswer:
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


async def _listen(outside: Outside, caller: Caller, call: Call, asked: ServerListening, under_way: UnderWay) -> None:
    slot = outside.listening.enter(caller, call.target)
    if slot is None:
        raise NotSent("As many streams with servers are open as your share allows", call.target.name)
    waiting = under_way.begin_call(call.grant)
    try:
        await outside.tools.listen(call, asked.wanted, asked.listener, asked.session)
    except asyncio.CancelledError:
        under_way.check_cut(waiting)
        raise
    finally:
        slot.free()
        under_way.end_call(waiting)


async def _answer(tools: ToolServers, call: Call, request: McpRequest, under_way: UnderWay) -> McpAnswer:
    """What the server answers; the log hears of it when it does not."""
    peer, waiting = request.peer, under_way.begin_call(call.grant)
    try:
        if peer is not None and peer.capabilities:
            return await patient(tools.call, call, request, peer)
        return await tools.call(call, request)
    except (UpstreamFault, EgressRefused, McpRefused) as fault:
        if isinstance(fault, McpRefused) and fault.tells_how_to_go_on:
            raise
        detail = fault.cause if isinstance(fault, UpstreamFault) else fault.detail if isinstance(fault, McpRefused) else ""
        log.warning("server_failed", server=call.target.name, decision_id=call.grant.decision.id, problem=fault.public, detail=detail)
        raise
    except asyncio.CancelledError:
        under_way.check_cut(waiting)
        raise
    finally:
        under_way.end_call(waiting)
