"""What doors ask of the broker, and what follows from it before anything is ruled on: the request, the row, the turn."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import msgspec
from msgspec import Struct

from adapters.a2a_client.wire.v1 import BadMessage
from adapters.contract import Adapter, Turn, VendorRef
from adapters.mcp_client.agent import asked_before, wanted
from adapters.mcp_client.wire.messages import McpRequest
from adapters.mcp_client.wire.peer import Listener, Listening
from adapters.task import Message, TaskState
from adapters.upstream.pending_consent import at_agent, unsent, waits
from gateway.calls.consent.approval_requests import terms_of
from gateway.calls.handoff import SUMMARY, contracted, plain, skill_of, with_context, without
from gateway.calls.outgoing.upstreams import Adapters, Trail
from gateway.calls.pausing import Outgoing
from gateway.storage.database import Batch
from gateway.tasks.contracts.prompts import answers_to
from gateway.tasks.contracts.skills import check_input, contract_of
from gateway.tasks.conversation import check_no_question, check_question, keeps_others_out, next_ref, referenced, tasks_beside
from gateway.tasks.log import TaskRow
from gateway.tasks.question_holders import OwnQuestions, check_answers, shares_questions
from gateway.tasks.reader import digest, scoped_key, session_of
from gateway.tasks.turns.store import Memory
from gateway.tasks.webhooks.configs import Webhook
from gateway.telemetry.spans import TRACEPARENT
from policies.authority import Request
from policies.callers import Caller
from policies.delegation.chain import Hop
from policies.delegation.permissions import ceiling_of
from policies.delegation.rulings import Act, Grant, calling, invoking
from registry.cards.card import FEATURES, Family, Registration

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
    said: Message | None = None  # what is kept in the task's log, where something else is sent
    begun: str = ""  # the decision that allowed the call of a tool, which an answer goes on with


class Allowed(Struct, frozen=True):
    """A sending once it is allowed, and where it goes: `before` is the task as it was, if it is not new."""

    grant: Grant
    target: Registration
    row: TaskRow
    before: TaskRow | None = None


class ServerCall(Struct, frozen=True):
    """A request on its way to an MCP server: a tool's call, a prompt, a resource. `arguments` are what policies may look at."""

    server: str
    act: Act
    arguments: Mapping[str, Any] | None
    request: McpRequest
    trail: Trail
    approval: str = ""  # that the caller means
    begun: str = ""  # the decision that it goes on from, by our own word


class ServerListening(Struct, frozen=True):
    """To be told what an MCP server says outside of requests. `session` is the front's, of the initialize era."""

    server: str
    act: Act
    wanted: Listening
    listener: Listener
    trail: Trail
    session: str = ""


def request_of(target: Registration, asked: ServerCall) -> Request:
    """What is to be ruled on of a request to a server."""
    terms = terms_of(target, asked.act, asked.approval)
    if asked.begun:
        terms = msgspec.structs.replace(terms, begun=asked.begun)
    return Request(asked.act, target.tenant, asked.arguments, ceiling_of(target.ceiling), trace_id=asked.trail.trace_id, terms=terms)


def listening_of(target: Registration, asked: ServerListening) -> Request:
    """The same of one to be told what it says."""
    terms = terms_of(target, asked.act)
    return Request(asked.act, target.tenant, None, ceiling_of(target.ceiling), trace_id=asked.trail.trace_id, terms=terms)


def outgoing_of(sending: Sending) -> Outgoing:
    """What a task that waits goes on with: the message, and what its sending says beside it."""
    said = {"skill": sending.skill, "accepted_output_modes": list(sending.accepted_output_modes), "metadata": sending.metadata}
    return Outgoing(sending.message, {name: one for name, one in said.items() if one})


def meant(sending: Sending, before: TaskRow | None) -> Sending:
    """What goes on when somebody answers a task that waits for a consent: the message that waits, as it was to be sent.

    It is what is ruled on, and what people are asked about; what is said meanwhile is for the gateway, which has asked, and goes no
    further.
    """
    ref = _ref(before.vendor_ref) if before is not None else VendorRef()
    if before is not None and (call := asked_before(ref)) is not None:  # an answer to what a tool asked: the call is made again
        message = msgspec.structs.replace(call, context_id=before.context_id, task_id=before.id)
        return msgspec.structs.replace(sending, message=message, said=sending.message, begun=before.decision_id)
    if before is None or not waits(ref):
        return sending
    kept = unsent(ref)
    message = msgspec.structs.replace(kept.message, context_id=before.context_id, task_id=before.id)
    how = {"skill": kept.skill, "accepted_output_modes": kept.accepted_output_modes, "metadata": kept.metadata}
    return msgspec.structs.replace(sending, message=message, said=sending.message, **how)


def kept_webhook(sending: Sending, row: TaskRow, before: TaskRow | None) -> Callable[[Batch], None] | None:
    after = before.last_seq if before else 0
    return partial(sending.webhook.keep, row=row, after=after) if sending.webhook else None


def kept_beside(*keeps: Callable[[Batch], None] | None) -> Callable[[Batch], None] | None:
    """All of them in one."""
    some = [keep for keep in keeps if keep is not None]

    def together(batch: Batch) -> None:
        for keep in some:
            keep(batch)

    return together if some else None


def asked_of(sending: Sending, target: Registration, row: TaskRow) -> Request:
    """To delegate to an agent, or to call the tool of a server that the message names. Raises BadMessage."""
    ceiling, trace_id = ceiling_of(target.ceiling), sending.trail.trace_id
    if target.family is Family.SERVER:
        tool, arguments = wanted(sending.message)
        if all(each.name != tool for each in target.tools):
            raise BadMessage("message.parts", "names no tool of this server")
        act = calling(target.name, tool)
        terms = terms_of(target, act)
        if sending.begun:
            terms = msgspec.structs.replace(terms, begun=sending.begun)
        return Request(act, target.tenant, arguments, ceiling, task_id=row.id, txn=row.txn, trace_id=trace_id, terms=terms)
    act = invoking(target.name, sending.skill)
    return Request(
        act=act,
        tenant=target.tenant,
        terms=terms_of(target, act),
        callee=Hop(target.name, ceiling),
        task_id=row.id,
        txn=row.txn,
        trace_id=trace_id,
    )


def turn_of(sending: Sending, target: Registration, row: TaskRow, ref: VendorRef | None) -> Turn:
    """Raises BadAnswer for a message that does not answer what the task waits for."""
    watched = sending.watched or _is_returned_to(sending, row)
    turn = Turn(plain(sending.message), ref, watched, sending.accepted_output_modes, without(sending.metadata))
    if sending.begun and ref is not None:
        return msgspec.structs.replace(turn, answers=answers_to(ref.prompts or (), sending.said or sending.message))
    if FEATURES not in target.facts:
        return turn
    answers = answers_to((at_agent(ref).prompts or ()) if ref else (), sending.message)
    return msgspec.structs.replace(turn, answers=answers, session=(ref.session if ref else "") or session_of(row))


def _is_returned_to(sending: Sending, row: TaskRow) -> bool:
    """Whether somebody may come back for the task: to cancel it with the one that caused it, by its key, or by what a webhook is told.

    Then the agent has to name its task early, and another process may have to go on with the turn.
    """
    return bool(row.parent_id) or sending.idempotency_key is not None or sending.webhook is not None


def check_handoff(sending: Sending, target: Registration, before: TaskRow | None) -> None:
    """Whether a message that begins a task keeps the agent's contract; an answer is to a question. Raises ContractBroken."""
    if before is None and (target.contracts or FEATURES in target.facts):
        check_input(contract_of(target, sending.skill), sending.message)


async def turn_for(memory: Memory, adapters: Adapters, sending: Sending, allowed: Allowed) -> tuple[Turn, Adapter]:
    """What the agent is to do, and who has it do that, within its contract. Raises BadAnswer, ConversationWaits and UnknownKind."""
    target, row, before = allowed.target, allowed.row, allowed.before
    if FEATURES in target.facts:
        await adapters.load(target.kind)
    turn = turn_of(sending, target, row, await ref_of(memory, sending, allowed))
    if turn.message.reference_task_ids:
        turn = msgspec.structs.replace(turn, message=await with_own_references(memory, row, turn.message))
    adapter = adapters.adapter(target.kind, target.upstream)
    if shares_questions(target):
        await check_answers(memory.database, row, turn)
        adapter = OwnQuestions(adapter, memory.database, row)
    if target.contracts:
        output = contract_of(target, sending.skill or (await skill_of(memory.tasks, before) if before else "")).output
        adapter = adapter if output is None else contracted(adapter, output, memory.turn_limits)
    if target.context == SUMMARY and not turn.answers:
        told = await with_context(memory.tasks, target, allowed.grant, row, turn.message)
        turn = msgspec.structs.replace(turn, message=told)
    return turn, adapter


async def with_own_references(memory: Memory, row: TaskRow, message: Message) -> Message:
    """The message with the agent's own ids of the tasks that it refers to (A2A 1.0 s3.4.3)."""
    own = await referenced(memory.database, row, message.reference_task_ids)
    return msgspec.structs.replace(message, reference_task_ids=own)


async def ref_of(memory: Memory, sending: Sending, allowed: Allowed) -> VendorRef | None:
    """The agent's own ids: of the task that goes on, or of the conversation. Raises ConversationWaits and BadAnswer."""
    target, row, before = allowed.target, allowed.row, allowed.before
    ref = _ref(before.vendor_ref) if before else None
    if before and ref and at_agent(ref).task_id:
        if keeps_others_out(target, before):
            check_question(target, before, await tasks_beside(memory.database, before))
        return ref
    if not sending.message.context_id:
        return ref
    beside = await tasks_beside(memory.database, row)
    check_no_question(target, beside)
    return ref or next_ref(target, row, beside)


def granted(row: TaskRow, grant: Grant) -> TaskRow:
    """The task under what it is worked on with."""
    return msgspec.structs.replace(row, decision_id=grant.decision.id, grant_id=grant.delegation.grant_id)


def new_row(memory: Memory, caller: Caller, sending: Sending) -> TaskRow:
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
        trace=sending.trail.headers.get(TRACEPARENT, ""),
    )
