"""What a second process on one PostgreSQL costs: CPU of a call in one process, and in each of two; and what a call costs the database."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from sqlalchemy import Connection, create_engine, text
from sqlalchemy.engine import make_url

from tests.bench.figures import CallOnPostgres, Run, summarize
from tests.bench.gateway_runs import serve_registered
from tests.bench.interlock import Home, await_ready
from tests.bench.load import Sample
from tests.bench.processes import Running, cpu_seconds
from tests.bench.rounds import LoadClient, Plan, Target, job, print_progress
from tests.bench.workload import WORKLOADS
from tests.chaos.databases import Server, postgres
from tests.fakes.ports import free_port

CONNECTIONS = 16  # at each process
KINDS = ("mcp", "a2a")
ONE, TWO = "+one_process", "+two_processes"
_WRITTEN = """SELECT xact_commit, tup_inserted + tup_updated + tup_deleted, pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')
FROM pg_stat_database WHERE datname = current_database()"""
_SESSIONS = """SELECT avg(count) FROM (SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND left(application_name, 2) = 'p_' GROUP BY application_name) AS each"""


@dataclass(frozen=True, slots=True)
class _Written:
    """Totals of the database: commits, rows, bytes of its log, and CPU seconds of the server's processes."""

    commits: float
    rows: float
    wal: float
    cpu_s: float


def process_runs(plan: Plan, folder: Path, upstream: Running) -> tuple[list[Run], list[CallOnPostgres]]:
    """Rows of one and of two processes, in turns, and the constants of one. Raises BenchFailure."""
    folder.mkdir(parents=True)
    samples: dict[tuple[str, str], list[Sample]] = {(kind, count): [] for kind in KINDS for count in (ONE, TWO)}
    constants: dict[str, list[CallOnPostgres]] = {kind: [] for kind in KINDS}
    with postgres(folder / "server") as server, _two_clients(folder) as clients:
        port = free_port()
        settings = {"database": {"url": server.url}, "server": {"public_url": f"http://127.0.0.1:{port}", "drain_delay": 0}}
        home = replace(Home.fresh(folder / "home", settings), port=port)
        with serve_registered(home, upstream, plan.users) as first:
            for turn in range(plan.rounds):
                for kind in KINDS:
                    sample, constant = _measure_one(plan, clients[0], first, kind, server)
                    samples[kind, ONE].append(sample)
                    constants[kind].append(constant)
                other = replace(home, port=free_port())
                with other.serving() as running:
                    await_ready(running)
                    for kind in KINDS:
                        samples[kind, TWO].append(_measure_two(plan, clients, first, replace(first, running=running), kind))
                print_progress(f"  [{turn + 1}/{plan.rounds}] one and two processes on PostgreSQL")
    rows = [summarize("interlock", WORKLOADS[kind].name + count, CONNECTIONS, found) for (kind, count), found in samples.items()]
    return [replace(row, database="postgres") for row in rows], [_median_of(constants[kind]) for kind in KINDS]


@contextmanager
def _two_clients(folder: Path) -> Iterator[list[LoadClient]]:
    places = [folder / name for name in ("first", "second")]
    for place in places:
        place.mkdir()
    with LoadClient.started(places[0]) as first, LoadClient.started(places[1]) as second:
        yield [first, second]


def _measure_one(plan: Plan, client: LoadClient, target: Target, kind: str, server: Server) -> tuple[Sample, CallOnPostgres]:
    """Measures without a warm-up in between, so that the totals of the database are those of the calls."""
    client.run(job(replace(plan, seconds=plan.warmup, warmup=0.0), kind, CONNECTIONS, target))
    before = _read_totals(server)
    sample = client.run(job(replace(plan, warmup=0.0), kind, CONNECTIONS, target))
    after = _read_totals(server)
    calls = max(sample.calls, 1)
    each = [(getattr(after, name) - getattr(before, name)) / calls for name in ("commits", "rows", "wal", "cpu_s")]
    name = WORKLOADS[kind].name
    return sample, CallOnPostgres(
        name, sample.cpu_s / calls * 1e6, each[3] * 1e6, commits=each[0], rows=each[1], wal_bytes=each[2], sessions=_read_sessions(server)
    )


def _measure_two(plan: Plan, clients: list[LoadClient], first: Target, second: Target, kind: str) -> Sample:
    """Loads both processes at the same time, and adds up what they did."""
    with ThreadPoolExecutor(2) as pool:
        one, two = pool.map(lambda pair: pair[0].run(job(plan, kind, CONNECTIONS, pair[1])), zip(clients, (first, second), strict=True))
    return Sample(
        one.calls + two.calls,
        max(one.wall_s, two.wall_s),
        one.cpu_s + two.cpu_s,
        max(one.p50_s, two.p50_s),
        max(one.p99_s, two.p99_s),
        one.errors + two.errors,
        one.fault or two.fault,
    )


@contextmanager
def _connect(server: Server) -> Iterator[Connection]:
    engine = create_engine(make_url(server.url).set(drivername="postgresql+psycopg"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        yield connection
    engine.dispose()


def _read_totals(server: Server) -> _Written:
    postmaster = int((Path(server.server.pgdata) / "postmaster.pid").read_text().split()[0])
    with _connect(server) as connection:
        commits, rows, wal = connection.execute(text(_WRITTEN)).one()
    return _Written(float(commits), float(rows), float(wal), cpu_seconds(postmaster))


def _read_sessions(server: Server) -> float:
    """Returns how many sessions a process has at the database."""
    with _connect(server) as connection:
        return float(connection.execute(text(_SESSIONS)).scalar() or 0)


def _median_of(found: list[CallOnPostgres]) -> CallOnPostgres:
    names = ("cpu_us", "database_cpu_us", "commits", "rows", "wal_bytes", "sessions")
    return replace(found[0], **{name: round(median(getattr(each, name) for each in found), 3) for name in names})
