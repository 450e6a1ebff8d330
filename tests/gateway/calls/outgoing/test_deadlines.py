"""Deadlines: nobody has more time than whoever they work for, in whichever process, and a caller may only take time away."""

import asyncio
import math
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from adapters.contract import Ask, Call, Done, Event, Turn
from adapters.mcp_client.wire.messages import McpAnswer
from adapters.upstream.breaker import FAILURES_MAX
from gateway.calls.outgoing.builder import DEADLINE_HEADER
from gateway.ingress.http.asgi import BadHeader
from gateway.ingress.http.request_trace import parse_deadline
from policies.callers import Caller
from policies.ids import now_us
from registry.cards.card import Family, RegistrationStatus
from registry.rows import Candidate
from tests.fakes.house import CallbackAgent, House
from tests.fakes.processes import Process, process, sending, tool_call
from tests.fakes.waiting import until

SLACK = 20.0  # seconds between two looks at two clocks
MINUTES = 3000.0
SQLITE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (None, math.inf),
        ("", math.inf),
        ("1970-01-01T00:00:10Z", 10.0),
        ("1970-01-01T00:00:10.25Z", 10.25),
        ("1970-01-01T01:00:10+01:00", 10.0),
        ("1970-01-01T00:00:10.123456789Z", 10.123456),
        ("1969-12-31T23:59:59Z", 0.0),
        ("0001-01-01T00:00:00+23:59", 0.0),  # before any year that can be written
    ],
)
def test_a_deadline_is_a_moment(text: str | None, seconds: float) -> None:
    assert parse_deadline(text) == seconds


@pytest.mark.parametrize(
    "text",
    ["10", "soon", "1970-01-01", "1970-01-01T00:00:10", "1970-13-01T00:00:10Z", "1970-W01-1T00:00:10Z", "inf", "٢٠٢٦-11-21T10:00:00Z"],
)
def test_what_is_no_moment_is_refused(text: str) -> None:
    with pytest.raises(BadHeader, match="interlock-deadline"):
        parse_deadline(text)


@pytest.fixture
async def here(tmp_path: Path, database_url: str) -> AsyncIterator[Process]:
    async with process(tmp_path / "here", database_url) as built:
        await built.registered()
        given: dict[str, Any] = {
            "owner": "operator",
            "status": RegistrationStatus.ACTIVE,
            "url": "http://support.test/",
            "upstream": {"timeout": MINUTES},
        }
        await built.gateway.registry.add(Candidate(tenant="default", name="support", family=Family.AGENT, kind="a2a", **given))
        yield built


@pytest.fixture
async def there(here: Process, tmp_path: Path, database_url: str) -> AsyncIterator[Process]:
    """Another process on the same database, which calls the same agents."""
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "keys").symlink_to(tmp_path / "here" / "keys")
    async with process(tmp_path / "there", database_url, here.agents) as built:
        yield built


async def acting(there: Process, parent: Call) -> Caller:
    """The agent of a turn, with what it was handed."""
    there.gateway.rulings.grants.invalidate()
    token = parent.headers["Authorization"].removeprefix("Bearer ")
    return await there.gateway.rulings.caller_resolver.authenticate(token, (parent.target.url,))


async def bound_again(there: Process, parent: Call) -> bool:
    return (await acting(there, parent)).delegation.deadline < math.inf


async def nested(there: Process, parent: Call) -> Call:
    """What the agent of a turn has another agent called for, at another process."""
    before = len(there.agents.calls)
    await there.calls.agents.start(await acting(there, parent), replace(sending("and you"), agent="support"))
    await until(lambda: len(there.agents.calls) > before)
    return there.agents.calls[-1][1]


async def test_a_nested_call_at_another_process_has_no_more_time_than_its_parent(here: Process, there: Process) -> None:
    here.agents.script = here.agents.at_work
    going = asyncio.create_task(here.calls.agents.send(await here.caller(), sending("go")))
    await until(lambda: bool(here.agents.calls))
    parent = here.agents.calls[0][1]
    child = await nested(there, parent)
    assert abs(child.deadline - parent.deadline) < SLACK
    kept = (await acting(there, child)).delegation
    assert abs(kept.deadline - (await acting(there, parent)).delegation.deadline) < SLACK
    assert kept.deadline < kept.not_after - SLACK
    here.agents.gate.set()
    await going


async def test_a_tool_called_at_another_process_has_no_more_time_either(
    here: Process, there: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    here.agents.script = here.agents.at_work
    going = asyncio.create_task(
        here.calls.agents.send(
            await here.caller(), replace(sending("go"), trace_context=replace(sending("").trace_context, deadline=now_us() / 1e6 + 10))
        )
    )
    await until(lambda: bool(here.agents.calls))
    called: list[Call] = []

    async def call(one: Call, _request: Any) -> Any:
        called.append(one)
        return McpAnswer(b"{}")

    monkeypatch.setattr(there.tools, "call", call)
    await there.calls.servers.call(await acting(there, here.agents.calls[0][1]), tool_call("chair"))
    await there.calls.servers.call(await there.caller(), tool_call("chair"))
    assert called[0].deadline < here.agents.calls[0][1].deadline + SLACK < called[1].deadline
    here.agents.gate.set()
    await going


async def test_what_an_agent_begins_while_its_task_waits_has_its_own_time(here: Process, there: Process) -> None:
    async def asks(turn: Turn, call: Call) -> AsyncIterator[Event]:
        yield Ask() if call.target.name == "sales" else Done()

    here.agents.script = asks
    asked = await here.calls.agents.send(await here.caller(), sending("go"))
    parent = here.agents.calls[0][1]
    assert (await acting(there, parent)).delegation.deadline == math.inf
    assert (await nested(there, parent)).deadline - parent.deadline > MINUTES / 2
    here.calls.agents._authorizer.call_builder.extend_grant_to_call(parent, asked.row.id)  # as when the agent goes on by itself
    await until(lambda: bound_again(there, parent))


@SQLITE
async def test_a_caller_says_at_every_door_until_when_it_waits_and_only_shortens(home: House) -> None:
    sales = await home.agent(CallbackAgent("sales"), upstream={"timeout": MINUTES})
    soon, late = (datetime.now(UTC) + timedelta(seconds=seconds) for seconds in (60, 10 * MINUTES))
    told = {DEADLINE_HEADER: soon.isoformat()}
    message = {"message": {"messageId": "m", "role": "ROLE_USER", "parts": [{"text": "hi"}]}}
    bearer = {"authorization": f"Bearer {home.token('alice')}"}
    await home.send(home.token("alice"), "sales", "hi", headers=told)
    await home.http.post("/agents/sales/message:send", json=message, headers=bearer | told)
    params = {"name": "sales", "arguments": {"message": "hi"}}
    mcp = {"mcp-protocol-version": "2025-11-25", **told}
    await home.rpc("/mcp", home.token("alice"), "tools/call", params, **mcp)
    await home.send(home.token("alice"), "sales", "hi", headers={DEADLINE_HEADER: late.isoformat()})
    *shortened, own = (datetime.fromisoformat(each[DEADLINE_HEADER.lower()]) for each in sales.headers)
    assert len(shortened) == 3 and all(abs(each - soon) < timedelta(seconds=SLACK) for each in shortened)
    assert soon < own < late
    refused = await home.http.post("/agents/sales/message:send", json=message, headers=bearer | {DEADLINE_HEADER: "soon"})
    assert refused.status_code == 400 and "interlock-deadline" in refused.text


@SQLITE
async def test_who_leaves_no_time_to_an_agent_takes_it_from_nobody_else(home: House) -> None:  # attack PRO-12
    await home.agent(CallbackAgent("sales"))
    for _ in range(FAILURES_MAX + 1):
        hurried = await home.send(home.token("alice"), "sales", "hi", headers={DEADLINE_HEADER: "0001-01-01T00:00:00+23:59"})
        assert "did not answer in time" in str(hurried["result"]["task"]["status"])
    answer = await home.send(home.token("alice"), "sales", "hi")
    assert answer["result"]["task"]["status"]["state"] == "TASK_STATE_COMPLETED"
