"""The export of spans as the log tells of it: where the collector is, why it took nothing, and when it takes spans again."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import structlog
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

EXPORTER_LOGGER: Final = "opentelemetry.exporter.otlp.proto.http"  # of the SDK: one line for each attempt
LOG_SECONDS: Final = 60.0  # between two lines of the log while the collector takes nothing
log = structlog.get_logger()


def collector_address(environment: Mapping[str, str]) -> str:
    """Where spans go, by the standard variables (OpenTelemetry Protocol Exporter, Endpoint URLs for OTLP/HTTP); empty: nowhere."""
    base = environment.get("OTEL_EXPORTER_OTLP_ENDPOINT", "")
    return environment.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") or (f"{base.rstrip('/')}/v1/traces" if base else "")


class _LastProblem(logging.Handler):
    """Keeps what the exporter logs, whose lines do not say that they are about traces."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.text = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.text = record.getMessage()


class LoggedExporter(SpanExporter):
    """Logs the first failure of `inner` and then one a minute, and its first success after that. Called by one thread."""

    def __init__(self, inner: SpanExporter, collector: str, now: Callable[[], float] = time.monotonic) -> None:
        self._inner = inner
        self._collector = collector
        self._now = now
        self._problem = _LastProblem()
        self._logged_at: float | None = None
        self._lost = 0
        library = logging.getLogger(EXPORTER_LOGGER)
        library.handlers = [self._problem]
        library.propagate = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self._problem.text = ""
        result = self._inner.export(spans)
        if result is SpanExportResult.SUCCESS:
            if self._logged_at is not None:
                log.info("traces_exported_again", collector=self._collector, lost_spans=self._lost)
            self._logged_at, self._lost = None, 0
            return result
        self._lost += len(spans)
        if self._logged_at is None or self._now() - self._logged_at >= LOG_SECONDS:
            self._logged_at = self._now()
            log.warning("traces_not_exported", collector=self._collector, problem=self._problem.text, lost_spans=self._lost)
        return result

    def shutdown(self) -> None:
        self._inner.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._inner.force_flush(timeout_millis)
