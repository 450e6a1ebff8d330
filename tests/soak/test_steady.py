"""The judge of a soak notices what must not happen, and a soak of a moment runs from end to end."""

import json
from pathlib import Path

from tests.soak import report
from tests.soak.clients import Outcome
from tests.soak.steady import Sample, Soaked, SteadyPlan, count_lost, soak


def samples(*memory: float, descriptors: tuple[int, int] = (10, 10)) -> list[Sample]:
    half = len(memory) // 2
    counts = [*[descriptors[0]] * half, *[descriptors[1]] * (len(memory) - half)]
    return [Sample(10.0 * number, each, counts[number], 0.0) for number, each in enumerate(memory)]


def missed(soaked: Soaked, rolled: Outcome | None = None) -> list[str]:
    return [figure.name for figure in report.figures(soaked, rolled) if figure.missed]


def test_missing_repeated_and_misplaced_events_are_counted() -> None:
    assert [count_lost(ticks, 3) for ticks in ([0, 1, 2], [0, 2], [0, 1, 1, 2], [0, 2, 1], [])] == [0, 1, 1, 1, 3]


def test_a_soak_that_loses_nothing_and_stays_level_meets_its_figures() -> None:
    assert missed(Soaked(samples=samples(100, 100, 101, 101)), Outcome(served=5)) == []


def test_growth_leaks_losses_and_failures_are_missed_figures() -> None:
    assert missed(Soaked(samples=samples(100, 100, 103, 103))) == ["memory, second half over first"]
    assert missed(Soaked(samples=samples(100, 100, descriptors=(10, 15)))) == ["more descriptors at the end"]
    assert missed(Soaked(lost=1, failed=["x"], samples=samples(1, 1))) == ["events lost", "calls and streams failed"]
    assert missed(Soaked(samples=samples(1, 1)), Outcome(failed=["x"])) == ["rolling restart: requests failed"]


def test_one_sample_with_many_descriptors_is_no_leak() -> None:
    level = [Sample(10.0 * number, 100.0, 30 if number in (1, 14) else 10, 0.0) for number in range(15)]
    assert missed(Soaked(samples=level)) == []
    leak = [Sample(10.0 * number, 100.0, 10 + number // 2, 0.0) for number in range(15)]
    assert missed(Soaked(samples=leak)) == ["more descriptors at the end"]


def test_memory_growth_is_the_slope_of_a_line() -> None:
    assert report.mb_per_minute(samples(100, 101, 102, 103)) == 6.0


def test_a_soak_of_a_moment_holds_its_streams_and_calls(tmp_path: Path) -> None:
    plan = SteadyPlan(minutes=0.0, streams=4, ticks=3, tick_seconds=0.2, warm_up=0.0, capacity_seconds=0.3)
    told: list[str] = []
    soaked = soak(tmp_path, plan, told.append)
    assert (soaked.lost, soaked.failed) == (0, []) and soaked.ended >= 4 and soaked.events == 3 * soaked.ended
    assert soaked.served > 0 and soaked.samples and "capacity" in told[0]
    assert json.loads(json.dumps(report.document(plan, soaked, None, "c")))["lost"] == 0
    assert "events lost" in report.table(soaked, None)
