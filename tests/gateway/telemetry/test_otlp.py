"""The tracer on the OpenTelemetry SDK: which spans are exported, with which ids and attributes."""

import logging
from collections.abc import Sequence
from types import SimpleNamespace

import pytest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import SpanKind
from opentelemetry.trace.status import StatusCode
from structlog.testing import capture_logs

from gateway.telemetry.environment import collector_address
from gateway.telemetry.export_log import EXPORTER_LOGGER, LOG_SECONDS
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.otlp import ATTRIBUTES, PENDING_MAX, TEXT_MAX, OtelTracer, tracer_from_environment
from gateway.telemetry.span_export import LoggedExporter
from gateway.telemetry.spans import CURRENT_WORK, Resumed, TraceContext, trace_id_of
from gateway.telemetry.upstream_calls import CallTelemetry
from tests.fakes.oauth import SALES

LOW, HIGH = "0" * 31 + "1", "f" * 32  # trace ids that a sampler by ratio takes first and last
CALLER = f"00-{HIGH}-{'b' * 16}-01"


class Exporter(SpanExporter):
    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.spans.extend(spans)
        return SpanExportResult.SUCCESS


@pytest.fixture
def exporter() -> Exporter:
    return Exporter()


def tracer(exporter: Exporter, share: float = 0.1) -> OtelTracer:
    return OtelTracer(share, exporter, Resource({}))


def names(made: OtelTracer, exporter: Exporter) -> list[str]:
    made.close()
    return [span.name for span in exporter.spans]


def run(made: OtelTracer, outcome: str, parent: str = CALLER) -> None:
    """A request with two spans below it, the second of which ends with `outcome`."""
    root = made.start("request", "SERVER", parent, {})
    below = made.headers(root)["traceparent"]
    for name, how in (("first", "ok"), ("second", outcome)):
        made.finish(made.start(name, "CLIENT", below, {}), how, {})
    made.finish(root, "ok", {})


@pytest.mark.parametrize("outcome", ["error", "denied", "tool-error", "anything-new"])
def test_an_unsampled_failure_exports_its_whole_request(exporter: Exporter, outcome: str) -> None:
    made = tracer(exporter)
    run(made, outcome)
    assert names(made, exporter) == ["first", "second", "request"]
    assert all(span.context is not None and span.context.trace_flags.sampled for span in exporter.spans)


@pytest.mark.parametrize("outcome", ["ok", "question", "asks", "canceled"])
def test_an_unsampled_ordinary_request_exports_nothing(exporter: Exporter, outcome: str) -> None:
    made = tracer(exporter)
    run(made, outcome)
    assert names(made, exporter) == []


def test_the_trace_id_decides_on_sampling_and_the_callers_flag_does_not(exporter: Exporter) -> None:
    made = tracer(exporter)
    run(made, "ok", f"00-{LOW}-{'b' * 16}-00")
    assert len(names(made, exporter)) == 3


@pytest.mark.parametrize(("trace_id", "flag"), [(LOW, "01"), (HIGH, "00")])
def test_the_next_hop_gets_the_gateways_own_flag(exporter: Exporter, trace_id: str, flag: str) -> None:
    made = tracer(exporter)
    span = made.start("request", "SERVER", f"00-{trace_id}-{'b' * 16}-01", {})
    assert made.headers(span) == {"traceparent": f"00-{trace_id}-{span.get_span_context().span_id:016x}-{flag}"}


def test_two_requests_of_one_trace_are_decided_on_apart(exporter: Exporter) -> None:
    made = tracer(exporter)
    run(made, "ok")
    run(made, "error")
    assert names(made, exporter) == ["first", "second", "request"]


def test_a_failure_after_the_end_of_the_request_is_exported(exporter: Exporter) -> None:
    made = tracer(exporter)
    root = made.start("request", "SERVER", CALLER, {})
    late = made.start("late", "CLIENT", made.headers(root)["traceparent"], {})
    made.finish(root, "ok", {})
    made.finish(late, "error", {})
    assert names(made, exporter) == ["late"]


def test_a_turn_that_is_not_begun_after_all_is_a_failure(exporter: Exporter) -> None:
    made = tracer(exporter)
    telemetry, row = CallTelemetry(Metrics(), made), SimpleNamespace(id="task_1", context_id="c", trace="")
    with telemetry.prepared_turn(TraceContext(HIGH, {"traceparent": CALLER}), SALES, row) as (_, begun):
        pass
    telemetry.finish(begun, "ok")
    with pytest.raises(ValueError), telemetry.prepared_turn(TraceContext(HIGH, {"traceparent": CALLER}), SALES, row):
        raise ValueError
    assert names(made, exporter) == ["invoke_agent sales"]
    assert exporter.spans[0].status.status_code is StatusCode.ERROR


def test_a_long_request_waits_in_bounded_memory(exporter: Exporter) -> None:
    made = tracer(exporter)
    root = made.start("request", "SERVER", CALLER, {})
    below = made.headers(root)["traceparent"]
    for _ in range(4 * PENDING_MAX):
        made.finish(made.start("poll", "CLIENT", below, {}), "ok", {})
    made.finish(root, "error", {})
    assert len(names(made, exporter)) == PENDING_MAX + 1


async def test_a_trace_begins_under_the_id_of_the_requests_log_lines(exporter: Exporter) -> None:
    CURRENT_WORK.set(Resumed("a" * 32))
    assert trace_id_of(tracer(exporter).headers(tracer(exporter).start("request", "SERVER", "", {}))["traceparent"]) == "a" * 32


def test_a_span_keeps_its_parent_link_kind_and_outcome(exporter: Exporter) -> None:
    made = tracer(exporter)
    link = f"00-{'c' * 32}-{'d' * 16}-01"
    span = made.start("tools/call check", "CLIENT", CALLER, {"gen_ai.tool.name": "check"}, began=5, link=link)
    made.finish(span, "denied", {})
    made.close()
    (shown,) = exporter.spans
    assert shown.parent is not None and f"{shown.parent.span_id:016x}" == "b" * 16
    assert [f"{one.context.trace_id:032x}" for one in shown.links] == ["c" * 32]
    assert (shown.kind, shown.status.status_code, shown.start_time) == (SpanKind.CLIENT, StatusCode.ERROR, 5)
    assert shown.attributes == {"gen_ai.tool.name": "check", "interlock.outcome": "denied", "error.type": "denied"}


def test_only_named_attributes_leave_and_they_are_short(exporter: Exporter) -> None:
    made = tracer(exporter, 1.0)
    given = {"gen_ai.agent.name": "x" * 9999, "gen_ai.tool.call.arguments": "secret", "gen_ai.input.messages": "secret"}
    made.finish(made.start("request", "SERVER", "", given), "ok", given)
    made.close()
    assert exporter.spans[0].attributes == {"gen_ai.agent.name": "x" * TEXT_MAX, "interlock.outcome": "ok"}
    assert not [name for name in ATTRIBUTES if "argument" in name or "message" in name or "prompt.c" in name]


@pytest.mark.parametrize(("given", "service"), [("", "interlock"), ("edge-gateway", "edge-gateway")])
def test_the_operator_may_name_the_service(monkeypatch: pytest.MonkeyPatch, exporter: Exporter, given: str, service: str) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", given)
    made = tracer_from_environment("1.2.3", 1.0, {}, lambda: exporter)
    made.finish(made.start("request", "SERVER", "", {}), "ok", {})
    made.close()
    resource = exporter.spans[0].resource
    assert (resource.attributes["service.name"], resource.attributes["service.version"]) == (service, "1.2.3")


class Refusing(Exporter):
    """Takes nothing while `refuses`, and says why as the SDK's exporter does."""

    refuses = True

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        if not self.refuses:
            return super().export(spans)
        logging.getLogger(f"{EXPORTER_LOGGER}.trace_exporter").error("Failed to export span batch code: 503")
        return SpanExportResult.FAILURE


def test_a_collector_that_takes_nothing_is_logged_with_its_address_and_reason() -> None:
    inner, now = Refusing(), [0.0]
    exporter = LoggedExporter(inner, collector_address("traces", {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318/"}), lambda: now[0])
    span = ReadableSpan("request")
    with capture_logs() as lines:
        for at in (0.0, 1.0, LOG_SECONDS):
            now[0] = at
            exporter.export([span, span])
        inner.refuses = False
        exporter.export([span])
        exporter.export([span])
    failed = {"event": "traces_not_exported", "problem": "Failed to export span batch code: 503", "log_level": "warning"}
    place, todo = {"collector": "http://collector:4318/v1/traces"}, {"todo": "OTEL_TRACES_EXPORTER=none turns this off"}
    assert lines == [
        {**failed, **place, **todo, "lost_spans": 2},
        {**failed, **place, **todo, "lost_spans": 6},
        {"event": "traces_exported_again", **place, "lost_spans": 6, "log_level": "info"},
    ]
