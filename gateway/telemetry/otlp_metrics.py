"""Metrics over OTLP, by the semantic conventions where they have a name for one: read from the registry of Prometheus, so that no
call counts twice.

Imported only if a collector takes metrics, as gateway/telemetry/otlp.py.
"""

import asyncio
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricExporter,
    MetricExportResult,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.samples import Sample

from gateway.telemetry.export_log import ExportLog
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.otlp import SCHEMA_URL

PREFIX: Final = "interlock_"
UNITS: Final = {"_seconds": "s", "_bytes": "By"}
CLOSE_SECONDS: Final = 3.0
EXPORT_MILLISECONDS: Final = 10_000
CUMULATIVE: Final = AggregationTemporality.CUMULATIVE
Labels = Mapping[str, str]


class Named(NamedTuple):
    """What the conventions call a series: the metric and its attributes."""

    metric: str
    attributes: dict[str, str]


def name_call(labels: Labels) -> Named:
    """Names a duration of a request to the gateway (MCP server metrics, RPC metrics, HTTP metrics)."""
    door, method = labels["door"], labels["method"]
    if door == "mcp":
        return Named("mcp.server.operation.duration", {"mcp.method.name": method, **_error_type(labels)})
    if door == "a2a":
        return Named("rpc.server.call.duration", {"rpc.system.name": "a2a", "rpc.method": method, **_error_type(labels)})
    return Named("http.server.request.duration", {"http.request.method": method, "interlock.door": door, **_error_type(labels)})


def name_upstream(labels: Labels) -> Named:
    """Names a duration of a call by the gateway (GenAI agent metrics, MCP client metrics)."""
    tenant = {"interlock.tenant": labels["tenant"], **_error_type(labels)}
    if labels["family"] == "agent":
        return Named(
            "gen_ai.invoke_agent.duration", {"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": labels["name"], **tenant}
        )
    operation = {"gen_ai.operation.name": "execute_tool"} if labels["method"] == "tools/call" else {}
    return Named(
        "mcp.client.operation.duration", {"mcp.method.name": labels["method"], "interlock.server": labels["name"], **operation, **tenant}
    )


def _error_type(labels: Labels) -> dict[str, str]:
    """Returns `error.type` of a failed operation: refused or failed. The counters have the exact reasons."""
    return {} if labels["result"] == "ok" else {"error.type": labels["result"]}


_BY_CONVENTION: Final = {"interlock_call_seconds": name_call, "interlock_upstream_seconds": name_upstream}


class _Points(NamedTuple):
    """The metrics of one export, by name, under way."""

    start: int
    now: int
    histograms: dict[str, tuple[str, str, list[HistogramDataPoint]]]  # name: description, unit, points
    metrics: list[Metric]


def convert_families(families: Iterable[Family], start: int, now: int) -> list[Metric]:
    """Returns families of Prometheus that have series as metrics of OpenTelemetry.

    Times are in nanoseconds since 1970; sums count since `start`.
    """
    points = _Points(start, now, {}, [])
    for family in families:
        if not family.samples:
            continue
        if family.type == "histogram":
            _add_histogram(points, family)
        else:
            points.metrics.append(_convert_numbers(points, family))
    for name, (description, unit, found) in points.histograms.items():
        points.metrics.append(Metric(name, description, unit, Histogram(found, CUMULATIVE)))
    return points.metrics


def _convert_numbers(points: _Points, family: Family) -> Metric:
    name, unit = _plain_name(family.name)
    numbers = [
        NumberDataPoint(_own_attributes(sample.labels), points.start, points.now, sample.value)
        for sample in family.samples
        if not sample.name.endswith("_created")
    ]
    data = Sum(numbers, CUMULATIVE, is_monotonic=True) if family.type == "counter" else Gauge(numbers)
    return Metric(name, family.documentation, unit, data)


def _add_histogram(points: _Points, family: Family) -> None:
    """Adds a histogram. The conventions give different names to parts of one family."""
    by_convention = _BY_CONVENTION.get(family.name)
    for labels, samples in _group_samples(family.samples):
        plain, unit = _plain_name(family.name)
        name, attributes = by_convention(labels) if by_convention else (plain, _own_attributes(labels))
        _, _, found = points.histograms.setdefault(name, (family.documentation, unit, []))
        found.append(_histogram_point(points, attributes, samples))


def _group_samples(samples: Iterable[Sample]) -> Iterator[tuple[Labels, list[Sample]]]:
    grouped: dict[tuple[tuple[str, str], ...], list[Sample]] = {}
    for sample in samples:
        key = tuple(sorted((name, value) for name, value in sample.labels.items() if name != "le"))
        grouped.setdefault(key, []).append(sample)
    for key, found in grouped.items():
        yield dict(key), found


def _histogram_point(points: _Points, attributes: dict[str, str], samples: Iterable[Sample]) -> HistogramDataPoint:
    """Returns the point of one series. Prometheus counts cumulatively over the buckets, OTLP each bucket by itself."""
    buckets = sorted((float(sample.labels["le"]), int(sample.value)) for sample in samples if sample.name.endswith("_bucket"))
    total = next((sample.value for sample in samples if sample.name.endswith("_sum")), 0.0)
    counts = [count - before for (_, count), before in zip(buckets, [0, *(count for _, count in buckets)], strict=False)]
    bounds = [bound for bound, _ in buckets[:-1]]
    unknown: Any = None  # neither is known; both are optional in OTLP
    return HistogramDataPoint(attributes, points.start, points.now, buckets[-1][1], total, counts, bounds, min=unknown, max=unknown)


def _plain_name(name: str) -> tuple[str, str]:
    """Returns `interlock.call` and `s` for interlock_call_seconds."""
    suffix = next((each for each in UNITS if name.endswith(each)), "")
    return f"interlock.{name.removeprefix(PREFIX).removesuffix(suffix)}", UNITS.get(suffix, "1")


def _own_attributes(labels: Labels) -> dict[str, str]:
    return {f"interlock.{name}": value for name, value in labels.items()}


class MetricsExport:
    """Exports the metrics of one process, or of all workers. `run_once` is called periodically in the event loop."""

    def __init__(self, metrics: Metrics, collector: str, resource: Resource, exporter: MetricExporter | None = None) -> None:
        self._metrics = metrics
        self._resource = resource
        self._exporter = exporter or OTLPMetricExporter()
        self._log = ExportLog("metrics", collector)
        self._start = time.time_ns()

    async def run_once(self) -> None:
        """Reads the metrics in the event loop, where nothing changes them meanwhile, and exports them in a thread."""
        families = list(self._metrics.collect().collect())
        await asyncio.to_thread(self._export, families)

    def _export(self, families: Iterable[Family]) -> None:
        metrics = convert_families(families, self._start, time.time_ns())
        scope = ScopeMetrics(InstrumentationScope("interlock", schema_url=SCHEMA_URL), metrics, SCHEMA_URL)
        data = MetricsData([ResourceMetrics(self._resource, [scope], self._resource.schema_url)])
        result = self._exporter.export(data, timeout_millis=EXPORT_MILLISECONDS)
        self._log.record(len(metrics), is_taken=result is MetricExportResult.SUCCESS)

    async def close(self) -> None:
        """Exports once more, waiting at most CLOSE_SECONDS."""
        try:
            await asyncio.wait_for(self.run_once(), CLOSE_SECONDS)
        except TimeoutError:
            return
        finally:
            await asyncio.to_thread(self._exporter.shutdown)
