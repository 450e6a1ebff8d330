"""Traces with the OpenTelemetry SDK, exported over OTLP/HTTP.

Imported only if OTEL_EXPORTER_OTLP_ENDPOINT is set, because the SDK needs 20 MB. The share `telemetry.sample` of traces is exported,
selected by trace id, so that all processes select the same ones. Spans of other traces are recorded too, and exported if one of them
fails.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace import Span as SdkSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult, TraceIdRatioBased
from opentelemetry.trace import Link, Span, SpanContext, SpanKind, TraceFlags, get_current_span, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.trace.status import Status, StatusCode

from gateway.telemetry.environment import collector_address
from gateway.telemetry.span_export import LoggedExporter
from gateway.telemetry.spans import ORDINARY_OUTCOMES, TRACEPARENT, Attribute, SpanRole, current_trace_id

SCHEMA_URL: Final = "https://opentelemetry.io/schemas/1.44.0"
SAMPLED: Final = TraceFlags(TraceFlags.SAMPLED)
PENDING_MAX: Final = 64  # finished spans that wait for the end of their root; further ones are dropped
LIVE_MAX: Final = 10_000  # unfinished spans whose roots are known; the oldest are dropped
TEXT_MAX: Final = 256  # characters of one attribute

# Semantic conventions (gen_ai, mcp, rpc, http) and the gateway's own attributes. Only these are exported, so that an argument, a prompt
# or a token cannot be exported under another name.
ATTRIBUTES: Final = frozenset(
    {
        "error.type",
        "gen_ai.agent.name",
        "gen_ai.conversation.id",
        "gen_ai.operation.name",
        "gen_ai.prompt.name",
        "gen_ai.provider.name",
        "gen_ai.tool.name",
        "http.request.method",
        "http.response.status_code",
        "http.route",
        "interlock.door",
        "interlock.outcome",
        "interlock.server",
        "interlock.task.id",
        "jsonrpc.request.id",
        "mcp.method.name",
        "rpc.method",
        "rpc.system.name",
        "server.address",
        "server.port",
    }
)
_propagator = TraceContextTextMapPropagator()


def context_of(traceparent: str) -> Context:
    """Returns the SDK's context for a `traceparent` of another process; an empty one starts a trace."""
    return _propagator.extract({TRACEPARENT: traceparent} if traceparent else {}, context=Context())


class RequestIds(RandomIdGenerator):
    """Gives a new trace the id that the request's log lines already have."""

    def generate_trace_id(self) -> int:
        known = current_trace_id()
        return int(known, 16) if known else super().generate_trace_id()


class RecordAll(Sampler):
    """Samples a share of traces by trace id, whatever the caller's flag says, and records the others for `Tail` to decide on."""

    def __init__(self, share: float) -> None:
        self._ratio = TraceIdRatioBased(share)

    def should_sample(self, parent_context: Context | None, trace_id: int, name: str, *rest: Any, **more: Any) -> SamplingResult:
        found = self._ratio.should_sample(parent_context, trace_id, name, *rest, **more)
        if found.decision is Decision.RECORD_AND_SAMPLE:
            return found
        return SamplingResult(Decision.RECORD_ONLY, trace_state=found.trace_state)

    def get_description(self) -> str:
        return f"RecordAll{{{self._ratio.get_description()}}}"


@dataclass(slots=True)
class Root:
    """The first span of one request in this process, and the finished spans below it that wait for its end."""

    span_id: int
    is_kept: bool
    under_way: bool = True
    waiting: list[ReadableSpan] = field(default_factory=list)


class Tail(SpanProcessor):
    """Exports all spans of a request that is sampled or in which a span failed. Called only in the event loop's thread."""

    def __init__(self, export: SpanProcessor) -> None:
        self._export = export
        self._live: OrderedDict[int, Root] = OrderedDict()

    def on_start(self, span: SdkSpan, parent_context: Context | None = None) -> None:
        context = span.get_span_context()
        root = self._live.get(get_current_span(parent_context).get_span_context().span_id)
        if root is None:
            root = Root(context.span_id, context.trace_flags.sampled)
        self._live[context.span_id] = root
        if len(self._live) > LIVE_MAX:
            self._live.popitem(last=False)

    def on_end(self, span: ReadableSpan) -> None:
        context = span.get_span_context()
        root = self._live.pop(context.span_id, None) if context is not None else None
        if root is None or context is None:
            return
        root.is_kept |= span.status.status_code is StatusCode.ERROR
        if context.span_id == root.span_id:
            root.under_way = False
        if root.is_kept or (root.under_way and len(root.waiting) < PENDING_MAX):
            root.waiting.append(span)
        if root.is_kept:
            for finished in root.waiting:
                self._export.on_end(as_sampled(finished))
        if root.is_kept or not root.under_way:
            root.waiting.clear()

    def shutdown(self) -> None:
        self._export.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._export.force_flush(timeout_millis)


def as_sampled(span: ReadableSpan) -> ReadableSpan:
    """Returns the span with the sampled flag, which exporters check."""
    context = span.get_span_context()
    if context is None or context.trace_flags.sampled:
        return span
    return ReadableSpan(
        name=span.name,
        context=SpanContext(context.trace_id, context.span_id, context.is_remote, SAMPLED, context.trace_state),
        parent=span.parent,
        resource=span.resource,
        attributes=span.attributes,
        links=span.links,
        kind=span.kind,
        status=span.status,
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )


class OtelTracer:
    """Starts and ends spans. A thread exports them in batches; a full queue drops spans."""

    def __init__(self, share: float, exporter: SpanExporter, resource: Resource) -> None:
        self._provider = TracerProvider(
            sampler=RecordAll(share),
            resource=resource,
            shutdown_on_exit=False,
            id_generator=RequestIds(),
            span_limits=SpanLimits(max_attribute_length=TEXT_MAX),
        )
        self._provider.add_span_processor(Tail(BatchSpanProcessor(exporter)))
        self._tracer = self._provider.get_tracer("interlock", schema_url=SCHEMA_URL)

    def start(
        self, name: str, role: SpanRole, parent: str, attributes: Mapping[str, Attribute], *, began: int | None = None, link: str = ""
    ) -> Span:
        """Starts a span. `parent` and `link` are `traceparent` values or empty; `began` is in nanoseconds since 1970."""
        linked = get_current_span(context_of(link)).get_span_context() if link else None
        links = [Link(linked)] if linked is not None and linked.is_valid else None
        span = self._tracer.start_span(name, context_of(parent), SpanKind[role], links=links, start_time=began)
        span.set_attributes(exported_attributes(attributes))
        return span

    def headers(self, span: Span) -> dict[str, str]:
        """Returns the `traceparent` header. Its sampled flag is the gateway's own decision."""
        carrier: dict[str, str] = {}
        _propagator.inject(carrier, set_span_in_context(span, Context()))
        return {TRACEPARENT: carrier[TRACEPARENT]}

    def finish(self, span: Span, outcome: str, attributes: Mapping[str, Attribute], name: str = "") -> None:
        """Ends a span. An outcome outside of ORDINARY_OUTCOMES makes it an error; `name` replaces its name."""
        if name:
            span.update_name(name)
        span.set_attributes({**exported_attributes(attributes), "interlock.outcome": outcome})
        if outcome not in ORDINARY_OUTCOMES:
            span.set_attribute("error.type", attributes.get("error.type", outcome))
            span.set_status(Status(StatusCode.ERROR, outcome))
        span.end()

    def flush(self) -> None:
        """Exports finished spans, waiting at most 3 seconds."""
        self._provider.force_flush(3000)

    def close(self) -> None:
        """Exports the remaining spans, waiting at most 3 seconds, and shuts the SDK down."""
        self.flush()
        self._provider.shutdown()


def exported_attributes(attributes: Mapping[str, Attribute]) -> dict[str, Attribute]:
    return {name: value for name, value in attributes.items() if name in ATTRIBUTES}


def tracer_from_environment(
    version: str, share: float, environment: Mapping[str, str], make: Callable[[], SpanExporter] = OTLPSpanExporter
) -> OtelTracer:
    """Returns the tracer that the standard variables (OTEL_EXPORTER_OTLP_…, OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES) configure."""
    return OtelTracer(share, LoggedExporter(make(), collector_address("traces", environment)), resource_of(version))


def resource_of(version: str) -> Resource:
    """Returns who exports: the service of the standard variables, else `interlock`."""
    resource = Resource.create({"service.version": version})
    if str(resource.attributes["service.name"]).startswith("unknown_service"):
        resource = resource.merge(Resource({"service.name": "interlock"}))
    return resource
