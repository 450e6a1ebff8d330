"""Export: our spans as a collector gets them."""

from collections.abc import Sequence

import pytest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import SpanKind
from opentelemetry.trace.status import StatusCode

from gateway.otlp import exporter_from_environment, readable
from gateway.telemetry import Finished, Kind, Origin, Tracing


class Collector(SpanExporter):
    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.spans.extend(spans)
        return SpanExportResult.SUCCESS


def test_a_span_keeps_its_ids_times_link_and_outcome() -> None:
    link = Origin("c" * 32, "d" * 16)
    span = Finished(
        "execute_tool reserve", Kind.CLIENT, "a" * 32, "b" * 16, "e" * 16, link, 5, 9, "denied", {"gen_ai.tool.name": "reserve"}
    )
    shown = readable(span, Resource({}))
    assert shown.context is not None
    assert shown.parent is not None
    assert (f"{shown.context.trace_id:032x}", f"{shown.context.span_id:016x}") == ("a" * 32, "b" * 16)
    assert f"{shown.parent.span_id:016x}" == "e" * 16
    assert (shown.start_time, shown.end_time, shown.kind, shown.status.status_code) == (5, 9, SpanKind.CLIENT, StatusCode.ERROR)
    assert [f"{one.context.trace_id:032x}" for one in shown.links] == ["c" * 32]
    assert shown.attributes == {"gen_ai.tool.name": "reserve"}


def test_spans_reach_the_collector_when_the_gateway_closes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OTEL_SERVICE_NAME", raising=False)
    collector = Collector()
    export = exporter_from_environment("1.2.3", lambda: collector)
    with Tracing(1.0, export).start("invoke_agent sales") as span:
        pass
    export.close()
    (shown,) = collector.spans
    assert shown.context is not None
    assert f"{shown.context.trace_id:032x}" == span.trace_id
    assert (shown.resource.attributes["service.name"], shown.resource.attributes["service.version"]) == ("interlock", "1.2.3")
    assert shown.status.status_code is StatusCode.UNSET


def test_the_operator_may_name_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "edge-gateway")
    collector = Collector()
    export = exporter_from_environment("1", lambda: collector)
    Tracing(1.0, export).start("x").finish()
    export.close()
    assert collector.spans[0].resource.attributes["service.name"] == "edge-gateway"
