"""Counters and durations of the event loop look exactly like those of prometheus_client."""

import random
import time

import pytest
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest, metrics
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.registry import Collector

from gateway.telemetry.loop_metrics import LoopCounter, LoopHistogram

BOUNDS = (0.001, 0.25, 1.0, 30.0)
SECONDS = (0.0, 0.001, 0.0011, 0.2, 0.25, 0.7, 1.0, 29.9, 30.0, 31.0, 1e6)
LABELS = ("tenant", "result")


def fill(counter_kind: type[Counter | LoopCounter], histogram_kind: type[Histogram | LoopHistogram]) -> CollectorRegistry:
    """Counts the same things each time with counters and histograms of these kinds."""
    registry, dice = CollectorRegistry(auto_describe=True), random.Random(7)
    counter = counter_kind("interlock_calls", "What \\ was \n counted.", LABELS, registry=registry)
    histogram = histogram_kind("interlock_call_seconds", "How long.", LABELS, registry=registry, buckets=BOUNDS)
    counter_kind("interlock_unused", "Nothing yet.", LABELS, registry=registry)
    histogram_kind("interlock_unused_seconds", "Nothing yet.", LABELS, registry=registry, buckets=BOUNDS)
    for _ in range(500):
        tenant, result = dice.choice(("acme", 'with "quotes"', "zoo\n", "")), dice.choice(("ok", "failed"))
        counter.labels(tenant, result).inc()
        histogram.labels(tenant, result).observe(dice.choice(SECONDS))
    return registry


@pytest.mark.parametrize("has_created", [True, False])
def test_the_exposition_is_that_of_prometheus_client(monkeypatch: pytest.MonkeyPatch, has_created: bool) -> None:
    monkeypatch.setattr(time, "time", lambda: 1_790_000_000.5)
    monkeypatch.setattr(metrics, "_use_created", has_created)
    own, theirs = fill(LoopCounter, LoopHistogram), fill(Counter, Histogram)
    assert generate_latest(own) == generate_latest(theirs)
    assert generate_openmetrics(own) == generate_openmetrics(theirs)  # type: ignore[no-untyped-call]  # prometheus_client has no types for it
    assert (b"_created" in generate_latest(own)) is has_created


def test_a_name_of_a_counter_can_not_be_used_twice() -> None:
    registry = fill(LoopCounter, LoopHistogram)
    kinds: tuple[type[Collector], ...] = (Counter, LoopCounter)
    for kind in kinds:
        with pytest.raises(ValueError, match="Duplicated"):
            kind("interlock_call_seconds_count", "Again.", (), registry=registry)  # type: ignore[call-arg]  # Collector has no constructor
