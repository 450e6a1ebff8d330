"""Calls: what a Grant allows becomes a Call, with the credential that its target is to see and the time that it has."""

import asyncio
import math
from collections.abc import Mapping

from msgspec.structs import replace

from adapters.contract import Call
from adapters.upstream.live_headers import LiveHeaders
from gateway.calls.limits.deadlines import DEADLINE, from_loop, on_loop
from gateway.calls.outgoing.upstreams import Outside, Trail
from gateway.tasks.events.entries import rfc3339
from gateway.tasks.turns.store import Memory
from gateway.telemetry.spans import TRACEPARENT
from policies.callers import Caller
from policies.delegation.rulings import Grant
from policies.tokens.hop_tokens import HopTokens
from policies.tokens.tickets import TICKET, new_ticket
from registry.cards.card import FEATURES, Family, Registration


class Calls:
    """Makes calls, and knows when each has to be over."""

    def __init__(self, tokens: HopTokens, memory: Memory, outside: Outside) -> None:
        self._tokens = tokens
        self._memory = memory
        self._outside = outside

    def make(self, grant: Grant, target: Registration, trail: Trail, key: str, last: float = math.inf) -> Call:
        """The leave to call `target`, with the credential it is to see. `key` is the call's idempotency key.

        `last`: when whoever causes the call is over, on the event loop's clock; a call never outlives that.
        """
        is_agent = target.family is Family.AGENT
        now = asyncio.get_running_loop().time()
        usual = now + float(target.upstream.get("timeout", self._outside.agent_timeout if is_agent else self._outside.tool_timeout))
        deadline = min(last, usual)
        headers = {**trail.headers, **self._outside.headers(target)}
        if not is_agent:
            return Call(grant, target, deadline, headers, key, hurried=last < usual)
        if FEATURES not in target.facts:
            headers[DEADLINE] = rfc3339(self._memory.now() + int((deadline - now) * 1e6))
        sent = self._with_credential(headers, grant, target)
        return Call(grant, target, deadline, sent, key, hurried=last < usual, idle=self._idle(target))

    def last(self, caller: Caller, trail: Trail) -> float:
        """When a caller has no time left, on the event loop's clock: by its own word, and by the turn that it acts in, in any process."""
        return on_loop(min(trail.last, caller.delegation.deadline), self._memory.now())

    def goes_on(self, call: Call, task_id: str) -> None:
        """A task that waited is worked on again, by the same leave: what its agent begins has no more time than that."""
        until, held = from_loop(call.deadline, self._memory.now()), call.grant.delegation
        self._memory.database.post(lambda batch: self._memory.grants.bind(batch, held.principal.tenant, held.grant_id, task_id, until))

    def renewed(self, call: Call) -> Call:
        """The same call with the ticket that was kept, if it had one, and all of its time, in the same trace."""
        last = on_loop(call.grant.delegation.not_after, self._memory.now())
        trail = Trail(headers={name: value for name, value in call.headers.items() if name == TRACEPARENT})
        again = self.make(call.grant, call.target, trail, call.idempotency_key, last)
        if call.target.delegation != "ticket":
            return again
        return replace(again, headers={**again.headers, TICKET: call.headers[TICKET]})

    def _with_credential(self, headers: dict[str, str], grant: Grant, target: Registration) -> Mapping[str, str]:
        """A hop token is minted anew when half of its life is over, as long as its call goes on."""
        if target.delegation == "none":
            return headers
        if target.delegation == "ticket":
            return {**headers, TICKET: new_ticket()}
        name, prefix = ("Interlock-Delegation", "") if target.delegation == "header" else ("Authorization", "Bearer ")
        return LiveHeaders(headers, name, lambda: prefix + self._tokens.credential(grant, target.url), self._tokens.ttl / 2)

    def _idle(self, target: Registration) -> float:
        """Seconds of silence. An operator who gives an agent its own time for a turn means that it may be silent for as long."""
        upstream = target.upstream
        return float(upstream.get("idle_timeout", upstream.get("timeout", self._outside.idle_timeout)))
