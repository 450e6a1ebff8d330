"""Counters and durations for Prometheus. Every label value comes from a closed set, so that no input can create a series."""

from collections.abc import Callable, Mapping
from typing import Final, Literal, NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from gateway.telemetry.loop_metrics import LoopCount, LoopCounter, LoopDurations, LoopHistogram
from gateway.telemetry.outcomes import DOORS, FAMILIES, METHODS, OTHER, OutcomeLabels
from gateway.telemetry.worker_figures import WorkerFigures

UPSTREAMS_MAX: Final = 200  # agents and servers with series of their own; further ones count as `other`
TENANTS_MAX: Final = 200  # tenants with series of their own; further ones count as `other`
TENANT_BUCKETS: Final = (0.01, 0.05, 0.25, 1.0, 5.0, 30.0)
CALL_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0)


OverWorkers = Literal["livesum", "livemax", "livemin"]


class _CallSeries(NamedTuple):
    """The series of one door, method and outcome. They are looked up once, and then incremented."""

    calls: Counter | LoopCount
    seconds: Histogram | LoopDurations


class Metrics:
    """The metrics of one process, or with `worker` those of all workers. `render` returns the body of /metrics.

    Calls are counted by the event loop. Workers count them in files that prometheus_client shares among them.
    """

    def __init__(self, outcomes: OutcomeLabels | None = None, worker: WorkerFigures | None = None) -> None:
        self._worker = worker
        if worker is not None:
            worker.use()
        self._gauges: list[tuple[Gauge, Callable[[], float]]] = []
        self._outcomes = outcomes or OutcomeLabels()
        self.registry = CollectorRegistry(auto_describe=True)
        self._calls = self._add_counter("calls", "Requests that an ingress answered.", ("door", "method", "outcome"))
        self._seconds = self._add_durations("call", "Time to the end of an answer.", ("door", "method", "result"), CALL_BUCKETS)
        self._call_series: dict[tuple[str, str, str], _CallSeries] = {}
        names = ("family", "tenant", "name", "method")
        times = "Time until an agent ended its turn, or a server answered."
        self._upstream_calls = self._add_counter("upstream_calls", "Calls of agents and servers.", (*names, "outcome"))
        self._upstream_seconds = self._add_durations("upstream", times, (*names, "result"), CALL_BUCKETS)
        self._upstream_series: dict[tuple[tuple[str, str, str], str, str], _CallSeries] = {}
        self._upstreams: set[tuple[str, str, str]] = set()
        self._tenant_seconds = self._add_durations(
            "tenant_call", "Time to the end of an answer, by the tenant of its caller.", ("tenant", "result"), TENANT_BUCKETS
        )
        self._tenant_series: dict[tuple[str, str], Histogram | LoopDurations] = {}
        self._tenants: set[str] = set()

    def count_call(self, ingress: str, method: str, outcome: str, seconds: float, tenant: str = "") -> None:
        """Counts one request. Names outside the closed sets count as `other`. `tenant` is empty without an authenticated caller."""
        series = self._call_series.get((ingress, method, outcome)) or self._create_call_series(ingress, method, outcome)
        series.calls.inc()
        series.seconds.observe(seconds)
        if tenant:
            (self._tenant_series.get((tenant, outcome)) or self._create_tenant_series(tenant, outcome)).observe(seconds)

    def _create_call_series(self, *key: str) -> _CallSeries:
        ingress, method, outcome = key
        known = (_known_or_other(DOORS, ingress), _known_or_other(METHODS, method), self._outcomes.name_of(outcome))
        result = self._outcomes.result_of(outcome)
        series = _CallSeries(self._calls.labels(*known), self._seconds.labels(*known[:2], result))
        if known == key:
            self._call_series[known] = series
        return series

    def _create_tenant_series(self, tenant: str, outcome: str) -> Histogram | LoopDurations:
        """Returns the durations of a tenant and of the result that an outcome stands for. Further tenants share those of `other`."""
        is_own = tenant in self._tenants or len(self._tenants) < TENANTS_MAX
        series = self._tenant_seconds.labels(tenant if is_own else OTHER, self._outcomes.result_of(outcome))
        if is_own:
            self._tenants.add(tenant)
            if self._outcomes.name_of(outcome) == outcome:
                self._tenant_series[tenant, outcome] = series
        return series

    def upstream(self, target: tuple[str, str, str], method: str, outcome: str, seconds: float) -> None:
        """Counts one call of a registered agent or server. `target` is its family, tenant and name."""
        series = self._upstream_series.get((target, method, outcome)) or self._create_upstream_series(target, method, outcome)
        series.calls.inc()
        series.seconds.observe(seconds)

    def _create_upstream_series(self, target: tuple[str, str, str], method: str, outcome: str) -> _CallSeries:
        family, tenant, name = target
        known = (_known_or_other(FAMILIES, family), tenant, name)
        is_own = known in self._upstreams or len(self._upstreams) < UPSTREAMS_MAX
        shown = (*(known if is_own else (known[0], "", OTHER)), _known_or_other(METHODS, method))
        name = self._outcomes.name_of(outcome)
        result = self._outcomes.result_of(outcome)
        series = _CallSeries(self._upstream_calls.labels(*shown, name), self._upstream_seconds.labels(*shown, result))
        if is_own:
            self._upstreams.add(known)
            if (*shown, name) == (*target, method, outcome):
                self._upstream_series[target, method, outcome] = series
        return series

    def _add_counter(self, name: str, help_text: str, labels: tuple[str, ...]) -> Counter | LoopCounter:
        kind = LoopCounter if self._worker is None else Counter
        return kind(f"interlock_{name}", help_text, labels, registry=self.registry)

    def _add_durations(self, name: str, help_text: str, labels: tuple[str, ...], buckets: tuple[float, ...]) -> Histogram | LoopHistogram:
        kind = LoopHistogram if self._worker is None else Histogram
        return kind(f"interlock_{name}_seconds", help_text, labels, registry=self.registry, buckets=buckets)

    def add_gauge(self, name: str, help_text: str, read_value: Callable[[], float], over_workers: OverWorkers = "livesum") -> None:
        """Adds the gauge `interlock_{name}` without labels, whose value `read_value` returns. `over_workers` says how workers combine."""
        gauge = Gauge(f"interlock_{name}", help_text, registry=self.registry, multiprocess_mode=over_workers)
        self._watch_gauge(gauge, read_value)

    def add_labelled_gauge(
        self, name: str, help_text: str, label: str, readers: Mapping[str, Callable[[], float]], over_workers: OverWorkers = "livesum"
    ) -> None:
        """Adds the gauge `interlock_{name}` with one label, and a series for each of its values in `readers`."""
        gauge = Gauge(f"interlock_{name}", help_text, (label,), registry=self.registry, multiprocess_mode=over_workers)
        for value, read_value in readers.items():
            self._watch_gauge(gauge.labels(value), read_value)

    def add_info(self, name: str, help_text: str, values: Mapping[str, str]) -> None:
        """Adds the gauge `interlock_{name}_info`, which is 1, with `values` as its labels."""
        gauge = Gauge(f"interlock_{name}_info", help_text, tuple(values), registry=self.registry, multiprocess_mode="livemax")
        gauge.labels(*values.values()).set(1)

    def _watch_gauge(self, gauge: Gauge, read_value: Callable[[], float]) -> None:
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
        """Returns the body of /metrics."""
        return generate_latest(self.collect())

    def collect(self) -> CollectorRegistry:
        """Returns the metrics as they are now: of this process, or the sums over all workers."""
        if self._worker is None:
            return self.registry
        self.write_gauges()
        self._worker.forget_dead()
        summed = CollectorRegistry()
        MultiProcessCollector(summed, str(self._worker.folder))  # type: ignore[no-untyped-call]  # prometheus_client has no types for it
        return summed


def _known_or_other(known_names: frozenset[str], name: str) -> str:
    return name if name in known_names else OTHER
