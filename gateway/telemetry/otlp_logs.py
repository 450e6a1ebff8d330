"""Log lines over OTLP, as they are written: bounded, without secrets, with the trace id.

Imported only if a collector takes logs, as gateway/telemetry/otlp.py.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.sdk._logs import LoggerProvider, ReadableLogRecord
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor, LogRecordExporter, LogRecordExportResult
from opentelemetry.sdk.resources import Resource

from gateway.telemetry.export_log import ExportLog
from gateway.telemetry.otlp import SCHEMA_URL

SEVERITIES: Final = {
    "debug": SeverityNumber.DEBUG,
    "info": SeverityNumber.INFO,
    "warning": SeverityNumber.WARN,
    "error": SeverityNumber.ERROR,
    "critical": SeverityNumber.FATAL,
}
OWN_MEMBERS: Final = ("at", "level", "event", "trace_id", "exception")  # that the record has fields for
FLUSH_MILLISECONDS: Final = 3000


class LoggedLogExporter(LogRecordExporter):
    """Exports by `inner`. Called by one thread."""

    def __init__(self, inner: LogRecordExporter, collector: str) -> None:
        self._inner = inner
        self._log = ExportLog("logs", collector)

    def export(self, batch: Sequence[ReadableLogRecord]) -> LogRecordExportResult:
        result = self._inner.export(batch)
        self._log.record(len(batch), is_taken=result is LogRecordExportResult.SUCCESS)
        return result

    def shutdown(self) -> None:
        self._inner.shutdown()  # type: ignore[no-untyped-call]  # the SDK has no types for it

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return True


class LogExport:
    """Sends log lines to a collector. A thread exports them in batches; a full queue drops lines."""

    def __init__(self, collector: str, resource: Resource, make: Callable[[], LogRecordExporter] = OTLPLogExporter) -> None:
        self._provider = LoggerProvider(resource, shutdown_on_exit=False)
        self._provider.add_log_record_processor(BatchLogRecordProcessor(LoggedLogExporter(make(), collector)))
        self._logger = self._provider.get_logger("interlock", schema_url=SCHEMA_URL)

    def forward(self, line: Mapping[str, Any]) -> None:
        """Exports one line, as gateway/telemetry/logs.py writes it."""
        level, now = str(line.get("level", "info")), time.time_ns()
        trace_id = int(line["trace_id"], 16) if "trace_id" in line else None
        exception = line.get("exception") or {}
        attributes = {f"interlock.{name}": value for name, value in line.items() if name not in OWN_MEMBERS}
        attributes |= {"exception.type": exception["error"], "exception.message": exception["message"]} if exception else {}
        attributes |= {"exception.stacktrace": exception["where"]} if exception else {}
        record = LogRecord(
            timestamp=now,
            observed_timestamp=now,
            trace_id=trace_id,
            severity_text=level,
            severity_number=SEVERITIES.get(level, SeverityNumber.INFO),
            body=str(line.get("event", "")),
            attributes=attributes,
        )
        self._logger.emit(record)

    def flush(self) -> None:
        """Exports what waits, for at most 3 seconds."""
        self._provider.force_flush(FLUSH_MILLISECONDS)

    def close(self) -> None:
        """Exports what waits, and shuts the SDK down."""
        self.flush()
        self._provider.shutdown()
