"""Builds calls: a Grant becomes a Call with the credential for its target and a deadline."""

import asyncio
import math
from collections.abc import Mapping
from typing import Final

from msgspec.structs import replace

from adapters.contract import Call
from adapters.upstream.live_headers import LiveHeaders
from gateway.calls.outgoing.upstreams import Upstreams
from gateway.tasks.events.entries import to_rfc3339
from gateway.tasks.turns.stores import TaskStores
from gateway.telemetry.spans import TRACEPARENT, TraceContext
from policies.callers import Caller
from policies.delegation.rulings import Grant
from policies.tokens.hop_tokens import HopTokens
from policies.tokens.tickets import TICKET_HEADER, new_ticket
from registry.cards.card import FEATURES, Family, Registration

DEADLINE_HEADER: Final = "Interlock-Deadline"


def to_loop_clock(deadline: float, now_us: int) -> float:
    """Converts seconds since 1970 to the event loop's clock. `now_us` is the wall clock in microseconds."""
    return deadline if deadline == math.inf else asyncio.get_running_loop().time() + deadline - now_us / 1e6


def to_wall_clock(deadline: float, now_us: int) -> float:
    """Converts a moment on the event loop's clock to seconds since 1970. `now_us` is the wall clock in microseconds."""
    return now_us / 1e6 + deadline - asyncio.get_running_loop().time()


class CallBuilder:
    """Builds Calls and computes their deadlines."""

    def __init__(self, hop_tokens: HopTokens, stores: TaskStores, upstreams: Upstreams) -> None:
        self._hop_tokens = hop_tokens
        self._stores = stores
        self._upstreams = upstreams

    def build_call(
        self, grant: Grant, target: Registration, trace_context: TraceContext, idempotency_key: str, caller_deadline: float = math.inf
    ) -> Call:
        """Returns the Call that `grant` allows, with the credential for `target`.

        `caller_deadline`, on the event loop's clock, is when the causing call ends; the new call never outlives it.
        """
        is_agent = target.family is Family.AGENT
        now = asyncio.get_running_loop().time()
        usual = now + float(target.upstream.get("timeout", self._upstreams.agent_timeout if is_agent else self._upstreams.tool_timeout))
        deadline = min(caller_deadline, usual)
        headers = dict(trace_context.headers)
        if "headers" in target.upstream:
            headers |= self._upstreams.resolve_headers(target.upstream)
        if not is_agent:
            return Call(grant, target, deadline, headers, idempotency_key, has_shortened_deadline=caller_deadline < usual)
        if FEATURES not in target.facts:
            headers[DEADLINE_HEADER] = to_rfc3339(self._stores.now() + int((deadline - now) * 1e6))
        sent = self._add_credential(headers, grant, target)
        return Call(
            grant, target, deadline, sent, idempotency_key, has_shortened_deadline=caller_deadline < usual, idle=self._idle_seconds(target)
        )

    def latest_end_of(self, target: Registration) -> int:
        """Returns when a call of a server that begins now ends at the latest, in microseconds since 1970."""
        return self._stores.now() + int(float(target.upstream.get("timeout", self._upstreams.tool_timeout)) * 1e6)

    def deadline_for(self, caller: Caller, trace_context: TraceContext) -> float:
        """Returns the caller's deadline on the event loop's clock.

        The earlier one counts: the deadline that the request states, or the end of the turn in which the calling agent acts, in any
        process.
        """
        deadline = min(trace_context.deadline, caller.delegation.deadline)
        return math.inf if deadline == math.inf else to_loop_clock(deadline, self._stores.now())

    def extend_grant_to_call(self, call: Call, task_id: str) -> None:
        """Sets the deadline of the call's grant in the database when a paused task continues.

        Calls that its agent makes under the grant end no later than this call.
        """
        until, held = to_wall_clock(call.deadline, self._stores.now()), call.grant.delegation
        self._stores.database.post(
            lambda batch: self._stores.grants.set_deadline(batch, held.principal.tenant, held.grant_id, task_id, until)
        )

    def renew_call(self, call: Call) -> Call:
        """Returns the call again with its full time and in the same trace. A ticket stays the same; other credentials are new."""
        last = to_loop_clock(call.grant.delegation.not_after, self._stores.now())
        trace_context = TraceContext(headers={name: value for name, value in call.headers.items() if name == TRACEPARENT})
        renewed = self.build_call(call.grant, call.target, trace_context, call.idempotency_key, last)
        if call.target.delegation != "ticket":
            return renewed
        return replace(renewed, headers={**renewed.headers, TICKET_HEADER: call.headers[TICKET_HEADER]})

    def _add_credential(self, headers: dict[str, str], grant: Grant, target: Registration) -> Mapping[str, str]:
        """Adds the credential that the target's `delegation` setting asks for.

        A hop token is replaced when half of its lifetime is over, as long as its call runs.
        """
        if target.delegation == "none":
            return headers
        if target.delegation == "ticket":
            return {**headers, TICKET_HEADER: new_ticket()}
        name, prefix = ("Interlock-Delegation", "") if target.delegation == "header" else ("Authorization", "Bearer ")
        return LiveHeaders(headers, name, lambda: prefix + self._hop_tokens.mint_credential(grant, target.url), self._hop_tokens.ttl / 2)

    def _idle_seconds(self, target: Registration) -> float:
        """Returns how many seconds the agent may send nothing.

        Without `idle_timeout`, the entry's own `timeout` applies, then the default of the gateway.
        """
        upstream = target.upstream
        return float(upstream.get("idle_timeout", upstream.get("timeout", self._upstreams.idle_timeout)))
