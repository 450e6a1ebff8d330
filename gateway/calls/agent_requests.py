"""The request that protocol servers make of AgentCalls, and what is built from it: its ruling request, task row and turn."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import msgspec
from msgspec import UNSET, Struct

from adapters.a2a_client.wire.v1 import BadMessage
from adapters.catalog import AdapterCatalog
from adapters.contract import Adapter, Turn, VendorRef
from adapters.mcp_client.agent import message_awaiting_answer, read_invocation
from adapters.task import Message, TaskState
from adapters.upstream.pending_consent import agent_ref, is_pending, unsent_message
from gateway.calls.authorizer import terms_of
from gateway.calls.handoff import (
    CONTEXT_SUMMARY,
    FindFacts,
    enforce_contract,
    metadata_without_gateway_context,
    skill_begun_with,
    with_gateway_context,
    without_gateway_context,
)
from gateway.calls.turns.pausing import ApprovalMessage
from gateway.state.effects.declared import arguments_of_message, with_effect
from gateway.storage.database import Batch
from gateway.tasks.contracts.prompts import find_answers
from gateway.tasks.contracts.skills import check_input, contract_of
from gateway.tasks.conversation import (
    blocks_other_tasks,
    check_no_open_question,
    check_question_is_current,
    read_other_tasks,
    ref_to_continue,
    referenced,
)
from gateway.tasks.log import TaskRow
from gateway.tasks.question_holders import OwnQuestionsAdapter, check_own_question, shares_questions
from gateway.tasks.reader import message_digest, scoped_idempotency_key, session_id_of
from gateway.tasks.turns.stores import TaskStores
from gateway.tasks.webhooks.configs import Webhook
from gateway.telemetry.spans import TRACEPARENT, TraceContext
from policies.authority import RulingRequest
from policies.callers import Caller
from policies.delegation.chain import Hop
from policies.delegation.permissions import parse_ceiling
from policies.delegation.rulings import Grant, act_of_calling_tool, act_of_invoking_agent
from policies.delegation.terms import Terms
from registry.cards.card import FEATURES, WORKFLOW_KIND, Family, Registration
from registry.cards.effects import EffectDeclaration

_decode_ref = msgspec.json.Decoder(VendorRef).decode


class AgentRequest(Struct, frozen=True):
    """A message for an agent. With `is_watched` the caller wants the events as they happen."""

    agent: str
    message: Message
    trace_context: TraceContext
    skill: str = ""
    accepted_output_modes: tuple[str, ...] = ()
    idempotency_key: str | None = None
    is_key_new: bool = False  # as far as the caller knows, no task has the key yet; the commit that opens the task finds one that has it
    is_watched: bool = False
    webhook: Webhook | None = None  # receives the task's events
    metadata: Mapping[str, Any] | None = None  # of the request
    logged_message: Message | None = None  # for the task's log, if the message that is sent differs
    continues_decision_id: str = ""  # the decision that allowed the tool call which this answer continues
    opening_write: Callable[[Batch, TaskRow], None] | None = None  # of the gateway's own, in the commit that opens a new task


class AuthorizedRequest(Struct, frozen=True):
    """An agent request that is allowed, and its target. `previous` is the task before the request; None for a new task."""

    grant: Grant
    target: Registration
    row: TaskRow
    previous: TaskRow | None = None


def approval_message_of(request: AgentRequest) -> ApprovalMessage:
    """Returns the message and the send options that a paused task will be resumed with."""
    send_options = {"skill": request.skill, "accepted_output_modes": list(request.accepted_output_modes), "metadata": request.metadata}
    return ApprovalMessage(request.message, {name: one for name, one in send_options.items() if one})


def restore_unsent_message(request: AgentRequest, previous: TaskRow | None) -> AgentRequest:
    """Returns the request with the message that the task is waiting to send, if the caller answers such a task.

    The gateway rules on the waiting message and shows it to approvers. The caller's answer is for the gateway itself: it is logged and
    not sent.
    """
    if previous is None:
        return request
    ref = _decode_ref(previous.vendor_ref)
    if (tool_call := message_awaiting_answer(ref)) is not None:
        return _with_repeated_tool_call(request, previous, tool_call)
    if not is_pending(ref):
        return request
    unsent = unsent_message(ref)
    message = msgspec.structs.replace(unsent.message, context_id=previous.context_id, task_id=previous.id)
    send_options = {"skill": unsent.skill, "accepted_output_modes": unsent.accepted_output_modes, "metadata": unsent.metadata}
    return msgspec.structs.replace(request, message=message, logged_message=request.message, **send_options)


def _with_repeated_tool_call(request: AgentRequest, previous: TaskRow, tool_call: Message) -> AgentRequest:
    """Returns the request with the tool call whose question the caller answers: the call is made again, under its earlier decision."""
    message = msgspec.structs.replace(tool_call, context_id=previous.context_id, task_id=previous.id)
    return msgspec.structs.replace(request, message=message, logged_message=request.message, continues_decision_id=previous.decision_id)


def request_write(request: AgentRequest, row: TaskRow, previous: TaskRow | None) -> Callable[[Batch], None] | None:
    """What a request has written in the commit that opens or continues its task: the task's webhook, and its own opening write."""
    if request.webhook is None and request.opening_write is None:
        return None
    after = previous.last_seq if previous else 0
    webhook = partial(request.webhook.write, row=row, after_seq=after) if request.webhook else None
    opening = None if previous or request.opening_write is None else partial(_write_opening, request.opening_write, row)
    return combine_writes(webhook, opening)


def _write_opening(write: Callable[[Batch, TaskRow], None], row: TaskRow, batch: Batch) -> None:
    write(batch, row)


def combine_writes(*writes: Callable[[Batch], None] | None) -> Callable[[Batch], None] | None:
    """Combines writes of one commit into one function; None if there are none."""
    present = [keep for keep in writes if keep is not None]
    if not present:
        return None

    def together(batch: Batch) -> None:
        for keep in present:
            keep(batch)

    return together


def ruling_request_for_agent(request: AgentRequest, target: Registration, row: TaskRow) -> RulingRequest:
    """Builds the ruling request for a message to an agent, or for the tool call that a message to a server names. Raises BadMessage."""
    ceiling, trace_id = parse_ceiling(target.ceiling), request.trace_context.trace_id
    if target.family is Family.SERVER:
        tool, arguments = read_invocation(request.message)
        if all(each.name != tool for each in target.tools):
            raise BadMessage("message.parts", "names no tool of this server")
        act = act_of_calling_tool(target.name, tool)
        terms = terms_of(target, act)
        if request.continues_decision_id:
            terms = msgspec.structs.replace(terms, continues_decision_id=request.continues_decision_id)
        if target.effects:
            terms = _with_declared_effect(terms, target.effect_of(tool), arguments, request)
        return RulingRequest(act, target.tenant, arguments, ceiling, task_id=row.id, txn=row.txn, trace_id=trace_id, terms=terms)
    act = act_of_invoking_agent(target.name, request.skill)
    terms = terms_of(target, act)
    if target.effects:
        terms = _with_declared_effect(terms, target.effect_of(request.skill), arguments_of_message(request.message), request)
    return RulingRequest(
        act=act,
        tenant=target.tenant,
        terms=terms,
        callee=Hop(target.name, ceiling),
        task_id=row.id,
        txn=row.txn,
        trace_id=trace_id,
        lasts_until=run_end(target, row) if target.kind == WORKFLOW_KIND else 0.0,
    )


def _with_declared_effect(terms: Terms, declared: EffectDeclaration | None, arguments: Mapping[str, Any], request: AgentRequest) -> Terms:
    """The terms with a declared effect, which lasts as long as the task."""
    return with_effect(terms, declared, arguments, has_own_task=True, continues_task=request.message.task_id)


def run_end(target: Registration, row: TaskRow) -> float:
    """When a run of a workflow ends at the latest, in seconds since 1970."""
    return row.created / 1_000_000 + float(target.upstream["timeout"])


def build_turn(request: AgentRequest, target: Registration, row: TaskRow, ref: VendorRef | None) -> Turn:
    """Builds the turn for the adapter. Raises BadPromptAnswer for a message that does not answer the task's open prompts."""
    watched = request.is_watched or _is_followed_later(request, row)
    message, metadata = request.message, request.metadata
    if message.metadata is not UNSET:
        message = without_gateway_context(message)
    if metadata:
        metadata = metadata_without_gateway_context(metadata)
    turn = Turn(message, ref, watched, request.accepted_output_modes, metadata)
    if request.continues_decision_id and ref is not None:
        return msgspec.structs.replace(turn, answers=find_answers(ref.prompts or (), request.logged_message or request.message))
    if FEATURES not in target.facts:
        return turn
    answers = find_answers((agent_ref(ref).prompts or ()) if ref else (), request.message)
    return msgspec.structs.replace(turn, answers=answers, session=(ref.session if ref else "") or session_id_of(row))


def _is_followed_later(request: AgentRequest, row: TaskRow) -> bool:
    """Returns whether a later request may refer to the task: through its parent task, its idempotency key or a webhook event.

    For such a task the agent must name its own task early, and another process may have to resume the turn.
    """
    return bool(row.parent_id) or request.idempotency_key is not None or request.webhook is not None


def check_input_contract(request: AgentRequest, target: Registration, previous: TaskRow | None) -> None:
    """Checks the first message of a task against the agent's input contract. Answers are not checked. Raises ContractBroken."""
    if previous is None and (target.contracts or FEATURES in target.facts):
        check_input(contract_of(target, request.skill), request.message)


async def prepare_turn(
    stores: TaskStores, adapters: AdapterCatalog, request: AgentRequest, authorized: AuthorizedRequest, find_facts: FindFacts
) -> tuple[Turn, Adapter]:
    """Returns the turn and the adapter that runs it within the agent's contract.

    Raises BadPromptAnswer, ConversationWaits and UnknownKind.
    """
    target, row, previous = authorized.target, authorized.row, authorized.previous
    if FEATURES in target.facts:
        await adapters.load(target.kind)
    turn = build_turn(request, target, row, await vendor_ref_for(stores, request, authorized))
    if turn.message.reference_task_ids:
        turn = msgspec.structs.replace(turn, message=await with_own_references(stores, row, turn.message))
    adapter = adapters.adapter(target.kind, target.upstream)
    if FEATURES in target.facts and shares_questions(target):
        await check_own_question(stores.database, row, turn)
        adapter = OwnQuestionsAdapter(adapter, stores.database, row)
    if target.contracts:
        output = contract_of(target, request.skill or (await skill_begun_with(stores.tasks, previous) if previous else "")).output
        adapter = adapter if output is None else enforce_contract(adapter, output, stores.turn_limits)
    if target.context == CONTEXT_SUMMARY and not turn.answers:
        message = await with_gateway_context(stores.tasks, authorized, turn.message, find_facts)
        turn = msgspec.structs.replace(turn, message=message)
    return turn, adapter


async def with_own_references(stores: TaskStores, row: TaskRow, message: Message) -> Message:
    """Returns the message with the agent's own ids of the tasks that it refers to (A2A 1.0 s3.4.3)."""
    agent_ids = await referenced(stores.database, row, message.reference_task_ids)
    return msgspec.structs.replace(message, reference_task_ids=agent_ids)


async def vendor_ref_for(stores: TaskStores, request: AgentRequest, authorized: AuthorizedRequest) -> VendorRef | None:
    """Returns the agent's own ids of the continued task or of the conversation. Raises ConversationWaits and BadPromptAnswer."""
    target, row, previous = authorized.target, authorized.row, authorized.previous
    ref = _decode_ref(previous.vendor_ref) if previous else None
    if previous and ref and agent_ref(ref).task_id:
        if blocks_other_tasks(target, previous):
            check_question_is_current(target, previous, await read_other_tasks(stores.database, previous))
        return ref
    if not request.message.context_id:
        return ref
    other_tasks = await read_other_tasks(stores.database, row)
    check_no_open_question(target, other_tasks)
    return ref or ref_to_continue(target, row, other_tasks)


def with_grant(row: TaskRow, grant: Grant) -> TaskRow:
    """Returns the row with the ids of the decision and the grant."""
    return msgspec.structs.replace(row, decision_id=grant.decision.id, grant_id=grant.delegation.grant_id)


def with_own_ref(row: TaskRow, target: Registration) -> TaskRow:
    """A new task of a workflow names itself as the engine's, so that another process can go on with it from its first commit on."""
    if target.kind != WORKFLOW_KIND:
        return row
    return msgspec.structs.replace(row, vendor_ref=msgspec.json.encode(VendorRef(task_id=row.id)).decode())


def new_task_row(stores: TaskStores, caller: Caller, request: AgentRequest) -> TaskRow:
    now, message = stores.now(), request.message
    return TaskRow(
        tenant=caller.principal.tenant,
        id=stores.new_id("t"),
        owner=caller.principal.owner_key,
        context_id=message.context_id or stores.new_id("c"),
        agent=request.agent,
        state=TaskState.SUBMITTED,
        parent_id=caller.delegation.task_id,
        txn=caller.delegation.txn or stores.new_id("x"),
        decision_id="",
        grant_id="",
        created=now,
        updated=now,
        idempotency_key=None if request.idempotency_key is None else scoped_idempotency_key(caller, request.idempotency_key),
        request_digest=message_digest(request.message) if request.idempotency_key is not None else "",
        trace=request.trace_context.headers.get(TRACEPARENT, ""),
    )
