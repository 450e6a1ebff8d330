"""Figures: names as promised, and no input makes a series."""

import random
import string

from gateway.calls.limits.open_streams import OpenStreams
from gateway.ingress.http.errors import FAULT_IDS, REASON_IDS
from gateway.telemetry.metrics import TENANTS_MAX, UPSTREAMS_MAX, Metrics
from gateway.telemetry.outcomes import DOORS, METHODS, OUTCOMES, OutcomeLabels


def series(metrics: Metrics) -> set[str]:
    return {line.rpartition(" ")[0] for line in metrics.render().decode().split("\n") if line and not line.startswith("#")}


def value(metrics: Metrics, name: str, labels: dict[str, str]) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def test_a_call_is_counted_and_timed() -> None:
    metrics = Metrics(OutcomeLabels(["unknown"]))
    metrics.count_call("mcp", "tools/call", "ok", 0.004)
    metrics.count_call("mcp", "tools/call", "unknown", 0.2)
    assert value(metrics, "interlock_calls_total", {"door": "mcp", "method": "tools/call", "outcome": "ok"}) == 1
    assert value(metrics, "interlock_calls_total", {"door": "mcp", "method": "tools/call", "outcome": "unknown"}) == 1
    assert value(metrics, "interlock_call_seconds_count", {"door": "mcp", "method": "tools/call", "result": "refused"}) == 1
    assert value(metrics, "interlock_call_seconds_bucket", {"door": "mcp", "method": "tools/call", "result": "ok", "le": "0.005"}) == 1


def test_names_from_outside_share_one_series() -> None:
    metrics = Metrics()
    for method in ("evil/1", "evil/2"):
        metrics.count_call("a2a", method, "ok", 0.1)
    assert value(metrics, "interlock_calls_total", {"door": "a2a", "method": "other", "outcome": "ok"}) == 2


def test_random_input_makes_no_more_series_than_the_closed_sets_allow() -> None:
    metrics = Metrics()
    dice = random.Random(7)

    def word() -> str:
        return "".join(dice.choices(string.printable, k=6))

    for _ in range(3000):
        metrics.count_call(dice.choice([*DOORS, word()]), dice.choice([*METHODS, word()]), dice.choice([*OUTCOMES, word()]), dice.random())
    calls = [name for name in series(metrics) if name.startswith("interlock_calls_total")]
    assert len(calls) <= (len(DOORS) + 1) * (len(METHODS) + 1) * (len(OUTCOMES) + 1)
    assert len(metrics._call_series) <= len(calls)


def test_a_gauge_shows_what_its_part_tells_when_somebody_looks() -> None:
    metrics, places = Metrics(), OpenStreams()
    metrics.add_gauge("streams", "Streams that are open now.", lambda: places.total_count)
    kept = [places.acquire("ann"), places.acquire("bob")]
    assert value(metrics, "interlock_streams", {}) == 2
    kept.pop()
    assert value(metrics, "interlock_streams", {}) == 1


def test_two_gateways_in_one_process_do_not_share_figures() -> None:
    one, two = Metrics(), Metrics()
    one.count_call("mcp", "ping", "ok", 0.1)
    assert value(two, "interlock_calls_total", {"door": "mcp", "method": "ping", "outcome": "ok"}) is None


def test_a_refusal_is_told_from_a_failure() -> None:
    outcomes = OutcomeLabels(["unknown", "not-kept"], ["not-kept"])
    results = [outcomes.result_of(name) for name in ("ok", "question", "denied", "unknown", "not-kept", "failed", "never-heard-of")]
    assert results == ["ok", "ok", "refused", "refused", "failed", "failed", "failed"]


def test_overload_is_neither_a_failure_nor_a_callers_mistake() -> None:
    assert "overloaded" in FAULT_IDS
    assert OutcomeLabels(REASON_IDS, FAULT_IDS).result_of("overloaded") == "overloaded"


def test_each_tenant_is_timed_until_there_are_too_many() -> None:
    metrics = Metrics(OutcomeLabels(["unknown"]))
    for number in range(TENANTS_MAX + 5):
        for outcome in ("ok", "unknown", "denied"):
            metrics.count_call("mcp", "tools/call", outcome, 0.1, f"t{number}")
    seen = {line.split('tenant="')[1].split('"')[0] for line in series(metrics) if line.startswith("interlock_tenant_call_seconds_count")}
    assert len(seen) == TENANTS_MAX + 1
    assert value(metrics, "interlock_tenant_call_seconds_count", {"tenant": "t3", "result": "refused"}) == 2
    assert value(metrics, "interlock_tenant_call_seconds_count", {"tenant": "other", "result": "ok"}) == 5


def test_a_request_without_a_caller_counts_for_no_tenant() -> None:
    metrics = Metrics()
    metrics.count_call("mcp", "tools/call", "denied", 0.1)
    assert not [line for line in series(metrics) if line.startswith("interlock_tenant_call_seconds")]


def test_further_upstreams_share_a_series_for_each_method() -> None:
    metrics = Metrics()
    for number in range(UPSTREAMS_MAX + 3):
        metrics.upstream(("server", "acme", f"s{number}"), "tools/call", "ok", 0.1)
    shared = {"family": "server", "tenant": "", "name": "other", "method": "tools/call", "result": "ok"}
    assert value(metrics, "interlock_upstream_seconds_count", shared) == 3
