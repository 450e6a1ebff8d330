"""What a soak amounts to: build/soak.json and the table."""

from dataclasses import asdict
from statistics import mean, median
from typing import Any

from tests.bench.figures import Figure, columns
from tests.soak.clients import Outcome
from tests.soak.steady import Sample, Soaked, SteadyPlan

GROWTH_MAX = 1.02  # of memory in the second half over that in the first
DESCRIPTORS_MORE = 4  # at the end than at the beginning: a connection or two more to upstreams


def memory_growth(samples: list[Sample]) -> float | None:
    """Memory in the second half over that in the first."""
    half = len(samples) // 2
    return mean(each.memory_mb for each in samples[-half:]) / mean(each.memory_mb for each in samples[:half]) if half else None


def more_descriptors(samples: list[Sample]) -> float | None:
    """The median of the last fifth less that of the first. A single sample has more or fewer connections, whose streams just ended."""
    fifth = -(-len(samples) // 5)
    return median(each.descriptors for each in samples[-fifth:]) - median(each.descriptors for each in samples[:fifth]) if fifth else None


def mb_per_minute(samples: list[Sample]) -> float:
    """The slope of memory, by least squares."""
    if len(samples) < 2:
        return 0.0
    x, y = [each.seconds / 60 for each in samples], [each.memory_mb for each in samples]
    middle, height = mean(x), mean(y)
    return sum((a - middle) * (b - height) for a, b in zip(x, y, strict=True)) / sum((a - middle) ** 2 for a in x)


def figures(soaked: Soaked, rolled: Outcome | None) -> list[Figure]:
    found = [
        Figure("events lost", float(soaked.lost), at_most=0.0),
        Figure("calls and streams failed", float(len(soaked.failed)), at_most=0.0),
        Figure("memory, second half over first", memory_growth(soaked.samples), at_most=GROWTH_MAX),
        Figure("more descriptors at the end", more_descriptors(soaked.samples), at_most=float(DESCRIPTORS_MORE)),
        Figure("memory growth", mb_per_minute(soaked.samples), "MB/min"),
        Figure("capacity", soaked.capacity_req_s, "calls/s"),
        Figure("calls served", float(soaked.served)),
        Figure("events read", float(soaked.events)),
    ]
    if rolled is not None:
        found.append(Figure("rolling restart: requests failed", float(len(rolled.failed)), at_most=0.0))
        found.append(Figure("rolling restart: requests served", float(rolled.served)))
    return found


def document(plan: SteadyPlan, soaked: Soaked, rolled: Outcome | None, commit: str) -> dict[str, Any]:
    """build/soak.json."""
    return {
        "minutes": plan.minutes,
        "streams": plan.streams,
        "lost": soaked.lost,
        "memory_mb_per_min": round(mb_per_minute(soaked.samples), 3),
        "descriptors": [soaked.samples[0].descriptors, soaked.samples[-1].descriptors] if soaked.samples else [0, 0],
        "figures": [{**asdict(figure), "missed": figure.missed} for figure in figures(soaked, rolled)],
        "failed": soaked.failed[:20],
        "rolling": None if rolled is None else {"served": rolled.served, "failed": rolled.failed[:20], "by_kind": rolled.by_kind},
        "samples": [asdict(sample) for sample in soaked.samples],
        "commit": commit,
    }


def table(soaked: Soaked, rolled: Outcome | None) -> str:
    rows = [(figure.name, *figure.cells) for figure in figures(soaked, rolled)]
    return columns(("figure", "measured", "target", ""), rows, left=1)
