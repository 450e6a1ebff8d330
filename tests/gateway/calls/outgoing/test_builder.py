"""Calls that a Grant allows: which credential the target gets, and until when the call may run."""

import asyncio
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from adapters.contract import Call
from gateway.calls.outgoing.builder import DEADLINE_HEADER, CallBuilder
from gateway.calls.outgoing.upstreams import Upstreams
from gateway.telemetry.spans import TraceContext
from policies.callers import Caller
from policies.delegation.rulings import Grant
from policies.tokens.tickets import TICKET_HEADER
from registry.cards.card import FEATURES, Family, Registration
from tests.fakes.a2a_calls import GRANT
from tests.fakes.clock import Clock
from tests.fakes.oauth import SALES

CRM = replace(SALES, name="crm", family=Family.SERVER)
TRACE = TraceContext("", {"traceparent": "00-a-b-01"})
AGENT_SECONDS, TOOL_SECONDS, IDLE_SECONDS = 60.0, 20.0, 30.0


class HopTokens:
    """Counts the tokens that are minted."""

    ttl = 120
    minted = 0

    def mint_credential(self, grant: Grant, audience: str) -> str:
        self.minted += 1
        return f"token for {audience}"


class Stores:
    """The clock of tasks."""

    now = Clock().us


class Scene:
    """A builder, and what it asks. `headers` are the operator's own for every target."""

    def __init__(self) -> None:
        self.tokens = HopTokens()
        self.headers: Mapping[str, str] = {}
        tokens: Any = self.tokens
        stores: Any = Stores()
        nothing: Any = None
        upstreams = Upstreams(nothing, nothing, lambda _: self.headers, AGENT_SECONDS, TOOL_SECONDS, idle_timeout=IDLE_SECONDS)
        self.builder = CallBuilder(tokens, stores, upstreams)

    def call(self, target: Registration, caller_seconds: float = math.inf) -> Call:
        return self.builder.build_call(GRANT, target, TRACE, "key", asyncio.get_running_loop().time() + caller_seconds)


@pytest.fixture
def scene() -> Scene:
    return Scene()


def seconds_of(call: Call) -> int:
    """For how long a call may run, counted from now."""
    return round(call.deadline - asyncio.get_running_loop().time())


async def test_an_agent_gets_a_hop_token_for_its_own_url(scene: Scene) -> None:
    assert scene.call(SALES).headers["Authorization"] == "Bearer token for https://sales.test/a2a"


async def test_an_agent_with_credentials_of_its_own_gets_the_token_in_another_header(scene: Scene) -> None:
    headers = scene.call(replace(SALES, delegation="header")).headers
    assert headers["Interlock-Delegation"] == "token for https://sales.test/a2a"
    assert "Authorization" not in headers


async def test_each_ticket_is_another_one_and_mints_no_token(scene: Scene) -> None:
    target = replace(SALES, delegation="ticket")
    assert scene.call(target).headers[TICKET_HEADER] != scene.call(target).headers[TICKET_HEADER]
    assert scene.tokens.minted == 0


async def test_an_agent_without_delegation_gets_no_credential(scene: Scene) -> None:
    assert set(scene.call(replace(SALES, delegation="none")).headers) == {"traceparent", DEADLINE_HEADER}


async def test_a_tool_server_gets_the_operators_headers_and_no_token(scene: Scene) -> None:
    scene.headers = {"X-Api-Key": "operator"}
    crm = replace(CRM, upstream={"headers": {"X-Api-Key": "env:KEY"}})
    assert scene.call(crm).headers == {
        "traceparent": "00-a-b-01",
        "X-Api-Key": "operator",
    }
    assert scene.tokens.minted == 0


async def test_agents_and_tools_have_the_time_of_the_settings(scene: Scene) -> None:
    assert (seconds_of(scene.call(SALES)), seconds_of(scene.call(CRM))) == (60, 20)


async def test_a_target_may_have_a_time_of_its_own_and_be_silent_for_as_long(scene: Scene) -> None:
    call = scene.call(replace(SALES, upstream={"timeout": 300}))
    assert (seconds_of(call), call.idle, scene.call(SALES).idle) == (300, 300.0, IDLE_SECONDS)


async def test_a_call_never_outlives_the_caller(scene: Scene) -> None:
    call = scene.call(SALES, caller_seconds=5)
    assert (seconds_of(call), call.has_shortened_deadline) == (5, True)
    assert not scene.call(SALES).has_shortened_deadline


async def test_an_a2a_agent_is_told_the_deadline_and_a_vendors_agent_is_not(scene: Scene) -> None:
    assert "2027-01-15T08:00:04" < scene.call(SALES, caller_seconds=5).headers[DEADLINE_HEADER] <= "2027-01-15T08:00:05Z"
    assert DEADLINE_HEADER not in scene.call(replace(SALES, facts={FEATURES: {}})).headers


async def test_a_caller_has_until_the_earlier_of_its_own_deadline_and_that_of_its_turn(scene: Scene) -> None:
    now, loop = Clock()(), asyncio.get_running_loop()
    delegation = GRANT.delegation.with_deadline(now + 10)
    caller = Caller(delegation.principal, delegation, "", "t", 2e9, "alice")
    found = [scene.builder.deadline_for(caller, TraceContext(deadline=now + seconds)) - loop.time() for seconds in (3, 30)]
    assert [round(each) for each in found] == [3, 10]


async def test_a_renewed_call_keeps_the_ticket_and_the_trace(scene: Scene) -> None:
    before = scene.call(replace(SALES, delegation="ticket"))
    again = scene.builder.renew_call(before)
    assert again.headers[TICKET_HEADER] == before.headers[TICKET_HEADER]
    assert again.headers["traceparent"] == before.headers["traceparent"]
