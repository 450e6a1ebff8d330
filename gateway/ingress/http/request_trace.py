"""The trace of one request to a protocol server, from its first byte to its last: its span and its metrics."""

import math
import re
import time
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct

from gateway.calls.outgoing.builder import DEADLINE_HEADER
from gateway.ingress.http.asgi import BadHeader, Scope, header
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.outcomes import METHODS
from gateway.telemetry.spans import (
    CURRENT_WORK,
    TRACE_ID,
    TRACEPARENT,
    Attribute,
    TraceContext,
    new_trace_id,
    unsampled_traceparent,
    valid_traceparent,
)

if TYPE_CHECKING:
    from opentelemetry.trace import Span

    from gateway.telemetry.otlp import OtelTracer

DEADLINE_HEADER_LOWER: Final = DEADLINE_HEADER.lower()
_HEADER_NAME: Final = DEADLINE_HEADER_LOWER.encode()
_TRACEPARENT_NAME: Final = TRACEPARENT.encode()
_RFC3339_TIME: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|[+-]\d\d:\d\d)")
UNKNOWN = ("bad-", "invalid", "unknown")  # outcomes of requests whose target may be any text, so that it may not name a span


def read_deadline(scope: Scope) -> float:
    """Returns the deadline of a request in seconds since 1970; infinite without the header. Raises BadHeader."""
    text = header(scope, _HEADER_NAME)
    return math.inf if text is None else parse_deadline(text)


def parse_deadline(text: str | None) -> float:
    """Parses an RFC 3339 time with its zone into seconds since 1970; infinite without a text. Raises BadHeader."""
    if not text:
        return math.inf
    try:
        if _RFC3339_TIME.fullmatch(text):
            return max(0.0, datetime.fromisoformat(text).timestamp())  # some platforms can't convert times before 1970
    except (ValueError, OverflowError):
        pass
    raise BadHeader(f"{DEADLINE_HEADER_LOWER} is no time of RFC 3339, such as 2026-11-21T10:00:00Z")


class RequestTrace(Struct, eq=False):
    """The trace of one request, filled in by the protocol server that handles it.

    `method` is the protocol's method, `outcome` is `ok` or a reason_id, `target` is the tool or agent as the caller names it, and
    `tenant` that of the authenticated caller. `deadline` is until when the caller waits, in seconds since 1970. `started` is on
    time.perf_counter, and `began` in nanoseconds since 1970, with a tracer. The span starts when `trace_context` is first read, so that
    a message can set its parent before that (`join`).
    """

    ingress: str
    name: str
    parent: str  # a traceparent, or empty
    trace_id: str
    started: float
    tracer: "OtelTracer | None" = None
    began: int = 0
    method: str = ""
    target: str = ""
    tenant: str = ""
    outcome: str = "ok"
    deadline: float = math.inf
    attributes: dict[str, Attribute] = {}  # msgspec gives each object its own
    span: "Span | None" = None
    headers: dict[str, str] | None = None

    def join(self, traceparent: Any) -> None:
        """Makes the trace context of a message (MCP `_meta.traceparent`) the parent, instead of the transport's."""
        if self.headers is None and (parent := valid_traceparent(traceparent)):
            self.parent, self.trace_id = parent, parent[TRACE_ID]

    def name_agent(self, agent: str) -> None:
        """Sets the agent that the request is for."""
        self.target = agent
        if self.tracer is not None:
            self.attributes |= {"gen_ai.agent.name": agent, "rpc.method": self.method}

    @property
    def trace_context(self) -> TraceContext:
        headers = self.headers
        if headers is None:
            if self.tracer is None:
                headers = {TRACEPARENT: self.parent or unsampled_traceparent(self.trace_id)}
            else:
                headers = self._start_span(self.tracer)
            self.headers = headers
        return TraceContext(self.trace_id, headers, self.deadline)

    def _start_span(self, tracer: "OtelTracer") -> dict[str, str]:
        self.span = tracer.start(self.name, "SERVER", self.parent, {}, began=self.began)
        return tracer.headers(self.span)

    def close(self, tracer: "OtelTracer") -> None:
        """Ends the span."""
        if self.headers is None:
            self.headers = self._start_span(tracer)
        if self.span is not None:
            tracer.finish(self.span, self.outcome, {**self.attributes, "interlock.door": self.ingress}, self._span_name())

    def _span_name(self) -> str:
        """Returns `{method} {target}`, or the method alone where the target is not known to exist. Both have few values."""
        if not self.method:
            return self.name
        method = self.method if self.method in METHODS else "other"
        return method if not self.target or self.outcome.startswith(UNKNOWN) else f"{method} {self.target}"


class RequestTraces:
    """Begins and ends request traces. Without a tracer a trace has an id and no span."""

    def __init__(self, tracer: "OtelTracer | None", metrics: Metrics) -> None:
        self._tracer = tracer
        self._metrics = metrics

    def begin(self, ingress: str, span_name: str, traceparent: str) -> RequestTrace:
        """Begins the trace of a request with a valid `traceparent`, or with an empty one."""
        trace_id = traceparent[TRACE_ID] if traceparent else new_trace_id()
        began = time.time_ns() if self._tracer is not None else 0
        request_trace = RequestTrace(ingress, span_name, traceparent, trace_id, time.perf_counter(), self._tracer, began)
        CURRENT_WORK.set(request_trace)
        return request_trace

    def end(self, request_trace: RequestTrace) -> None:
        """Counts the request and ends its span."""
        seconds = time.perf_counter() - request_trace.started
        self._metrics.count_call(request_trace.ingress, request_trace.method, request_trace.outcome, seconds, request_trace.tenant)
        if request_trace.tracer is not None:
            request_trace.close(request_trace.tracer)


def read_traceparent(scope: Scope) -> str:
    """Returns the caller's `traceparent`, or "" where the header is sent twice or is not valid."""
    try:
        text = header(scope, _TRACEPARENT_NAME)
    except BadHeader:
        return ""
    return "" if text is None else valid_traceparent(text)
