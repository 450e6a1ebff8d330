"""Builds what the gateway tells of itself: exports over OTLP, and the gauges that are computed when /metrics is read."""

import asyncio
import os
import resource
import shutil
import time
from collections.abc import Awaitable, Callable, Mapping, Sized
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sqlalchemy import Connection, text

from adapters.tool_servers import ToolServerClient
from adapters.upstream.resilience import Resilience
from adapters.version import VERSION, find_commit
from gateway.calls.limits.open_streams import OpenStreams
from gateway.calls.limits.slots import Slots
from gateway.calls.revocation.running import RunningWorkStopper
from gateway.server.settings import Settings
from gateway.storage.database import Database, ReadFailed
from gateway.storage.files.database_file import sqlite_path
from gateway.telemetry.backlog import (
    APPROVAL,
    ASKING,
    AWAITING,
    CHECKPOINT,
    ENTRY_STATUSES,
    FAMILIES,
    LETTERS,
    OpenWork,
    Waiting,
    read_backlog,
)
from gateway.telemetry.environment import collector_address, is_exported, metrics_interval
from gateway.telemetry.logs import configure_logging
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.spans import current_trace_id
from policies.ids import now_us
from policies.keys.signing import SigningKeys

if TYPE_CHECKING:
    from gateway.telemetry.otlp import OtelTracer
    from gateway.telemetry.otlp_logs import LogExport
    from gateway.telemetry.otlp_metrics import MetricsExport
    from gateway.telemetry.worker_figures import WorkerFigures

BACKLOG_SECONDS: Final = 15.0  # between two looks at what waits in the database
COMMIT_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)
_PAGE_BYTES: Final = resource.getpagesize()
_POSTGRES_BYTES: Final = text("SELECT pg_database_size(current_database())")


@dataclass(frozen=True, slots=True)
class Exports:
    """What leaves the process over OTLP. Each part is None if the environment names no collector for it, or turns it off."""

    tracer: "OtelTracer | None"
    metrics: "MetricsExport | None"
    logs: "LogExport | None"

    def forward_line(self, line: Mapping[str, object]) -> None:
        """Exports a log line, where logs are exported."""
        if self.logs is not None:
            self.logs.forward(line)

    def start(self, repeat: Callable[[float, Callable[[], Awaitable[object]]], None]) -> None:
        """Begins to export metrics periodically."""
        if self.metrics is not None:
            repeat(metrics_interval(os.environ), self.metrics.run_once)

    async def close(self) -> None:
        """Exports what is left, all signals at once, waiting a few seconds at most."""
        closing = [asyncio.to_thread(part.close) for part in (self.tracer, self.logs) if part is not None]
        await asyncio.gather(*closing, *([self.metrics.close()] if self.metrics is not None else []))


def build_exports(settings: Settings, metrics: Metrics, worker: "WorkerFigures | None") -> Exports:
    """Builds the exports that the standard environment variables ask for, and begins to log. Without a collector no SDK is loaded."""
    exports = Exports(_build_tracer(settings), _build_metrics_export(metrics, worker), _build_log_export())
    pid = os.getpid() if worker is not None else 0
    configure_logging(settings.telemetry.log_level, current_trace_id, forward=exports.forward_line, pid=pid)
    return exports


def _build_tracer(settings: Settings) -> "OtelTracer | None":
    if not is_exported("traces", os.environ):
        return None
    from gateway.telemetry.otlp import tracer_from_environment

    return tracer_from_environment(VERSION, settings.telemetry.sample, os.environ)


def _build_metrics_export(metrics: Metrics, worker: "WorkerFigures | None") -> "MetricsExport | None":
    """Of several workers, the first exports the sums of all."""
    if not is_exported("metrics", os.environ) or (worker is not None and worker.number > 0):
        return None
    from gateway.telemetry.otlp import resource_of
    from gateway.telemetry.otlp_metrics import MetricsExport

    return MetricsExport(metrics, collector_address("metrics", os.environ), resource_of(VERSION))


def _build_log_export() -> "LogExport | None":
    if not is_exported("logs", os.environ):
        return None
    from gateway.telemetry.otlp import resource_of
    from gateway.telemetry.otlp_logs import LogExport

    return LogExport(collector_address("logs", os.environ), resource_of(VERSION))


def observe_commits(metrics: Metrics) -> Callable[[float], None]:
    """Adds the histogram of how long writes wait for their commit, and returns what observes one."""
    return metrics.add_histogram("writer_wait", "How long the oldest write of a commit waited for it.", COMMIT_BUCKETS)


@dataclass(frozen=True, slots=True)
class GaugeSources:
    """The parts of one process whose state the gauges show."""

    kills: Sized
    resilience: Resilience
    tools: ToolServerClient
    streams: OpenStreams
    stopper: RunningWorkStopper
    slots: Slots
    keys: SigningKeys
    home: Path


def add_gauges(metrics: Metrics, sources: GaugeSources) -> None:
    """Adds the gauges of one process, which are computed when /metrics is read."""
    resilience, slots = sources.resilience, sources.slots
    metrics.add_info("build", "Version and commit of the gateway.", {"version": VERSION, "commit": find_commit() or "unknown"})
    metrics.add_gauge("kills", "Agents, servers and people that operators have stopped.", lambda: len(sources.kills), "livemax")
    metrics.add_gauge("agent_retries", "Calls of agents that were tried again.", lambda: resilience.retry_count)
    ejected = "Endpoints of agents that are ejected for a while after failures."
    metrics.add_gauge("agents_ejected", ejected, lambda: resilience.ejected_count)
    metrics.add_gauge("servers_ejected", "MCP servers that are not called for a while after failures.", lambda: sources.tools.ejected_count)
    metrics.add_gauge("streams", "Streams that are open now.", lambda: sources.streams.total_count)
    metrics.add_gauge("calls_under_way", "Turns and calls that are in flight.", lambda: sources.stopper.in_flight_count)
    metrics.add_gauge("calls_waiting", "Turns and calls that wait for a slot.", lambda: slots.waiting_count)
    metrics.add_gauge("call_slots", "Turns and calls that may run at once.", lambda: slots.places)
    metrics.add_gauge("call_slots_used", "Turns and calls that have a slot.", lambda: slots.used_count)
    age = "Seconds since the active signing key was made."
    metrics.add_gauge("signing_key_age_seconds", age, lambda: time.time() - sources.keys.active_since_us / 1e6, "livemax")
    metrics.add_gauge("memory_bytes", "Resident memory.", _resident_bytes)
    metrics.add_gauge("open_files", "Open file descriptors.", _open_files)
    metrics.add_gauge("open_files_max", "The limit of open file descriptors.", _open_files_max)
    disk = "Free bytes of the disk that has the home folder."
    metrics.add_gauge("disk_free_bytes", disk, lambda: shutil.disk_usage(sources.home).free, "livemax")


def _resident_bytes() -> float:
    """Returns the resident memory of this process; 0 where the system has no /proc."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE_BYTES
    except OSError:
        return 0.0


def _open_files() -> float:
    try:
        return sum(1 for _ in Path("/proc/self/fd").iterdir())
    except OSError:
        return 0.0


def _open_files_max() -> float:
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


class BacklogGauges:
    """What waits in the database, as gauges. `run_once` looks; each process reads the same, so that the highest value counts."""

    def __init__(self, metrics: Metrics, database: Database, settings: Settings) -> None:
        self._database = database
        self._file = sqlite_path(settings.database_url)
        self._found = OpenWork()
        self._bytes = 0
        self._add_entries(metrics)
        self._add_waiting(metrics)
        metrics.add_gauge("database_bytes", "Size of the database.", lambda: self._bytes, "livemax")
        metrics.add_gauge("wal_bytes", "Size of SQLite's write-ahead log; 0 on PostgreSQL.", self._wal_bytes, "livemax")

    def _add_entries(self, metrics: Metrics) -> None:
        for family in FAMILIES:
            readers = {status: partial(self._entries, family, status) for status in ENTRY_STATUSES}
            readers["failing"] = partial(self._failing, family)
            help_text = f"Registered {family}s by status; failing: the last check failed."
            metrics.add_labelled_gauge(f"{family}s", help_text, "status", readers, "livemax")

    def _add_waiting(self, metrics: Metrics) -> None:
        tasks = {state: partial(self._waiting, state) for state in (ASKING, AWAITING)}
        questions = {kind: partial(self._unanswered, kind) for kind in (APPROVAL, CHECKPOINT)}
        for name, help_text, label, found in (
            ("tasks_waiting", "Tasks that wait for a person", "state", tasks),
            ("questions", "Questions that nobody has answered", "kind", questions),
        ):
            counts = {key: partial(_count, read) for key, read in found.items()}
            metrics.add_labelled_gauge(name, f"{help_text}.", label, counts, "livemax")
            ages = {key: partial(_oldest, read) for key, read in found.items()}
            metrics.add_labelled_gauge(f"{name}_oldest_seconds", f"{help_text}: age of the oldest.", label, ages, "livemax")
        dead = {kind: partial(self._dead, kind) for kind in LETTERS}
        metrics.add_labelled_gauge("dead_letters", "Deliveries that no attempt is left for.", "kind", dead, "livemax")
        retried = {kind: partial(self._retried, kind) for kind in LETTERS} | {"notice": lambda: self._found.failing_notice_webhooks}
        metrics.add_labelled_gauge("deliveries_failing", "Deliveries that failed and are tried again.", "kind", retried, "livemax")
        metrics.add_gauge("runs_queued", "Runs of workflows that wait for their turn.", lambda: self._found.queued_runs, "livemax")

    async def run_once(self) -> None:
        """Reads what waits. While the database can't be read, the last figures stay."""
        try:
            self._found, self._bytes = await self._database.read(self._look)
        except ReadFailed:
            return

    def _look(self, connection: Connection) -> tuple[OpenWork, int]:
        size = self._file.stat().st_size if self._file else int(connection.execute(_POSTGRES_BYTES).scalar_one())
        return read_backlog(connection, now_us()), size

    def _wal_bytes(self) -> float:
        try:
            return Path(f"{self._file}-wal").stat().st_size if self._file else 0
        except OSError:
            return 0

    def _entries(self, family: str, status: str) -> int:
        return self._found.entries.get((family, status), 0)

    def _failing(self, family: str) -> int:
        return self._found.failing.get(family, 0)

    def _waiting(self, state: str) -> Waiting:
        return self._found.waiting.get(state, Waiting())

    def _unanswered(self, kind: str) -> Waiting:
        return self._found.unanswered.get(kind, Waiting())

    def _dead(self, kind: str) -> int:
        return self._found.dead.get(kind, 0)

    def _retried(self, kind: str) -> int:
        return self._found.retried.get(kind, 0)


def _count(read: Callable[[], Waiting]) -> float:
    return read().count


def _oldest(read: Callable[[], Waiting]) -> float:
    return read().oldest_seconds
