"""What /metrics says of requests to each interface, and of the agents and servers behind the gateway."""

import pytest

from gateway.telemetry.metrics import UPSTREAMS_MAX, Metrics
from tests.fakes.house import CallbackAgent, House
from tests.fakes.ports import nowhere

METHOD = {"agent": "invoke_agent", "server": "tools/call"}


def counted(home: House, figure: str, /, **labels: str) -> float:
    return home.gateway.metrics.registry.get_sample_value(f"interlock_{figure}", labels) or 0


def calls(home: House, family: str, name: str, outcome: str) -> float:
    return counted(home, "upstream_calls_total", family=family, tenant="default", name=name, method=METHOD[family], outcome=outcome)


def timed(home: House, family: str, name: str, result: str) -> float:
    labels = {"family": family, "tenant": "default", "name": name, "method": METHOD[family]}
    return counted(home, "upstream_seconds_count", **labels, result=result)


async def test_each_agent_is_counted_and_timed_with_how_its_turns_ended(home: House) -> None:
    agent = await home.agent(CallbackAgent("sales"))
    await home.send(home.token("alice"), "sales", "hello")
    agent.state = "TASK_STATE_FAILED"
    await home.send(home.token("alice"), "sales", "hello")
    await home.registered("away", nowhere())
    await home.send(home.token("alice"), "away", "hello")
    assert [calls(home, "agent", "sales", outcome) for outcome in ("ok", "failed")] == [1, 1]
    assert [calls(home, "agent", "away", outcome) for outcome in ("ok", "failed")] == [0, 1]
    assert [timed(home, "agent", "sales", result) for result in ("ok", "failed")] == [1, 1]


async def test_each_server_is_counted_and_a_tools_own_error_is_told_apart(home: House) -> None:
    server = await home.server("inventory", "check")
    await home.call(home.token("alice"), "/mcp/inventory", "check", {})
    server.result = lambda _: {"content": [], "isError": True, "resultType": "complete"}  # type: ignore[method-assign]  # another answer
    await home.call(home.token("alice"), "/mcp/inventory", "check", {})
    await home.server("away", "check", url=nowhere())
    await home.call(home.token("admin"), "/mcp/away", "check", {})
    assert [calls(home, "server", "inventory", outcome) for outcome in ("ok", "tool-error", "failed")] == [1, 1, 0]
    assert calls(home, "server", "away", "failed") == 1
    assert counted(home, "calls_total", door="mcp", method="tools/call", outcome="tool-error") == 1
    assert [timed(home, "server", "inventory", result) for result in ("ok", "failed")] == [1, 1]


async def test_a_refused_call_is_none_of_its_target(home: House) -> None:
    await home.server("inventory", "check", "reserve")
    await home.call(home.token("bob"), "/mcp/inventory", "reserve", {})
    assert "interlock_upstream_calls_total{" not in home.gateway.metrics.render().decode()


async def test_administration_and_tokens_are_counted_with_their_outcomes(home: House) -> None:
    await home.agent(CallbackAgent("sales"))
    shown = {"authorization": f"Bearer {home.token('alice')}"}
    for path, headers in (("/api/agents", shown), ("/api/agents", {}), ("/api/agents/unknown", shown), ("/api/agents/any-text", shown)):
        await home.http.get(path, headers=headers)
    await home.exchange("sales", "no token", "/mcp", "tool:*")
    outcomes = ("ok", "unauthenticated", "unknown")
    assert [counted(home, "calls_total", door="admin", method="GET", outcome=outcome) for outcome in outcomes] == [1, 1, 2]
    results = [counted(home, "call_seconds_count", door="admin", method="GET", result=result) for result in ("ok", "refused", "failed")]
    assert results == [1, 3, 0]
    assert counted(home, "calls_total", door="oauth", method="POST", outcome="rejected") == 1
    assert "any-text" not in home.gateway.metrics.render().decode()


@pytest.mark.parametrize("family", ["agent", "server"])
def test_no_number_of_agents_makes_more_series_than_are_bounded(family: str) -> None:
    metrics = Metrics()
    for number in range(UPSTREAMS_MAX + 50):
        metrics.upstream((family, "default", f"name-{number}"), METHOD[family], "ok", 0.1)
    names = [line for line in metrics.render().decode().splitlines() if line.startswith("interlock_upstream_calls_total{")]
    assert len(names) == UPSTREAMS_MAX + 1
    other = {"family": family, "tenant": "", "name": "other", "method": METHOD[family], "outcome": "ok"}
    assert metrics.registry.get_sample_value("interlock_upstream_calls_total", other) == 50


async def test_requests_are_timed_by_the_tenant_of_their_caller(home: House) -> None:
    await home.server("inventory", "check")
    await home.call(home.token("alice"), "/mcp/inventory", "check", {})
    await home.call("no token", "/mcp/inventory", "check", {})
    assert counted(home, "tenant_call_seconds_count", tenant="default", result="ok") == 1
    assert counted(home, "tenant_call_seconds_count", tenant="default", result="refused") == 0
