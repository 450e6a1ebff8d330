"""An OTLP/HTTP receiver on loopback, which keeps every span, metric and log line that it gets."""

import gzip
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest, ExportTraceServiceResponse


@dataclass(frozen=True)
class Received:
    """One span. `links` are trace ids."""

    name: str
    kind: int
    trace_id: str
    span_id: str
    parent_id: str
    failed: bool
    attributes: dict[str, Any]
    links: tuple[str, ...]


@dataclass(frozen=True)
class ReceivedPoint:
    """One point of a metric. `value` is the number, or of a histogram the count; `buckets` are its counts."""

    unit: str
    attributes: dict[str, Any]
    value: float
    total: float = 0.0
    buckets: tuple[int, ...] = ()
    bounds: tuple[float, ...] = ()


@dataclass(frozen=True)
class ReceivedLine:
    body: str
    severity: str
    trace_id: str
    attributes: dict[str, Any]


@dataclass
class Collector:
    """`url` is what OTEL_EXPORTER_OTLP_ENDPOINT has to be. `paths` has the path of each request for traces.

    `points` has what the last export of metrics had, by name.
    """

    url: str = ""
    spans: list[Received] = field(default_factory=list)
    points: dict[str, list[ReceivedPoint]] = field(default_factory=dict)
    lines: list[ReceivedLine] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    resources: list[dict[str, Any]] = field(default_factory=list)

    def one(self, name: str, kind: int | None = None) -> Received:
        """The only span of that name."""
        found = [span for span in self.spans if span.name == name and kind in (None, span.kind)]
        assert len(found) == 1, f"{len(found)} of {name} among {sorted(span.name for span in self.spans)}"
        return found[0]

    def take(self, body: bytes) -> None:
        request = ExportTraceServiceRequest.FromString(body)
        for span in (span for resource in request.resource_spans for scope in resource.scope_spans for span in scope.spans):
            attributes = _values(span.attributes)
            ids = (span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex())
            links = tuple(link.trace_id.hex() for link in span.links)
            self.spans.append(Received(span.name, span.kind, *ids, span.status.code == 2, attributes, links))

    def take_metrics(self, body: bytes) -> None:
        request = ExportMetricsServiceRequest.FromString(body)
        self.points = {}
        for resource in request.resource_metrics:
            self.resources.append(_values(resource.resource.attributes))
            for metric in (metric for scope in resource.scope_metrics for metric in scope.metrics):
                data = getattr(metric, metric.WhichOneof("data"))
                self.points[metric.name] = [_point(metric.unit, point) for point in data.data_points]

    def take_logs(self, body: bytes) -> None:
        request = ExportLogsServiceRequest.FromString(body)
        for record in (each for resource in request.resource_logs for scope in resource.scope_logs for each in scope.log_records):
            line = ReceivedLine(record.body.string_value, record.severity_text, record.trace_id.hex(), _values(record.attributes))
            self.lines.append(line)


def _values(attributes: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, str(each.value.WhichOneof("value"))) for each in attributes}


def _point(unit: str, point: Any) -> ReceivedPoint:
    attributes = _values(point.attributes)
    if hasattr(point, "bucket_counts"):
        return ReceivedPoint(unit, attributes, point.count, point.sum, tuple(point.bucket_counts), tuple(point.explicit_bounds))
    return ReceivedPoint(unit, attributes, point.as_double or point.as_int)


@contextmanager
def collecting() -> Iterator[Collector]:
    """The receiver, until the end of the block."""
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            text = gzip.decompress(body) if self.headers.get("content-encoding") == "gzip" else body
            if self.path == "/v1/metrics":
                collector.take_metrics(text)
            elif self.path == "/v1/logs":
                collector.take_logs(text)
            else:
                collector.paths.append(self.path)
                collector.take(text)
            answer = ExportTraceServiceResponse().SerializeToString()
            self.send_response(200)
            self.send_header("content-type", "application/x-protobuf")
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: Any) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    collector.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield collector
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
