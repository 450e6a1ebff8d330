"""Metrics and log lines as a collector gets them over OTLP: names of the conventions, figures of /metrics."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from gateway.telemetry.otlp_metrics import convert_families
from tests.fakes.collector import Collector, ReceivedPoint, collecting
from tests.fakes.house import TRACE, TRACEPARENT, CallbackAgent, House, house
from tests.fakes.ports import free_port


@pytest.fixture
async def watched(tmp_path: Path, light_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[House, Collector]]:
    """A gateway that exports all signals to a collector on loopback."""
    with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        async with house(tmp_path, light_url) as built:
            yield built, collector


async def export(home: House) -> None:
    assert home.gateway.exports.metrics is not None
    await home.gateway.exports.metrics.run_once()


def one(collector: Collector, name: str, **attributes: str) -> ReceivedPoint:
    """The only point of a metric with these attributes; `__` stands for a dot in a name."""
    wanted = {key.replace("__", "."): value for key, value in attributes.items()}
    found = [point for point in collector.points[name] if wanted.items() <= point.attributes.items()]
    assert len(found) == 1, collector.points[name]
    return found[0]


async def test_calls_have_the_names_of_the_conventions(watched: tuple[House, Collector]) -> None:
    home, collector = watched
    server = await home.server("inventory", "check")
    await home.agent(CallbackAgent("sales"))
    await home.send(home.token("alice"), "sales", "hello")
    await home.call(home.token("alice"), "/mcp/inventory", "check", {})
    server.result = lambda _: {"content": [], "isError": True, "resultType": "complete"}  # type: ignore[method-assign]  # another answer
    await home.call(home.token("alice"), "/mcp/inventory", "check", {})
    await export(home)
    turn = one(collector, "gen_ai.invoke_agent.duration", gen_ai__agent__name="sales")
    assert turn.unit == "s" and turn.value == 1 and sum(turn.buckets) == 1
    assert turn.attributes == {
        "gen_ai.operation.name": "invoke_agent",
        "gen_ai.agent.name": "sales",
        "interlock.tenant": "default",
    }
    called = {"mcp__method__name": "tools/call", "interlock__server": "inventory", "gen_ai__operation__name": "execute_tool"}
    points = [point for point in collector.points["mcp.client.operation.duration"] if point.attributes["interlock.server"] == "inventory"]
    assert sorted(point.attributes.get("error.type", "") for point in points) == ["", "failed"]
    assert one(collector, "mcp.client.operation.duration", error__type="failed", **called).value == 1
    assert one(collector, "mcp.server.operation.duration", mcp__method__name="tools/call", error__type="failed").value == 1
    sent = one(collector, "rpc.server.call.duration", rpc__method="SendMessage")
    assert sent.value == 1 and "error.type" not in sent.attributes
    assert one(collector, "interlock.build_info").attributes["interlock.version"]
    assert collector.resources[-1]["service.name"] == "interlock"


async def test_log_lines_arrive_with_their_trace_and_without_secrets(watched: tuple[House, Collector]) -> None:
    home, collector = watched
    await home.registered("away", f"http://127.0.0.1:{free_port()}")
    await home.send(home.token("alice"), "away", "of-alice", headers={"traceparent": TRACEPARENT})
    structlog.get_logger().warning("something_happened", password="hunter22", count=3)
    assert home.gateway.exports.logs is not None
    home.gateway.exports.logs.flush()
    (line,) = [line for line in collector.lines if line.body == "something_happened"]
    assert line.severity == "warning" and line.attributes == {"interlock.password": "[hidden]", "interlock.count": 3}
    assert TRACE in {line.trace_id for line in collector.lines}
    assert "of-alice" not in repr(collector.lines)


async def test_a_signal_that_is_turned_off_is_not_exported(tmp_path: Path, light_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        monkeypatch.setenv("OTEL_METRICS_EXPORTER", "none")
        monkeypatch.setenv("OTEL_LOGS_EXPORTER", "none")
        async with house(tmp_path, light_url) as home:
            assert (home.gateway.exports.metrics, home.gateway.exports.logs) == (None, None)
            assert home.gateway.tracer is not None
    assert not collector.points and not collector.lines


async def test_the_last_figures_are_exported_when_the_gateway_stops(
    tmp_path: Path, light_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        async with house(tmp_path, light_url) as home:
            await home.agent(CallbackAgent("sales"))
            await home.send(home.token("alice"), "sales", "hello")
        assert one(collector, "gen_ai.invoke_agent.duration").value == 1


async def test_a_collector_that_is_away_costs_a_line_and_nothing_else(
    tmp_path: Path, light_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.5")
    async with house(tmp_path, light_url) as home:
        await home.agent(CallbackAgent("sales"))
        answer = await home.send(home.token("alice"), "sales", "hello")
        assert answer["result"]["task"]["status"]["state"] == "TASK_STATE_COMPLETED"
        await export(home)
    lines = [line for line in capsys.readouterr().err.splitlines() if "metrics_not_exported" in line]
    assert len(lines) == 1 and "OTEL_METRICS_EXPORTER=none" in lines[0]


def test_a_histogram_keeps_its_counts_per_bucket() -> None:
    registry = CollectorRegistry()
    histogram = Histogram("interlock_wait_seconds", "Wait.", ("kind",), registry=registry, buckets=(1.0, 5.0))
    for seconds in (0.5, 0.7, 3.0, 9.0):
        histogram.labels("a").observe(seconds)
    (metric,) = convert_families(registry.collect(), 1, 2)
    (point,) = metric.data.data_points
    assert (metric.name, metric.unit, point.attributes) == ("interlock.wait", "s", {"interlock.kind": "a"})
    assert (list(point.bucket_counts), list(point.explicit_bounds)) == ([2, 1, 1], [1.0, 5.0])  # type: ignore[union-attr]  # a histogram
    assert (point.count, point.sum) == (4, 13.2)  # type: ignore[union-attr]  # a histogram


def test_counters_only_grow_and_gauges_have_their_unit() -> None:
    registry = CollectorRegistry()
    Counter("interlock_calls", "Calls.", ("door",), registry=registry).labels("mcp").inc(3)
    Gauge("interlock_memory_bytes", "Memory.", registry=registry).set(7)
    calls, memory = convert_families(registry.collect(), 1, 2)
    assert calls.name == "interlock.calls" and calls.data.is_monotonic  # type: ignore[union-attr]  # a sum
    assert [point.value for point in calls.data.data_points] == [3]  # type: ignore[union-attr]  # numbers
    assert (memory.name, memory.unit) == ("interlock.memory", "By")
