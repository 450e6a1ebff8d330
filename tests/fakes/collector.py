"""An OTLP/HTTP receiver of traces on loopback, which keeps every span that it gets."""

import gzip
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

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


@dataclass
class Collector:
    """`url` is what OTEL_EXPORTER_OTLP_ENDPOINT has to be. `paths` has the path of each request."""

    url: str = ""
    spans: list[Received] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)

    def one(self, name: str, kind: int | None = None) -> Received:
        """The only span of that name."""
        found = [span for span in self.spans if span.name == name and kind in (None, span.kind)]
        assert len(found) == 1, f"{len(found)} of {name} among {sorted(span.name for span in self.spans)}"
        return found[0]

    def take(self, body: bytes) -> None:
        request = ExportTraceServiceRequest.FromString(body)
        for span in (span for resource in request.resource_spans for scope in resource.scope_spans for span in scope.spans):
            attributes = {each.key: getattr(each.value, str(each.value.WhichOneof("value"))) for each in span.attributes}
            ids = (span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex())
            links = tuple(link.trace_id.hex() for link in span.links)
            self.spans.append(Received(span.name, span.kind, *ids, span.status.code == 2, attributes, links))


@contextmanager
def collecting() -> Iterator[Collector]:
    """The receiver, until the end of the block."""
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            collector.paths.append(self.path)
            body = self.rfile.read(int(self.headers["content-length"]))
            collector.take(gzip.decompress(body) if self.headers.get("content-encoding") == "gzip" else body)
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
