"""What the measurements amount to: the figures to reach, build/overload.json and the table."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from tests.bench.figures import Figure, columns
from tests.bench.load import Sample
from tests.overload.measuring import Storm

TIMES = 4.0  # the load, in capacities


def cpu_of(samples: Sequence[Sample]) -> float:
    """CPU seconds of a call: the median of the samples."""
    return median(sample.cpu_s / max(1, sample.calls) for sample in samples)


@dataclass(frozen=True, slots=True)
class Measured:
    """`before` and `after`: calls at capacity. `raw` and `own`: refusals of raw ASGI and of the gateway."""

    before: Sequence[Sample]
    after: Sequence[Sample]
    raw: Sequence[Sample]
    own: Sequence[Sample]
    storm: Storm

    @property
    def capacity(self) -> float:
        """Calls a second."""
        return median(sample.calls / sample.wall_s for sample in self.before)

    @property
    def goodput(self) -> float:
        """Served calls a second under load, in capacities."""
        return self.storm.answers.served / self.storm.seconds / self.capacity

    @property
    def goodput_by_cpu(self) -> float:
        """Served calls in a CPU second under load, in those at capacity: no other process of the machine changes it."""
        return self.storm.answers.served / self.storm.cpu_s * cpu_of(self.before)

    @property
    def possible(self) -> float:
        """0.9 (c - 4r)/(c - r): the goodput of a gateway that refuses for r what it can't serve for c, less a tenth."""
        c, r = cpu_of(self.before), cpu_of(self.own)
        return 0.9 * max(0.0, c - TIMES * r) / max(1e-9, c - r)


def figures(found: Measured) -> list[Figure]:
    """The figures to reach, and some without a target."""
    storm, answers = found.storm, found.storm.answers
    return [
        Figure("capacity", found.capacity, "req/s"),
        Figure("CPU of an admitted call (c)", cpu_of(found.before) * 1e6, "us"),
        Figure("CPU of a refusal (r)", cpu_of(found.own) * 1e6, "us"),
        Figure("CPU of a raw ASGI 503", cpu_of(found.raw) * 1e6, "us"),
        Figure("a refusal's CPU in raw ASGI 503s", cpu_of(found.own) / cpu_of(found.raw), at_most=1.3),
        Figure("load, in capacities", answers.sent / storm.seconds / found.capacity),
        Figure("goodput, of capacity", found.goodput, at_least=found.possible),
        Figure("goodput by CPU, of capacity", found.goodput_by_cpu, at_least=found.possible),
        Figure("served p50", answers.served_p50 * 1e3, "ms"),
        Figure("served p99", answers.served_p99 * 1e3, "ms", at_most=2000.0),
        Figure("refused p50", answers.refused_p50 * 1e3, "ms", at_most=50.0),
        Figure("refused p99", answers.refused_p99 * 1e3, "ms"),
        Figure("neither served nor refused", float(answers.errors), at_most=0.0),
        Figure("normal again after", storm.recovered_s, "s", at_most=3.0),
        Figure("capacity afterwards, of before", _calls_a_cpu_second(found.after) / _calls_a_cpu_second(found.before)),
        Figure("memory before", storm.mb_before, "MB"),
        Figure("memory at most", storm.mb_most, "MB"),
        Figure("memory afterwards, of before", storm.mb_after / storm.mb_before, at_most=1.1),
        Figure("probes p99", storm.probes.p99_ms("livez", "readyz"), "ms"),
        Figure("administration p99", storm.probes.p99_ms("kill", "agents", "metrics"), "ms"),
        Figure("probes and administration without an answer", float(len(storm.probes.failed)), at_most=0.0),
    ]


def _calls_a_cpu_second(samples: Sequence[Sample]) -> float:
    return 1 / cpu_of(samples)


def document(found: Measured, settings: dict[str, Any]) -> dict[str, Any]:
    """build/overload.json."""
    answers = found.storm.answers
    return {
        "capacity_req_s": round(found.capacity, 1),
        "goodput": round(found.goodput, 4),
        "possible": round(found.possible, 4),
        "shed_p50_ms": round(answers.refused_p50 * 1e3, 3),
        "recovered_s": round(found.storm.recovered_s, 3),
        "figures": [{**asdict(figure), "missed": figure.missed} for figure in figures(found)],
        "sent": answers.sent,
        "served": answers.served,
        "refused": answers.refused,
        "connections": answers.connections,
        "skipped": answers.skipped,
        "client_cpu_us": round(answers.cpu_s / max(1, answers.sent) * 1e6, 1),
        "probes_failed": found.storm.probes.failed,
        "settings": settings,
    }


def table(found: Measured) -> str:
    """The figures beside their targets, for people."""
    rows = [(figure.name, *figure.cells) for figure in figures(found)]
    return columns(("figure", "measured", "target", ""), rows, left=1)
