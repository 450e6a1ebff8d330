"""Counters and durations that only the event loop of one process changes, shown as prometheus_client shows its own.

A request changes eight numbers of them. prometheus_client would take a lock for each.
"""

import math
import time
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate

from prometheus_client import Counter
from prometheus_client.metrics_core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector, CollectorRegistry
from prometheus_client.utils import floatToGoString


class LoopCount:
    """One series of a LoopCounter."""

    __slots__ = ("created", "value")

    def __init__(self, created: float) -> None:
        self.created = created
        self.value = 0

    def inc(self) -> None:
        self.value += 1


class LoopDurations:
    """One series of a LoopHistogram. `counts` has the observations of each bucket by itself; the last one is that without a bound."""

    __slots__ = ("bounds", "counts", "created", "total")

    def __init__(self, created: float, bounds: Sequence[float]) -> None:
        self.created = created
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.total += seconds


class LoopCounter(Collector):
    """A counter with labels. `name` is without the suffix _total."""

    def __init__(self, name: str, help_text: str, label_names: Sequence[str], *, registry: CollectorRegistry) -> None:
        self.label_names = label_names
        self._names = (name, help_text)
        self._series: dict[tuple[str, ...], LoopCount] = {}
        registry.register(self)

    def labels(self, *values: str) -> LoopCount:
        """Returns the series of these values, one for each of the label names."""
        return self._series.get(values) or self._series.setdefault(values, LoopCount(time.time()))

    def describe(self) -> Iterable[Metric]:
        """Returns the family without its series, for prometheus_client to know the names."""
        return [CounterMetricFamily(*self._names, labels=self.label_names)]

    def collect(self) -> Iterator[Metric]:
        """Yields the family with all its series."""
        family, shows_created = CounterMetricFamily(*self._names, labels=self.label_names), _shows_created()
        for values, series in self._series.items():
            family.add_metric(values, series.value, series.created if shows_created else None)
        yield family


class LoopHistogram(Collector):
    """Durations with labels, in seconds. `buckets` are upper bounds; one more bucket has all longer ones."""

    def __init__(
        self, name: str, help_text: str, label_names: Sequence[str], *, registry: CollectorRegistry, buckets: Sequence[float]
    ) -> None:
        self.label_names = label_names
        self._names = (name, help_text)
        self._bounds = buckets
        self._bucket_names = [floatToGoString(bound) for bound in (*buckets, math.inf)]  # type: ignore[no-untyped-call]  # prometheus_client has no types for it
        self._series: dict[tuple[str, ...], LoopDurations] = {}
        registry.register(self)

    def labels(self, *values: str) -> LoopDurations:
        """Returns the series of these values, one for each of the label names."""
        return self._series.get(values) or self._series.setdefault(values, LoopDurations(time.time(), self._bounds))

    def describe(self) -> Iterable[Metric]:
        """Returns the family without its series, for prometheus_client to know the names."""
        return [HistogramMetricFamily(*self._names, labels=self.label_names)]

    def collect(self) -> Iterator[Metric]:
        """Yields the family with all its series. The buckets of Prometheus count all observations up to their bounds."""
        family, shows_created = HistogramMetricFamily(*self._names, labels=self.label_names), _shows_created()
        for values, series in self._series.items():
            family.add_metric(values, list(zip(self._bucket_names, accumulate(series.counts), strict=True)), series.total)
            if shows_created:
                family.add_sample(f"{family.name}_created", dict(zip(self.label_names, values, strict=True)), series.created)
        yield family


def _shows_created() -> bool:
    """Whether prometheus_client shows when series began (PROMETHEUS_DISABLE_CREATED_SERIES)."""
    (family,) = Counter("interlock_probe", "A counter of the library.", registry=None).collect()
    return any(sample.name.endswith("_created") for sample in family.samples)
