"""The broker: find, allow, keep, send. The only file that knows the order, for every door alike."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec
import structlog
from msgspec import Struct

from adapters.a2a_wire.v1 import BadMessage
from adapters.addresses import EgressRefused
from adapters.contract import Adapter, Call, Turn, UpstreamFault, VendorRef
from adapters.mcp_agent import wanted
from adapters.mcp_peer import Listener, Listening
from adapters.mcp_wire import McpAnswer, McpRequest
from adapters.task import INTERRUPTED, Message, TaskState
from gateway.cancellation import Cancellation, Stopped
from gateway.front_door import FrontDoor
from gateway.halt import Halt
from gateway.ledger import Ledger, Outside, ToolServers, Trail
from gateway.limits import leave
from gateway.patience import patient
from gateway.prompts import answers_to
from gateway.push import Webhook
from gateway.task_reader import TaskReader, digest, front_door_key, scoped_key, session_of
from gateway.tasks import RUNNING, KeyUsed, TaskEnded, TaskRow, UnknownTask
from gateway.turns import Memory, Turned, Turns
from gateway.under_way import Abandoned, UnderWay
from gateway.vigil import Vigil
from policies.authority import Caller, Request
from policies.delegation import Hop
from policies.grant import Act, Grant, calling, invoking
from policies.permissions import ceiling_of
from registry.card import FEATURES, Family, Registration, Status
from registry.names import FRONT_DOOR
from registry.store import Registry, UnknownName
from registry.tool_agent import as_agent

log = structlog.get_logger()
_ref = msgspec.json.Decoder(VendorRef).decode


class Sending(Struct, frozen=True):
    """A message on its way to an agent. `watched`: its events are wanted as they happen."""

    agent: str
    message: Message
    trail: Trail
    skill: str = ""
    accepted_output_modes: tuple[str, ...] = ()
    idempotency_key: str | None = None
    watched: bool = False
    webhook: Webhook | None = None  # to be told of the task's events
    metadata: Mapping[str, Any] | None = None  # of the request


class ServerCall(Struct, frozen=True):
    """A request on its way to an MCP server: a tool's call, a prompt, a resource. `arguments` are what policies may look at."""

    server: str
    act: Act
    arguments: Mapping[str, Any] | None
    request: McpRequest
    trail: Trail


class ServerListening(Struct, frozen=True):
    """To be told what an MCP server says outside of requests. `session` is the front's, of the initialize era."""

    server: str
    act: Act
    wanted: Listening
    listener: Listener
    trail: Trail
    session: str = ""


@dataclass(frozen=True, slots=True)
class _Ready:
    """A turn that is allowed and kept, and can be run."""

    opened: Turned
    turn: Turn
    call: Call
    adapter: Adapter
    parent: str  # the task that caused it, whose places it takes up
    held: object = None  # its tail, from before it is opened until its turn is over, for those who follow


class Broker:
    """Every door calls it; it talks to adapters, stores and the authority on their behalf."""

    def __init__(self, registry: Registry, ledger: Ledger, memory: Memory, outside: Outside, front_door: FrontDoor) -> None:
        self._registry = registry
        self._front_door = front_door
        self._ledger = ledger
        self._memory = memory
        self._outside = outside
        self._turns = Turns(memory)
        self._reader = TaskReader(memory.tasks)
        self._background: dict[str, asyncio.Task[Turned]] = {}
        self._under_way = UnderWay()
        self._vigil = Vigil(memory.tasks, memory.now)
        self.halt = Halt(memory, self._turns, self._under_way, self._vigil)
        self._cancellation = Cancellation(registry, ledger, memory, outside, self._turns)

    def find(self, caller: Caller, name: str, family: Family) -> Registration:
        """An agent or server that can be called, or the front door; a server is an agent too. Raises UnknownName for any other."""
        if name == FRONT_DOOR and family is Family.AGENT:
            return self._front_door.registration(caller.principal.tenant, caller)
        found = self._registry.find(caller.principal.tenant, name)
        if found.status is not Status.ACTIVE or found.family is Family.VIRTUAL:
            raise UnknownName(name)
        if family is Family.AGENT and found.family is Family.SERVER:
            return as_agent(found)
        if found.family is not family:
            raise UnknownName(name)
        return found

    def known(self, caller: Caller, agent: str) -> Registration:
        """An agent that this caller may know of, for what is answered without a ruling. Raises UnknownName."""
        found = self.find(caller, agent, Family.AGENT)
        act = calling(agent, "*") if found.family is Family.SERVER else invoking(agent)
        if agent != FRONT_DOOR and not self._ledger.sees(caller, act):
            raise UnknownName(agent)
        return found

    async def send(self, caller: Caller, sending: Sending) -> Turned:
        """Delegates and waits until the agent ends its turn."""
        ready = await self._ready(caller, sending)
        if isinstance(ready, Turned):
            return ready
        turned = await self._run(ready)
        return await self._reader.whole(turned) if sending.message.task_id else turned

    async def start(self, caller: Caller, sending: Sending) -> Turned:
        """Delegates and returns at once; the turn goes on whatever becomes of the caller."""
        ready = await self._ready(caller, msgspec.structs.replace(sending, watched=True))
        if isinstance(ready, Turned):
            return ready
        running = asyncio.create_task(self._run(ready))
        key = ready.opened.row.id
        self._background[key] = running
        running.add_done_callback(lambda done: self._ended(key, done))
        return await self._reader.whole(ready.opened) if sending.message.task_id else ready.opened

    def _ended(self, key: str, done: "asyncio.Task[Turned]") -> None:
        self._background.pop(key, None)
        if not done.cancelled() and (error := done.exception()) is not None:
            log.error("turn_not_kept", task_id=key, error=type(error).__name__)

    async def _ready(self, caller: Caller, sending: Sending) -> _Ready | Turned:
        if sending.agent == FRONT_DOOR:
            sending = msgspec.structs.replace(sending, idempotency_key=front_door_key(sending.idempotency_key))
            if (repeated := await self._repeated(caller, sending)) is not None:  # whoever fits by now
                return repeated
            chosen = await self._front_door.agent_for(caller, sending.message, sending.skill)
            sending = msgspec.structs.replace(sending, agent=chosen)
        target = self.find(caller, sending.agent, Family.AGENT)
        if (repeated := await self._repeated(caller, sending)) is not None:
            return repeated
        before = await self._continued(caller, sending)
        row = before or _new_row(self._memory, caller, sending)
        parent = caller.delegation.task_id
        self._under_way.enter(row.id, parent)
        if before:
            self._vigil.end(row.id)
        try:
            return await self._opened(caller, sending, target, (before, row))
        except KeyUsed:
            self._under_way.leave(row.id, parent)
            if (repeated := await self._repeated(caller, sending)) is None:
                raise
            return repeated
        except BaseException:
            self._under_way.leave(row.id, parent)
            raise

    async def _opened(self, caller: Caller, sending: Sending, target: Registration, rows: tuple[TaskRow | None, TaskRow]) -> _Ready:
        """Ruled on and kept; nothing has left yet."""
        before, row = rows
        grant, row = await self._allow(caller, sending, target, row)
        message = msgspec.structs.replace(sending.message, context_id=row.context_id, task_id=row.id)
        opened = self._turns.resumed(before, row, message) if before else Turned(*self._memory.tasks.opening(row, message))
        ref = await _ref_of(self._memory, row, before, sending)
        turn = _turn(sending, target, row, ref)
        adapter = self._outside.adapters.adapter(target.kind, target.upstream)
        call = self._ledger.call(grant, target, sending.trail, row.id)
        after = before.last_seq if before else 0
        also = partial(sending.webhook.keep, row=opened.row, after=after) if sending.webhook else None
        held = self._memory.tasks.tail(row) if sending.watched else None
        await self._ledger.open(call, opened, before, also)
        return _Ready(opened, turn, call, adapter, caller.delegation.task_id, held)

    async def _continued(self, caller: Caller, sending: Sending) -> TaskRow | None:
        """The task that the message answers, if it names one (A2A 1.0 s3.4)."""
        message = sending.message
        if not message.task_id:
            return None
        try:
            row = await self._reader.row(caller, sending.agent, message.task_id)
        except UnknownTask:
            self.known(caller, sending.agent)  # as without a task: an agent that may not be known is not there
            raise
        if message.context_id and message.context_id != row.context_id:
            raise BadMessage("message.contextId", "is not the context of the task named in message.taskId")
        if row.ended or row.state in RUNNING:
            raise TaskEnded
        return row

    async def _allow(self, caller: Caller, sending: Sending, target: Registration, row: TaskRow) -> tuple[Grant, TaskRow]:
        if target.family is Family.SERVER:
            self.known(caller, target.name)
        request = _asked(sending, target, row)
        self._under_way.hold(row.id, self._outside.limits.enter(caller, request.act, sending.message))
        grant = await self._ledger.granted(caller, request)
        return grant, msgspec.structs.replace(row, decision_id=grant.decision.id, grant_id=grant.delegation.grant_id)

    async def _run(self, ready: _Ready) -> Turned:
        opened, grant = ready.opened, ready.call.grant
        try:
            turned = await self._under_way.run(opened.row.id, self._turns.run(ready.adapter, ready.turn, ready.call, opened), grant)
            if turned.row.state in INTERRUPTED:
                self._vigil.begin(ready.adapter, grant, partial(self._ledger.renewed, ready.call), turned, self._go_on)
            return turned
        except Abandoned:
            return await self._reader.whole(opened)
        finally:
            self._under_way.leave(opened.row.id, ready.parent)

    async def _go_on(self, adapter: Adapter, turn: Turn, call: Call, opened: Turned) -> Turned:
        """A turn that nobody asked for: the agent of a task that waited has moved it."""
        self._under_way.enter(opened.row.id, "")
        return await self._run(_Ready(opened, turn, call, adapter, ""))

    async def _repeated(self, caller: Caller, sending: Sending) -> Turned | None:
        key = sending.idempotency_key
        return None if key is None else await self._reader.repeated(caller, sending.agent, key, sending.message, wait=not sending.watched)

    async def reach(self, caller: Caller, asked: ServerCall) -> McpAnswer:
        """Asks an MCP server: a decision and its record, but no task."""
        target = self.find(caller, asked.server, Family.SERVER)
        shares = self._outside.limits.enter(caller, asked.act, asked.request.params)
        kept: Grant | None = None
        outcome = "failed"
        try:
            request = Request(asked.act, target.tenant, asked.arguments, ceiling_of(target.ceiling), trace_id=asked.trail.trace_id)
            grant = await self._ledger.granted(caller, request)
            await self._ledger.keep(grant)
            kept = grant
            call = self._ledger.call(grant, target, asked.trail, grant.decision.id)
            answer = await _answer(self._outside.tools, call, asked.request, self._under_way)
            outcome = "ok"
            return answer
        finally:
            leave(shares)
            if kept is not None:
                self._ledger.post_outcome(kept, outcome)

    async def listen(self, caller: Caller, asked: ServerListening) -> None:
        """Listens to an MCP server until it ends the stream; a decision and its record, as for a read."""
        target = self.find(caller, asked.server, Family.SERVER)
        request = Request(asked.act, target.tenant, None, ceiling_of(target.ceiling), trace_id=asked.trail.trace_id)
        grant = await self._ledger.granted(caller, request)
        await self._ledger.keep(grant)
        call = self._ledger.call(grant, target, asked.trail, grant.decision.id)
        await _listen(self._outside.tools, call, asked, self._under_way)

    async def cancel(self, caller: Caller, agent: str, task_id: str, trail: Trail) -> Stopped:
        """Has a task of the caller's stopped, and those it caused. Raises as Cancellation does, and UnknownTask."""
        row = await self._reader.row(caller, agent, task_id)
        return await self._cancellation.cancel(caller, row, trail, self._under_way.abandon)

    async def recover(self) -> int:
        """Ends tasks whose turn was under way in a process that is no more, or was lost in this one; returns how many."""
        return await self._turns.recover(self._under_way)

    async def close(self) -> None:
        """Waits a moment for turns under way; what is still running then is ended by whoever comes after."""
        if self._background:
            await asyncio.wait(self._background.values(), timeout=2)
        await self._vigil.close()
        await self.halt.close()
        await self._turns.close()


def _asked(sending: Sending, target: Registration, row: TaskRow) -> Request:
    """To delegate to an agent, or to call the tool of a server that the message names. Raises BadMessage."""
    ceiling, trace_id = ceiling_of(target.ceiling), sending.trail.trace_id
    if target.family is Family.SERVER:
        tool, arguments = wanted(sending.message)
        if all(each.name != tool for each in target.tools):
            raise BadMessage("message.parts", "names no tool of this server")
        act = calling(target.name, tool)
        return Request(act, target.tenant, arguments, ceiling, task_id=row.id, txn=row.txn, trace_id=trace_id)
    return Request(
        act=invoking(target.name, sending.skill),
        tenant=target.tenant,
        callee=Hop(target.name, ceiling),
        task_id=row.id,
        txn=row.txn,
        trace_id=trace_id,
    )


def _turn(sending: Sending, target: Registration, row: TaskRow, ref: VendorRef | None) -> Turn:
    """Raises BadAnswer for a message that does not answer what the task waits for."""
    watched = sending.watched or bool(row.parent_id)  # who is to be told of a cancellation has to name its task early
    turn = Turn(sending.message, ref, watched, sending.accepted_output_modes, sending.metadata)
    if FEATURES not in target.facts:
        return turn
    answers = answers_to((ref.prompts or ()) if ref else (), sending.message)
    return msgspec.structs.replace(turn, answers=answers, session=session_of(row))


async def _ref_of(memory: Memory, row: TaskRow, before: TaskRow | None, sending: Sending) -> VendorRef | None:
    """The agent's own ids: of the task that goes on, or of the last task in the same context."""
    if before:
        return _ref(before.vendor_ref)
    if not sending.message.context_id:
        return None
    last = await memory.tasks.before(row)
    return VendorRef(context_id=_ref(last.vendor_ref).context_id) if last else None


def _new_row(memory: Memory, caller: Caller, sending: Sending) -> TaskRow:
    now, message = memory.now(), sending.message
    return TaskRow(
        tenant=caller.principal.tenant,
        id=memory.new_id("t"),
        owner=caller.principal.owner,
        context_id=message.context_id or memory.new_id("c"),
        agent=sending.agent,
        state=TaskState.SUBMITTED,
        parent_id=caller.delegation.task_id,
        txn=caller.delegation.txn or memory.new_id("x"),
        decision_id="",
        grant_id="",
        created=now,
        updated=now,
        idempotency_key=None if sending.idempotency_key is None else scoped_key(caller, sending.idempotency_key),
        request_digest=digest(sending.message) if sending.idempotency_key is not None else "",
    )


async def _listen(tools: ToolServers, call: Call, asked: ServerListening, under_way: UnderWay) -> None:
    waiting = under_way.begin_call(call.grant)
    try:
        await tools.listen(call, asked.wanted, asked.listener, asked.session)
    except asyncio.CancelledError:
        under_way.check_cut(waiting)
        raise
    finally:
        under_way.end_call(waiting)


async def _answer(tools: ToolServers, call: Call, request: McpRequest, under_way: UnderWay) -> McpAnswer:
    """What the server answers; the log hears of it when it does not."""
    peer, waiting = request.peer, under_way.begin_call(call.grant)
    try:
        if peer is not None and peer.capabilities:
            return await patient(tools.call, call, request, peer)
        return await tools.call(call, request)
    except (UpstreamFault, EgressRefused) as fault:
        detail = fault.detail if isinstance(fault, UpstreamFault) else ""
        log.warning("server_failed", server=call.target.name, decision_id=call.grant.decision.id, problem=fault.public, detail=detail)
        raise
    except asyncio.CancelledError:
        under_way.check_cut(waiting)
        raise
    finally:
        under_way.end_call(waiting)
