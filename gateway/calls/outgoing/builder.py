"""Calls: what a Grant allows becomes a Call, with the credential that its target is to see and the time that it has."""

import asyncio
import math
from collections.abc import Mapping

from msgspec.structs import replace

from adapters.contract import Call
from adapters.upstream.live_headers import LiveHeaders
from gateway.calls.limits.deadlines import DEADLINE_HEADER, to_loop_clock, to_wall_clock
from gateway.calls.outgoing.upstreams import TraceContext, Upstreams
from gateway.tasks.events.entries import to_rfc3339
from gateway.tasks.turns.store import TaskStores
from gateway.telemetry.spans import TRACEPARENT
from policies.callers import Caller
from policies.delegation.rulings import Grant
from policies.tokens.hop_tokens import HopTokens
from policies.tokens.tickets import TICKET_HEADER, new_ticket
from registry.cards.card import FEATURES, Family, Registration


class CallBuilder:
    """Makes calls, and knows when each has to be over."""

    def __init__(self, hop_tokens: HopTokens, stores: TaskStores, upstreams: Upstreams) -> None:
        self._hop_tokens = hop_tokens
        self._stores = stores
        self._upstreams = upstreams

    def build_call(
        self, grant: Grant, target: Registration, trace_context: TraceContext, idempotency_key: str, caller_deadline: float = math.inf
    ) -> Call:
        """The leave to call `target`, with the credential it is to see. `key` is the call's idempotency key.

        `last`: when whoever causes the call is over, on the event loop's clock; a call never outlives that.
        """
        is_agent = target.family is Family.AGENT
        now = asyncio.get_running_loop().time()
        usual = now + float(target.upstream.get("timeout", self._upstreams.agent_timeout if is_agent else self._upstreams.tool_timeout))
        deadline = min(caller_deadline, usual)
        headers = {**trace_context.headers, **self._upstreams.headers_for(target)}
        if not is_agent:
            return Call(grant, target, deadline, headers, idempotency_key, has_shortened_deadline=caller_deadline < usual)
        if FEATURES not in target.facts:
            headers[DEADLINE_HEADER] = to_rfc3339(self._stores.now() + int((deadline - now) * 1e6))
        sent = self._add_credential(headers, grant, target)
        return Call(
            grant, target, deadline, sent, idempotency_key, has_shortened_deadline=caller_deadline < usual, idle=self._idle_seconds(target)
        )

    def deadline_for(self, caller: Caller, trace_context: TraceContext) -> float:
        """When a caller has no time left, on the event loop's clock: by its own word, and by the turn that it acts in, in any process."""
        return to_loop_clock(min(trace_context.deadline, caller.delegation.deadline), self._stores.now())

    def extend_grant_to_call(self, call: Call, task_id: str) -> None:
        """A task that waited is worked on again, by the same leave: what its agent begins has no more time than that."""
        until, held = to_wall_clock(call.deadline, self._stores.now()), call.grant.delegation
        self._stores.database.post(
            lambda batch: self._stores.grants.set_deadline(batch, held.principal.tenant, held.grant_id, task_id, until)
        )

    def renew_call(self, call: Call) -> Call:
        """The same call with the ticket that was kept, if it had one, and all of its time, in the same trace."""
        last = to_loop_clock(call.grant.delegation.not_after, self._stores.now())
        trail = TraceContext(headers={name: value for name, value in call.headers.items() if name == TRACEPARENT})
        again = self.build_call(call.grant, call.target, trail, call.idempotency_key, last)
        if call.target.delegation != "ticket":
            return again
        return replace(again, headers={**again.headers, TICKET_HEADER: call.headers[TICKET_HEADER]})

    def _add_credential(self, headers: dict[str, str], grant: Grant, target: Registration) -> Mapping[str, str]:
        """A hop token is minted anew when half of its life is over, as long as its call goes on."""
        if target.delegation == "none":
            return headers
        if target.delegation == "ticket":
            return {**headers, TICKET_HEADER: new_ticket()}
        name, prefix = ("Interlock-Delegation", "") if target.delegation == "header" else ("Authorization", "Bearer ")
        return LiveHeaders(headers, name, lambda: prefix + self._hop_tokens.mint_credential(grant, target.url), self._hop_tokens.ttl / 2)

    def _idle_seconds(self, target: Registration) -> float:
        """Seconds of silence. An operator who gives an agent its own time for a turn means that it may be silent for as long."""
        upstream = target.upstream
        return float(upstream.get("idle_timeout", upstream.get("timeout", self._upstreams.idle_timeout)))
