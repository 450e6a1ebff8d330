"""The export of spans, whose failures the log tells of."""

import time
from collections.abc import Callable, Sequence

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from gateway.telemetry.export_log import ExportLog


class LoggedExporter(SpanExporter):
    """Exports by `inner`. Called by one thread."""

    def __init__(self, inner: SpanExporter, collector: str, now: Callable[[], float] = time.monotonic) -> None:
        self._inner = inner
        self._log = ExportLog("traces", collector, now)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._inner.export(spans)
        self._log.record(len(spans), is_taken=result is SpanExportResult.SUCCESS)
        return result

    def shutdown(self) -> None:
        self._inner.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._inner.force_flush(timeout_millis)
