"""The standard environment variables of OpenTelemetry that decide whether the gateway exports traces."""

from pathlib import Path

import pytest

from gateway.telemetry.environment import Signal, is_exported, metrics_interval
from tests.fakes.collector import collecting
from tests.fakes.house import CallbackAgent, house

BASE, TRACES, DISABLED = "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_SDK_DISABLED"
URL = "http://127.0.0.1:4318"


@pytest.mark.parametrize("named", [{BASE: URL}, {TRACES: f"{URL}/spans"}, {BASE: "", TRACES: URL}, {BASE: URL, DISABLED: ""}])
def test_either_endpoint_is_enough(named: dict[str, str]) -> None:
    assert is_exported("traces", named)


@pytest.mark.parametrize("named", [{}, {BASE: ""}, {TRACES: ""}, {"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": URL}])
def test_without_an_endpoint_for_traces_nothing_is_exported(named: dict[str, str]) -> None:
    assert not is_exported("traces", named)


@pytest.mark.parametrize(("value", "exported"), [("true", False), ("TRUE", False), ("false", True), ("1", True), ("yes", True)])
def test_only_true_disables_the_sdk(value: str, exported: bool) -> None:
    assert is_exported("traces", {BASE: URL, DISABLED: value}) is exported


@pytest.mark.parametrize("signal", ["traces", "metrics", "logs"])
def test_one_endpoint_is_for_all_signals_and_each_can_be_turned_off(signal: Signal) -> None:
    assert is_exported(signal, {BASE: URL})
    assert not is_exported(signal, {BASE: URL, f"OTEL_{signal.upper()}_EXPORTER": "none"})
    assert is_exported(signal, {f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT": URL})


@pytest.mark.parametrize(("text", "seconds"), [("5000", 5.0), ("", 60.0), ("0", 60.0), ("-1", 60.0), ("soon", 60.0)])
def test_metrics_are_exported_at_the_standard_interval(text: str, seconds: float) -> None:
    assert metrics_interval({"OTEL_METRIC_EXPORT_INTERVAL": text}) == seconds


def test_the_exporter_none_turns_traces_off() -> None:
    assert not is_exported("traces", {BASE: URL, "OTEL_TRACES_EXPORTER": "none"})
    assert is_exported("traces", {BASE: URL, "OTEL_TRACES_EXPORTER": "otlp"})


async def test_spans_go_to_the_endpoint_for_traces_as_it_is_written(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(BASE, raising=False)
    with collecting() as collector:
        monkeypatch.setenv(TRACES, f"{collector.url}/custom/spans")
        async with house(tmp_path, database_url, telemetry={"sample": 1.0}) as home:
            await home.agent(CallbackAgent("sales"))
            await home.send(home.token("alice"), "sales", "hello")
            assert home.gateway.tracer is not None
            home.gateway.tracer.flush()
    assert collector.one("invoke_agent sales")
    assert set(collector.paths) == {"/custom/spans"}


async def test_a_disabled_sdk_changes_nothing_for_callers(tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(BASE, URL)
    monkeypatch.setenv(DISABLED, "true")
    async with house(tmp_path, database_url) as home:
        await home.agent(CallbackAgent("sales"))
        answer = await home.send(home.token("alice"), "sales", "hello")
        assert home.gateway.tracer is None
    assert answer["result"]["task"]["status"]["state"] == "TASK_STATE_COMPLETED"
