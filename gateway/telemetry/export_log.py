"""What the log tells of an export over OTLP: where the collector is, why it took nothing, and when it takes something again."""

import logging
import threading
import time
from collections.abc import Callable
from typing import Final

import structlog

from gateway.telemetry.environment import Signal

EXPORTER_LOGGER: Final = "opentelemetry.exporter.otlp.proto.http"  # of the SDK: one line for each attempt
LOG_SECONDS: Final = 60.0  # between two lines of the log while the collector takes nothing
log = structlog.get_logger()


class _LastProblem(logging.Handler):
    """Keeps what the exporter of the same thread logs, whose lines do not say what they are about."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._by_thread: dict[int, str] = {}

    def emit(self, record: logging.LogRecord) -> None:
        self._by_thread[threading.get_ident()] = record.getMessage()

    def take(self) -> str:
        """Returns the last problem of this thread once."""
        return self._by_thread.pop(threading.get_ident(), "")


_problem: Final = _LastProblem()


class ExportLog:
    """Logs the first failure of the exports of one signal and then one a minute, and the first success after that."""

    def __init__(self, signal: Signal, collector: str, now: Callable[[], float] = time.monotonic) -> None:
        self._signal = signal
        self._collector = collector
        self._now = now
        self._logged_at: float | None = None
        self._lost = 0
        library = logging.getLogger(EXPORTER_LOGGER)
        library.handlers = [_problem]
        library.propagate = False

    def record(self, count: int, *, is_taken: bool) -> None:
        """Records an export of `count` spans, series or lines. Called by the thread that exported."""
        problem, lost = _problem.take(), f"lost_{'spans' if self._signal == 'traces' else self._signal}"
        if is_taken:
            if self._logged_at is not None:
                log.info(f"{self._signal}_exported_again", collector=self._collector, **{lost: self._lost})
            self._logged_at, self._lost = None, 0
            return
        self._lost += count
        if self._logged_at is None or self._now() - self._logged_at >= LOG_SECONDS:
            self._logged_at = self._now()
            todo = f"OTEL_{self._signal.upper()}_EXPORTER=none turns this off"
            log.warning(f"{self._signal}_not_exported", collector=self._collector, problem=problem, todo=todo, **{lost: self._lost})
