"""A visit: one request at a protocol door, from its first byte to its last, as spans and figures tell of it."""

import math
import time
from dataclasses import dataclass, field

from gateway.asgi import BadHeader, Scope, header
from gateway.ledger import Trail
from gateway.metrics import Metrics
from gateway.telemetry import Attribute, Kind, Span, Tracing


@dataclass(slots=True)
class Visit:
    """Filled in by the door while it works. `method` is the protocol's, `outcome` is `ok` or a reason_id."""

    door: str
    span: Span
    started: float
    method: str = ""
    outcome: str = "ok"
    last: float = math.inf  # until when the caller waits, in seconds since 1970
    attributes: dict[str, Attribute] = field(default_factory=dict)

    @property
    def trail(self) -> Trail:
        return Trail(self.span.trace_id, self.span.headers, self.last)


class Visits:
    """Opens and closes visits."""

    def __init__(self, tracing: Tracing, metrics: Metrics) -> None:
        self._tracing = tracing
        self._metrics = metrics

    def begin(self, door: str, name: str, traceparent: str | None) -> Visit:
        return Visit(door, self._tracing.start(name, Kind.SERVER, traceparent), time.perf_counter())

    def end(self, visit: Visit) -> None:
        self._metrics.call(visit.door, visit.method, visit.outcome, time.perf_counter() - visit.started)
        visit.span.finish(visit.outcome, visit.attributes)


def traceparent(scope: Scope) -> str | None:
    """What the caller says its trace is; a header that is sent twice or odd says nothing."""
    try:
        value = header(scope, b"traceparent")
    except BadHeader:
        return None
    return value if value is not None and len(value) == 55 else None
