"""What samples amount to: medians, the figures to reach, build/bench.json and the table."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

from tests.bench.answers import EVENTS
from tests.bench.load import Sample


@dataclass(frozen=True, slots=True)
class Run:
    """One row of build/bench.json: medians over the rounds; `errors` is the sum."""

    target: str
    workload: str
    connections: int
    req_s: float
    p50_ms: float
    p99_ms: float
    cpu_us: float
    errors: int
    database: str = ""  # of rows of workflows, events and memory: sqlite | postgres


@dataclass(frozen=True, slots=True)
class Subscribers:
    """What `count` clients cost who wait for events of tasks: resident memory of each, and CPU of all in percent of one core."""

    count: int
    kb_each: float
    cpu_percent: float


@dataclass(frozen=True, slots=True)
class Sessions:
    """What `count` sessions of the legacy era cost: resident memory of each, and of each with its GET stream open."""

    count: int
    kb_each: float
    kb_listening: float


@dataclass(frozen=True, slots=True)
class CallOnPostgres:
    """The constants of one call on PostgreSQL: CPU of the gateway and of the server, commits, rows, log, and a process's sessions."""

    workload: str
    cpu_us: float
    database_cpu_us: float
    commits: float
    rows: float
    wal_bytes: float
    sessions: float


@dataclass(frozen=True, slots=True)
class Ruling:
    """A ruling by itself: `cold` when nothing of it was asked before, `warm` when it was, in CPU."""

    cold_p50_ms: float
    warm_cpu_us: float


@dataclass(frozen=True, slots=True)
class WaitingRuns:
    """What `count` runs cost that wait for people: resident memory of all, and CPU in percent of one core, over that at rest."""

    count: int
    mb: float
    cpu_percent: float
    at_rest_percent: float  # of the gateway before, with workflows published
    started_in_s: float


@dataclass(frozen=True, slots=True)
class WorkflowFigures:
    """Of one database. `idle_mb` is the memory of a gateway that has run workflows and is at rest."""

    idle_mb: float
    waiting: WaitingRuns | None = None


@dataclass(frozen=True, slots=True)
class ContendedClaims:
    """One claim that `claimants` people take and release as fast as they can. A history with two holders is a failure, and no figure."""

    claimants: int
    held_a_second: float


@dataclass(frozen=True, slots=True)
class StateFigures:
    """Of one database."""

    claims: ContendedClaims


@dataclass(frozen=True, slots=True)
class Whole:
    """What is measured once for the gateway; None: not measured."""

    cold_start_s: float | None = None
    cold_start_grpc_s: float | None = None
    subscribers: Subscribers | None = None
    sessions: Sessions | None = None
    idle_mb: float | None = None
    loaded_mb: float | None = None
    fsync_ms: float | None = None
    ruling: Ruling | None = None
    workflows: Mapping[str, WorkflowFigures] = field(default_factory=dict)  # by database
    shared_state: Mapping[str, StateFigures] = field(default_factory=dict)  # by database
    on_postgres: Sequence[CallOnPostgres] = ()


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure beside its target: at least or at most `target`; None: not measured, or nothing to reach."""

    name: str
    value: float | None
    unit: str = ""
    at_most: float | None = None
    at_least: float | None = None

    @property
    def missed(self) -> bool:
        if self.value is None:
            return False
        return (self.at_most is not None and self.value > self.at_most) or (self.at_least is not None and self.value < self.at_least)

    @property
    def cells(self) -> tuple[str, str, str]:
        value = "not measured" if self.value is None else f"{self.value:.3g} {self.unit}".strip()
        bound = next((f"{sign} {limit:g}" for sign, limit in (("<=", self.at_most), (">=", self.at_least)) if limit is not None), "-")
        verdict = "-" if bound == "-" or self.value is None else "MISSED" if self.missed else "met"
        return value, bound, verdict


def summarize(target: str, workload: str, connections: int, samples: Sequence[Sample]) -> Run:
    """The row of a cell that was measured once per round."""

    def median_of(values: Iterable[float], digits: int = 3) -> float:
        return round(median(values), digits)

    return Run(
        target=target,
        workload=workload,
        connections=connections,
        req_s=median_of((s.calls / s.wall_s for s in samples), 1),
        p50_ms=median_of(s.p50_s * 1e3 for s in samples),
        p99_ms=median_of(s.p99_s * 1e3 for s in samples),
        cpu_us=median_of((s.cpu_s / s.calls * 1e6 if s.calls else 0.0 for s in samples), 1),
        errors=sum(s.errors for s in samples),
    )


class Board:
    """The rows by what they measure."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self._runs = {(run.workload, run.target, run.connections): run for run in runs}

    def value(self, workload: str, target: str, connections: int, field: str) -> float | None:
        run = self._runs.get((workload, target, connections))
        return None if run is None else float(getattr(run, field))

    def added_p50(self, workload: str) -> float | None:
        """Milliseconds that the gateway adds to a direct call over one connection."""
        ours, direct = (self.value(workload, target, 1, "p50_ms") for target in ("interlock", "direct"))
        return None if ours is None or direct is None else ours - direct

    def added_by(self, workload: str, to: str) -> float | None:
        """Milliseconds that `workload` takes longer over one connection than another of the gateway's, at the median."""
        ours, other = (self.value(name, "interlock", 1, "p50_ms") for name in (workload, to))
        return None if ours is None or other is None else ours - other

    def times(self, workload: str, of: str = "floor") -> float | None:
        """The gateway's CPU per call at 16 connections, as a multiple of another target's."""
        ours, other = (self.value(workload, target, 16, "cpu_us") for target in ("interlock", of))
        return None if ours is None or not other else ours / other

    def share(self, workload: str, of: str) -> float | None:
        """The gateway's calls a second at 16 connections, as a share of another target's."""
        ours, other = (self.value(workload, target, 16, "req_s") for target in ("interlock", of))
        return None if ours is None or not other else ours / other


# Workload, its name in the table, and what to reach: added p50 (ms), shares of floor and of direct, CPU (us); the fsyncs that it waits for.
_TARGETS = (
    ("mcp.tools_call", "MCP", 1.2, 0.60, 0.08, 450.0, 1),
    ("mcp.tools_call_session", "MCP in a session", 1.2, 0.60, 0.08, 450.0, 1),
    ("a2a.send", "A2A", 2.0, 0.30, 0.05, 750.0, 2),
)


def figures(runs: Sequence[Run], whole: Whole) -> list[Figure]:
    board, found = Board(runs), []
    for workload, name, added, floor, direct, cpu, fsyncs in _TARGETS:
        p50 = board.added_p50(workload)
        unsynced = None if p50 is None or whole.fsync_ms is None else p50 - fsyncs * whole.fsync_ms
        found += [
            Figure(f"{name} added p50, 1 connection", p50, "ms", at_most=added),
            Figure(f"{name} added p50 less {fsyncs} fsync", unsynced, "ms", at_most=0.45),
            Figure(f"{name} share of the floor, 16 connections", board.share(workload, "floor"), at_least=floor),
            Figure(f"{name} share of direct, 16 connections", board.share(workload, "direct"), at_least=direct),
            Figure(f"{name} CPU per call, 16 connections", board.value(workload, "interlock", 16, "cpu_us"), "us", at_most=cpu),
            Figure(f"{name} p99, 16 connections", board.value(workload, "interlock", 16, "p99_ms"), "ms", at_most=40.0),
            Figure(f"{name} p99, 64 connections", board.value(workload, "interlock", 64, "p99_ms"), "ms", at_most=100.0),
        ]
    return [
        *found,
        *_many(board),
        Figure("memory of an initialize-era session", whole.sessions and whole.sessions.kb_each, "KB", at_most=20.0),
        Figure("the same with its GET stream open", whole.sessions and whole.sessions.kb_listening, "KB"),
        *_beside(board, whole.subscribers),
        *(figure for database in ("sqlite", "postgres") for figure in _workflows(runs, whole.workflows.get(database), database)),
        *(figure for database in ("sqlite", "postgres") for figure in _events(runs, database)),
        *(figure for database in ("sqlite", "postgres") for figure in _shared_state(runs, whole.shared_state.get(database), database)),
        *(_console(runs, database) for database in ("sqlite", "postgres")),
        *_processes(runs, whole.on_postgres),
        Figure("cold start to first correct call", whole.cold_start_s, "s", at_most=3.0),
        Figure("cold start to first correct call, gRPC on", whole.cold_start_grpc_s, "s", at_most=3.0),
        Figure("memory, idle", whole.idle_mb, "MB", at_most=150.0),
        Figure("memory, after load", whole.loaded_mb, "MB", at_most=200.0),
        Figure("whole ruling, cold, p50", whole.ruling and whole.ruling.cold_p50_ms, "ms", at_most=1.0),
        Figure("whole ruling without minting, warm, CPU", whole.ruling and whole.ruling.warm_cpu_us, "us", at_most=60.0),
        Figure("wrong replies", float(sum(run.errors for run in runs)), at_most=0.0),
        Figure("fsync of the disk, p50 (inside every added p50)", whole.fsync_ms, "ms"),
    ]


def _many(board: Board) -> list[Figure]:
    """With 50 servers more and their thousand tools."""
    name, found = "mcp.tools_call_of_1000", "MCP with 1,000 tools"
    return [
        Figure(f"{found}, added p50, 1 connection", board.added_p50(name), "ms", at_most=1.2),
        Figure(f"{found}, share of the floor, 16 connections", board.share(name, "floor"), at_least=0.40),
        Figure(f"{found}, CPU per call, 16 connections", board.value(name, "interlock", 16, "cpu_us"), "us", at_most=450.0),
        Figure(
            f"{found}, tools/list p50 of one person", board.value("mcp.tools_list_of_1000", "interlock", 1, "p50_ms"), "ms", at_most=15.0
        ),
    ]


def _beside(board: Board, waiting: Subscribers | None) -> list[Figure]:
    """Of A2A, what is no SendMessage."""
    found = []
    for workload, name in (("a2a.stream", "A2A stream"), ("a2a.stream_burst", "A2A stream in one burst")):
        cpu = board.value(workload, "interlock", 16, "cpu_us")
        found += [
            Figure(f"{name}, CPU per event, 16 streams", None if cpu is None else cpu / EVENTS, "us"),
            Figure(f"{name}, CPU per event, times the floor's", board.times(workload), at_most=2.5),
        ]
    return [
        *found,
        Figure("A2A GetTask CPU per call, 16 connections", board.value("a2a.get_task", "interlock", 16, "cpu_us"), "us"),
        Figure("A2A GetTask share of the floor, 16 connections", board.share("a2a.get_task", "floor"), at_least=0.60),
        Figure("A2A ListTasks of 20, CPU per call, 16 connections", board.value("a2a.list_tasks", "interlock", 16, "cpu_us"), "us"),
        Figure("A2A ListTasks of 20, share of the floor, 16 connections", board.share("a2a.list_tasks", "floor"), at_least=0.30),
        Figure("A2A 0.3 to 1.0, added p50", board.added_by("a2a.send_0.3_to_1.0+pair", "a2a.send+pair"), "ms", at_most=0.3),
        Figure("A2A 1.0 to 0.3, added p50", board.added_by("a2a.send_1.0_to_0.3+pair", "a2a.send+pair"), "ms", at_most=0.3),
        Figure("memory of an idle subscriber", waiting and waiting.kb_each, "KB", at_most=15.0),
        Figure(f"CPU of {waiting.count if waiting else 2000:,} idle subscribers", waiting and waiting.cpu_percent, "% of a core"),
    ]


def _workflows(runs: Sequence[Run], found: WorkflowFigures | None, database: str) -> list[Figure]:
    """Steps of runs on one database. An agent step is compared with the same call by hand, over one connection."""
    board = Board([run for run in runs if run.database == database])

    def value(kind: str, connections: int, field: str) -> float | None:
        return board.value(f"workflow.{kind}_step", "interlock", connections, field)

    waiting = found.waiting if found else None
    name = f"workflows on {database}"
    return [
        Figure(f"{name}, fixed step, one run alone", value("fixed", 1, "p50_ms"), "ms", at_most=8.0),
        Figure(f"{name}, fixed steps a second, 10 runs", value("fixed", 10, "req_s"), at_least=250.0),
        Figure(f"{name}, agent steps a second, 10 runs", value("agent", 10, "req_s"), at_least=100.0),
        Figure(f"{name}, agent step over the call by hand", board.added_by("workflow.agent_step", "a2a.send+by_hand"), "ms", at_most=10.0),
        Figure(f"{name}, memory at rest", found and found.idle_mb, "MB", at_most=200.0),
        Figure(f"{name}, memory of {waiting.count if waiting else 10_000:,} waiting runs", waiting and waiting.mb, "MB", at_most=100.0),
        Figure(f"{name}, CPU of them", waiting and waiting.cpu_percent, "% of a core", at_most=2.0),
        Figure(f"{name}, CPU of the gateway at rest", waiting and waiting.at_rest_percent, "% of a core"),
    ]


def _events(runs: Sequence[Run], database: str) -> list[Figure]:
    """Events that are taken and that start runs, and a search in memory, on one database."""
    board, name = Board([run for run in runs if run.database == database]), f"events on {database}"

    def value(workload: str, connections: int, field: str) -> float | None:
        return board.value(workload, "interlock", connections, field)

    return [
        Figure(f"{name}, accepted a second, one a request", value("events.accept", 16, "req_s"), at_least=1000.0),
        Figure(f"{name}, accepted a second, 20 a request", value("events.accept_batch", 16, "req_s"), at_least=1000.0),
        Figure(f"{name}, event to start, p50 at 50 a second", value("events.start", 50, "p50_ms"), "ms", at_most=50.0),
        Figure(f"{name}, not started exactly once", value("events.start", 50, "errors"), at_most=0.0),
        Figure(f"memory on {database}, search p50", value("memory.search", 1, "p50_ms"), "ms", at_most=10.0),
    ]


def _shared_state(runs: Sequence[Run], found: StateFigures | None, database: str) -> list[Figure]:
    """What agents share, on one database. A call with a declared effect is compared with a plain one of the same gateway."""
    board, name = Board([run for run in runs if run.database == database]), f"shared state on {database}"
    added = board.added_by("mcp.tools_call+effect", "mcp.tools_call+no_effect")
    reads, writes = (board.value(f"state.{kind}", "interlock", 16, "req_s") for kind in ("read", "write"))
    return [
        Figure(f"{name}, a declared effect and three rules, added p50", added, "ms", at_most=0.5),
        Figure(f"{name}, claims a second that many want", found and found.claims.held_a_second, at_least=200.0),
        Figure(f"{name}, reads a second, 16 connections", reads, at_least=1000.0),
        Figure(f"{name}, writes a second, 16 connections", writes, at_least=400.0),
    ]


def _processes(runs: Sequence[Run], calls: Sequence[CallOnPostgres]) -> list[Figure]:
    """Two processes on PostgreSQL beside one, and what a call of one is to the database."""
    board, found = Board([run for run in runs if run.database == "postgres"]), list[Figure]()
    for workload in ("mcp.tools_call", "a2a.send"):
        one, two = (board.value(f"{workload}+{count}", "interlock", 16, "cpu_us") for count in ("one_process", "two_processes"))
        times = None if not one or two is None else two / one
        found.append(Figure(f"{workload}, CPU per call with two processes, times one's", times, at_most=1.15))
    for call in calls:
        found += [
            Figure(f"{call.workload} on postgres, CPU of the database per call", call.database_cpu_us, "us"),
            Figure(f"{call.workload} on postgres, rows written per call", call.rows),
            Figure(f"{call.workload} on postgres, log per call", call.wal_bytes, "bytes"),
            Figure(f"{call.workload} on postgres, commits per call", call.commits),
            Figure(f"{call.workload} on postgres, connections of a process", call.sessions),
        ]
    return found


def _console(runs: Sequence[Run], database: str) -> Figure:
    """The page of the console that takes longest with a full database."""
    times = [run.p50_ms for run in runs if run.database == database and run.workload.startswith("console.")]
    return Figure(f"console on {database}, the slowest page, p50", max(times, default=None), "ms", at_most=30.0)


def document(runs: Sequence[Run], whole: Whole, settings: dict[str, Any]) -> dict[str, Any]:
    """build/bench.json."""
    reached = [{**asdict(figure), "missed": figure.missed} for figure in figures(runs, whole)]
    rows = [{name: value for name, value in asdict(run).items() if name != "database" or value} for run in runs]
    return {"runs": rows, **asdict(whole), "figures": reached, "settings": settings}


def table(runs: Sequence[Run], whole: Whole) -> str:
    """Both halves for people: every row measured, then the figures beside their targets."""
    head = ("workload", "conn", "target", "req/s", "p50 ms", "p99 ms", "CPU us/call", "wrong")
    rows = [
        (
            f"{r.workload} ({r.database})" if r.database else r.workload,
            f"{r.connections}",
            r.target,
            f"{r.req_s:,.0f}",
            f"{r.p50_ms:.2f}",
            f"{r.p99_ms:.2f}",
            f"{r.cpu_us:.0f}",
            f"{r.errors}",
        )
        for r in runs
    ]
    reached = [(figure.name, *figure.cells) for figure in figures(runs, whole)]
    return columns(head, rows, left=3) + "\n\n" + columns(("figure", "measured", "target", ""), reached, left=1)


def columns(head: tuple[str, ...], rows: Sequence[tuple[str, ...]], left: int) -> str:
    """A table for people. The first `left` columns are aligned to the left, the others to the right."""
    widths = [max(len(row[place]) for row in (head, *rows)) for place in range(len(head))]
    lines = [head, tuple("-" * width for width in widths), *rows]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if place < left else cell.rjust(width) for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )
