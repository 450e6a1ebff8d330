"""Exports spans over OTLP/HTTP; imported only when OTEL_EXPORTER_OTLP_ENDPOINT is set, since it costs 20 MB."""

from collections.abc import Callable
from typing import Final

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, TraceFlags
from opentelemetry.trace.status import Status, StatusCode

from gateway.telemetry import ORDINARY, Finished, Kind, Origin

SCHEMA: Final = "https://opentelemetry.io/schemas/1.44.0"
SCOPE: Final = InstrumentationScope("interlock", "", SCHEMA)
KINDS: Final = {Kind.INTERNAL: SpanKind.INTERNAL, Kind.SERVER: SpanKind.SERVER, Kind.CLIENT: SpanKind.CLIENT}
SAMPLED: Final = TraceFlags(TraceFlags.SAMPLED)


def _context(origin: Origin, remote: bool) -> SpanContext:
    return SpanContext(int(origin.trace_id, 16), int(origin.span_id, 16), remote, SAMPLED)


def readable(span: Finished, resource: Resource) -> ReadableSpan:
    """Our span as the SDK's exporters read it."""
    parent = _context(Origin(span.trace_id, span.parent_id), remote=False) if span.parent_id else None
    failed = span.outcome not in ORDINARY
    return ReadableSpan(
        name=span.name,
        context=_context(Origin(span.trace_id, span.span_id), remote=False),
        parent=parent,
        resource=resource,
        attributes=dict(span.attributes),
        links=[Link(_context(span.link, remote=True))] if span.link else [],
        kind=KINDS[span.kind],
        status=Status(StatusCode.ERROR, span.outcome) if failed else Status(StatusCode.UNSET),
        start_time=span.started,
        end_time=span.ended,
        instrumentation_scope=SCOPE,
    )


class Otlp:
    """Sends finished spans in batches, from a thread of its own; a full queue drops spans, never slows a request."""

    def __init__(self, exporter: SpanExporter, resource: Resource) -> None:
        self._processor = BatchSpanProcessor(exporter)
        self._resource = resource

    def __call__(self, span: Finished) -> None:
        self._processor.on_end(readable(span, self._resource))

    def close(self) -> None:
        """Sends what is left; waits for it a few seconds at most."""
        self._processor.force_flush(3000)
        self._processor.shutdown()  # type: ignore[no-untyped-call]  # the SDK left its annotation out


def exporter_from_environment(version: str, make: Callable[[], SpanExporter] = OTLPSpanExporter) -> Otlp:
    """The exporter that the standard variables (OTEL_EXPORTER_OTLP_…, OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES) describe."""
    resource = Resource.create({"service.version": version})
    if str(resource.attributes["service.name"]).startswith("unknown_service"):
        resource = resource.merge(Resource({"service.name": "interlock"}))
    return Otlp(make(), resource)
