"""Counters and durations for Prometheus. Every label value comes from a closed set, so that no input can create a series."""

from collections.abc import Callable, Iterable
from typing import Final, Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from gateway.telemetry.worker_figures import WorkerFigures

DOORS: Final = frozenset({"a2a", "admin", "console", "mcp", "oauth"})
METHODS: Final = frozenset(
    {
        # A2A 1.0 s9.4
        "SendMessage",
        "SendStreamingMessage",
        "GetTask",
        "ListTasks",
        "CancelTask",
        "SubscribeToTask",
        "CreateTaskPushNotificationConfig",
        "GetTaskPushNotificationConfig",
        "ListTaskPushNotificationConfigs",
        "DeleteTaskPushNotificationConfig",
        "GetExtendedAgentCard",
        # MCP
        "initialize",
        "ping",
        "logging/setLevel",
        "subscriptions/listen",
        "resources/subscribe",
        "resources/unsubscribe",
        "tasks/update",
        "server/discover",
        "tools/list",
        "tools/call",
        "resources/list",
        "resources/read",
        "resources/templates/list",
        "prompts/list",
        "prompts/get",
        "completion/complete",
        "tasks/get",
        "tasks/result",
        "tasks/list",
        "tasks/cancel",
        # HTTP, on /api and /oauth
        "GET",
        "POST",
        "PUT",
        "PATCH",
        "DELETE",
    }
)
OUTCOMES: Final = frozenset({"ok", "asks", "canceled", "denied", "error", "failed", "question", "rejected", "timeout", "tool-error"})
FAMILIES: Final = frozenset({"agent", "server"})
UPSTREAMS_MAX: Final = 200  # agents and servers with series of their own; further ones count as `other`
OTHER: Final = "other"
CALL_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0)


class Metrics:
    """The metrics of one process, or with `worker` those of all workers. `render` returns the body of /metrics.

    `reasons` are outcomes beside OUTCOMES, such as the reason ids of the table of errors.
    """

    def __init__(self, reasons: Iterable[str] = (), worker: WorkerFigures | None = None) -> None:
        self._worker = worker
        if worker is not None:
            worker.use()
        self._gauges: list[tuple[Gauge, Callable[[], float]]] = []
        self._outcomes = OUTCOMES | frozenset(reasons)
        self.registry = CollectorRegistry(auto_describe=True)
        labels = ("door", "method", "outcome")
        durations = ("interlock_call_seconds", "Time to the end of an answer.", labels[:2])
        self._calls = Counter("interlock_calls", "Requests that an ingress answered.", labels, registry=self.registry)
        self._seconds = Histogram(*durations, registry=self.registry, buckets=CALL_BUCKETS)
        self._call_series: dict[tuple[str, str, str], tuple[Counter, Histogram]] = {}
        names: tuple[str, ...] = ("family", "tenant", "name")
        calls = ("interlock_upstream_calls", "Calls of agents and servers.", (*names, "outcome"))
        times = ("interlock_upstream_seconds", "Time until an agent ended its turn, or a server answered.", names)
        self._upstream_calls = Counter(*calls, registry=self.registry)
        self._upstream_seconds = Histogram(*times, registry=self.registry, buckets=CALL_BUCKETS)
        self._upstream_series: dict[tuple[str, str, str, str], tuple[Counter, Histogram]] = {}
        self._upstreams: set[tuple[str, str, str]] = set()

    def count_call(self, ingress: str, method: str, outcome: str, seconds: float) -> None:
        """Counts one request. Names outside the closed sets count as `other`."""
        key = (ingress, method, outcome)
        series = self._call_series.get(key)
        if series is None:
            known = (_known_or_other(DOORS, ingress), _known_or_other(METHODS, method), _known_or_other(self._outcomes, outcome))
            series = (self._calls.labels(*known), self._seconds.labels(*known[:2]))
            if known == key:
                self._call_series[key] = series
        series[0].inc()
        series[1].observe(seconds)

    def upstream(self, family: str, tenant: str, name: str, outcome: str, seconds: float) -> None:
        """Counts one call of a registered agent or server."""
        key = (family, tenant, name, outcome)
        series = self._upstream_series.get(key)
        if series is None:
            series = self._upstream_series_of(*key)
        series[0].inc()
        series[1].observe(seconds)

    def _upstream_series_of(self, family: str, tenant: str, name: str, outcome: str) -> tuple[Counter, Histogram]:
        known, outcome = (_known_or_other(FAMILIES, family), tenant, name), _known_or_other(self._outcomes, outcome)
        if known not in self._upstreams and len(self._upstreams) >= UPSTREAMS_MAX:
            return self._upstream_calls.labels(known[0], "", OTHER, outcome), self._upstream_seconds.labels(known[0], "", OTHER)
        self._upstreams.add(known)
        series = (self._upstream_calls.labels(*known, outcome), self._upstream_seconds.labels(*known))
        self._upstream_series[(family, tenant, name, outcome)] = series
        return series

    def add_gauge(
        self, name: str, help_text: str, read_value: Callable[[], float], over_workers: Literal["livesum", "livemax"] = "livesum"
    ) -> None:
        """Adds the gauge `interlock_{name}` without labels, whose value `read_value` returns. `over_workers` says how workers combine."""
        gauge = Gauge(f"interlock_{name}", help_text, registry=self.registry, multiprocess_mode=over_workers)
        if self._worker is None:
            gauge.set_function(read_value)
        else:
            self._gauges.append((gauge, read_value))

    def write_gauges(self) -> None:
        """Writes this worker's gauges for the other workers. Does nothing in a gateway of one process."""
        for gauge, tells in self._gauges:
            gauge.set(tells())

    def counter(self, name: str, description: str, label: str) -> Callable[[str], None]:
        """Adds the counter `interlock_{name}_total` with one label and returns a function that increments it.

        The label values must come from the gateway, not from input.
        """
        counted = Counter(f"interlock_{name}", description, (label,), registry=self.registry)
        children: dict[str, Callable[[], None]] = {}

        def count(value: str) -> None:
            increment = children.get(value)
            if increment is None:
                increment = children[value] = counted.labels(value).inc
            increment()

        return count

    def add_histogram(self, name: str, help_text: str, buckets: tuple[float, ...]) -> Callable[[float], None]:
        """Adds the histogram `interlock_{name}_seconds` without labels and returns a function that observes a value."""
        return Histogram(f"interlock_{name}_seconds", help_text, registry=self.registry, buckets=buckets).observe

    def render(self) -> bytes:
        if self._worker is None:
            return generate_latest(self.registry)
        self.write_gauges()
        self._worker.forget_dead()
        summed = CollectorRegistry()
        MultiProcessCollector(summed, str(self._worker.folder))  # type: ignore[no-untyped-call]  # prometheus_client has no types for it
        return generate_latest(summed)


def _known_or_other(known_names: frozenset[str], name: str) -> str:
    return name if name in known_names else OTHER
