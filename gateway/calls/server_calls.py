"""Calls of MCP servers: find, limit, authorize, call. `ServerCalls.call` shows the order of one call's effects and refusals.

gateway/ingress/mcp_server/upstream_requests.py adds three things around it. It calls once more after the server refused the headers
(`UpstreamRequests._call_and_relist_once`), and makes a result of ConsentNeeded. After a refusal it records a denial if the caller may not
know of the target (`VisibilityCheck.raise_if_hidden`).
"""

import asyncio
import time
from collections.abc import Awaitable, Mapping
from typing import Any

import structlog
from msgspec import Struct
from msgspec.structs import replace

from adapters.contract import Call, ConsentNeeded, NotSent, UpstreamFault
from adapters.mcp_client.wire.messages import McpAnswer, McpRefused, McpRequest
from adapters.mcp_client.wire.peer import ListenFilter, McpListener
from adapters.redaction.exchanges import note_decision
from adapters.upstream.targets import EgressRefused
from gateway.calls.authorizer import terms_of
from gateway.calls.costs.reservations import Reservation
from gateway.calls.limits.meters import release
from gateway.calls.limits.pausable_timeout import call_with_pausable_timeout
from gateway.calls.parts import CallParts
from gateway.concurrency.background import run_in_background
from gateway.state.effects.declared import with_effect
from gateway.state.effects.states import ASKED, DONE, FAILED, UNKNOWN
from gateway.tasks.turns.in_flight import HeldShare
from gateway.telemetry.spans import TraceContext, note_outcome
from gateway.telemetry.upstream_calls import TOOL_ERROR, asks_for_input, is_tool_error
from policies.authority import RulingRequest
from policies.callers import Caller
from policies.delegation.history import VERB_STOP_TASK
from policies.delegation.permissions import parse_ceiling
from policies.delegation.rulings import Act, Grant
from registry.cards.card import Family, Registration

CALL_TOOL = "callTool"
META_MEMBER = b'"_meta"'  # of a result, which may report usage there
log = structlog.get_logger()


class ToolServerRequest(Struct, frozen=True):
    """A request for an MCP server: a tool call, a prompt, a resource. `arguments` are those that policies may read."""

    server: str
    act: Act
    arguments: Mapping[str, Any] | None
    mcp_request: McpRequest
    trace_context: TraceContext
    approval_id: str = ""  # the approval that the caller names
    continues_decision_id: str = ""  # the decision that the request continues, from the sealed request state


class ListenRequest(Struct, frozen=True):
    """A request for the notifications of an MCP server. `session` is the id of the client's session, for clients with `initialize`."""

    server: str
    act: Act
    notifications_wanted: ListenFilter
    listener: McpListener
    trace_context: TraceContext
    session: str = ""


class ServerCalls:
    """Calls tools, prompts and resources of MCP servers, and listens to servers. A call leaves a decision and its record, but no task."""

    def __init__(self, parts: CallParts) -> None:
        self._parts = parts
        self._authorizer = parts.authorizer
        self._call_builder = parts.authorizer.call_builder
        self._upstreams = parts.upstreams
        self._in_flight = parts.in_flight
        self.telemetry = parts.telemetry
        self.unknown_name_denials = parts.unknown_name_denials

    async def call(self, caller: Caller, request: ToolServerRequest) -> McpAnswer:
        """Returns the server's answer to a request, from the registry to the outcome in the audit.

        Cancelling a task is never rate-limited. Raises UnknownName, NotReachable, LimitReached, PayloadTooLarge, CallRefused,
        ConsentNeeded, and what the adapter raises.
        """
        # Find: raises UnknownName, NotReachable
        target, costs = self._parts.callees.find(caller, request.server, Family.SERVER), self._parts.costs
        params = request.mcp_request.params
        shares: list[HeldShare] = []
        grant: Grant | None = None
        reservation: Reservation | None = None
        result: bytes | None = None
        outcome, had_effect, effect_state = "failed", False, FAILED  # until it is sent
        try:
            # Limit: raises LimitReached, PayloadTooLarge
            if request.act.verb != VERB_STOP_TASK:
                shares += self._upstreams.limits.acquire(caller, request.act, params)
            may_have_budget = request.act.action == CALL_TOOL and (costs.has_budget or caller.delegation.path)
            reserving = costs.reservation_for(caller, request.act, target) if may_have_budget else None
            reservation = None if reserving is None else await reserving
            slots, builder = self._upstreams.slots, self._call_builder
            shares.append(
                slots.try_acquire(caller, target)
                or await slots.wait_for_slot(caller, target, request.act, builder.deadline_for(caller, request.trace_context))
            )
            # Authorize and record: raises CallRefused, recorded, and BudgetSpent
            ruling_request = ruling_request_for_server(target, request)
            if target.effects and request.act.action == CALL_TOOL and not request.act.verb:
                ruling_request = self._with_effect(ruling_request, target)
            grant = await self._authorizer.authorize_and_record(caller, ruling_request, target, params, reserve=reservation)
            note_decision(grant.decision.id)
            # Send: raises ConsentNeeded, UpstreamFault, McpRefused
            deadline = min(self._in_flight.deadline_of(caller.delegation.task_id), builder.deadline_for(caller, request.trace_context))
            call = builder.build_call(grant, target, request.trace_context, grant.decision.id, deadline)
            had_effect, effect_state = True, UNKNOWN
            answer = await self._send_and_count(call, request.mcp_request)
            outcome, result = "ok", answer.result
            if grant.effect_mark is not None:
                effect_state = _effect_state_after(answer.result)
            return McpAnswer(answer.result, grant.decision.id) if _must_name_decision(grant) else answer
        except ConsentNeeded:
            had_effect, effect_state = False, FAILED
            if grant is not None:
                await self._parts.pausing.return_approval(grant)
            raise
        except (UpstreamFault, EgressRefused, McpRefused) as fault:
            had_effect = isinstance(fault, UpstreamFault) and not (fault.is_unsent or fault.had_no_effect or fault.retryable)
            effect_state = UNKNOWN if had_effect else FAILED
            raise
        finally:
            release(shares)
            if grant is not None:
                self._authorizer.record_outcome(grant, outcome, effect_state)
                if reservation is not None or target.prices or (result is not None and META_MEMBER in result):
                    await self._record_cost(grant, target, result, had_effect=had_effect, is_reserved=reservation is not None)
                if grant.effect_mark is not None:
                    await self._authorizer.effects.settle(grant)

    async def _record_cost(self, grant: Grant, target: Registration, result: bytes | None, *, had_effect: bool, is_reserved: bool) -> None:
        """Charges and stores what a tool call has cost. The cancellation of the caller does not stop this."""
        recording = self._parts.costs.recording_of_tool_call(grant, target, result, had_effect=had_effect, is_reserved=is_reserved)
        if recording is not None:
            await asyncio.shield(run_in_background(recording, "cost_not_recorded"))

    def _with_effect(self, ruling_request: RulingRequest, target: Registration) -> RulingRequest:
        """Returns the ruling request of a tool call with the effect that an operator declared for the tool."""
        act, until = ruling_request.act, self._call_builder.latest_end_of(target)
        declared = target.effect_of(act.resource.removeprefix(f"{act.parent}."))
        return replace(ruling_request, terms=with_effect(ruling_request.terms, declared, ruling_request.arguments or {}, until=until))

    async def listen(self, caller: Caller, request: ListenRequest) -> None:
        """Listens to an MCP server until the server ends the stream. Records a decision and no task.

        Raises what `call` raises, and NotSent if the caller has as many open streams as its share allows.
        """
        target = self._parts.callees.find(caller, request.server, Family.SERVER)
        grant = await self._authorizer.authorize_and_record(caller, ruling_request_for_listening(target, request))
        call = self._call_builder.build_call(grant, target, request.trace_context, grant.decision.id)
        slot = self._upstreams.listening_slots.try_acquire(caller, target)
        if slot is None:
            raise NotSent("You have as many open streams with servers as your share allows", target.name)
        waiting = self._in_flight.begin_call(grant)
        try:
            await self._upstreams.tool_servers.listen(call, request.notifications_wanted, request.listener, request.session)
        except asyncio.CancelledError:
            self._in_flight.raise_if_abandoned(waiting)
            raise
        finally:
            slot.free()
            self._in_flight.end_call(waiting)

    async def _send_and_count(self, call: Call, request: McpRequest) -> McpAnswer:
        """Returns the server's answer, and counts it with its duration. A result with `isError` counts as a failure of the tool."""
        began, outcome = time.perf_counter(), "failed"
        waiting = self._in_flight.begin_call(call.grant)
        try:
            answer = await self._send(call, request)
            outcome = "ok"
            if request.method == "tools/call" and is_tool_error(answer.result):
                outcome = TOOL_ERROR
                note_outcome(TOOL_ERROR)
            return answer
        except asyncio.CancelledError:
            self._in_flight.raise_if_abandoned(waiting)
            outcome = "canceled"
            raise
        except (UpstreamFault, EgressRefused, McpRefused) as fault:
            if not (isinstance(fault, McpRefused) and fault.has_next_step):
                _log_failure(call, fault)
            raise
        finally:
            self._in_flight.end_call(waiting)
            self.telemetry.count(call.target, request.method, outcome, began)

    def _send(self, call: Call, request: McpRequest) -> Awaitable[McpAnswer]:
        """Sends a request. The server's time stands still while its client is asked."""
        tool_servers = self._upstreams.tool_servers
        if request.peer is not None and request.peer.capabilities:
            return call_with_pausable_timeout(tool_servers.call, call, request, request.peer)
        return tool_servers.call(call, request)


def ruling_request_for_server(target: Registration, request: ToolServerRequest) -> RulingRequest:
    """Builds the ruling request for a request to an MCP server."""
    terms = terms_of(target, request.act, request.approval_id)
    if request.continues_decision_id:
        terms = replace(terms, continues_decision_id=request.continues_decision_id)
    return RulingRequest(
        request.act, target.tenant, request.arguments, parse_ceiling(target.ceiling), trace_id=request.trace_context.trace_id, terms=terms
    )


def ruling_request_for_listening(target: Registration, request: ListenRequest) -> RulingRequest:
    """Builds the ruling request for listening to an MCP server."""
    terms = terms_of(target, request.act)
    return RulingRequest(
        request.act, target.tenant, None, parse_ceiling(target.ceiling), trace_id=request.trace_context.trace_id, terms=terms
    )


def _effect_state_after(result: bytes) -> str:
    """Returns how the effect of a call has ended, by its result; ASKED where the tool goes on after an answer."""
    if is_tool_error(result):
        return FAILED
    return ASKED if asks_for_input(result) else DONE


def _must_name_decision(grant: Grant) -> bool:
    """Returns whether a follow-up of this call must name its decision: people approved it, or it is counted, or has an effect."""
    counted = grant.history_mark is not None and grant.history_mark.version is not None and grant.decision.txn
    return bool(grant.decision.approval or counted or grant.effect_mark is not None)


def _log_failure(call: Call, fault: UpstreamFault | EgressRefused | McpRefused) -> None:
    detail = fault.cause if isinstance(fault, UpstreamFault) else fault.detail if isinstance(fault, McpRefused) else ""
    log.warning("server_failed", server=call.target.name, decision_id=call.grant.decision.id, problem=fault.public, detail=detail)
