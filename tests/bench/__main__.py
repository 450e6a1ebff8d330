"""`python -m tests.bench`: direct, floor and gateway in one interleaved job; a table, build/bench.json, exit 1 on a wrong reply.

Floor and gateway run on one core, the load client and the upstream on another.
"""

import argparse
import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from importlib.metadata import version as installed
from pathlib import Path
from statistics import median
from typing import Any

from tests.bench import figures
from tests.bench.beside import beside_runs, measure_subscribers
from tests.bench.console_fixture import Size
from tests.bench.console_pages import console_runs
from tests.bench.echo import OLDER, THOUSAND
from tests.bench.event_runs import event_runs
from tests.bench.figures import CallOnPostgres, Run, Sessions, StateFigures, Subscribers, Whole, WorkflowFigures
from tests.bench.floor import UPSTREAM
from tests.bench.gateway_runs import cold_start_s, fresh_user_runs, input_policy_runs, many_tools_runs, profile, serve_registered
from tests.bench.interlock import Home, commit, disk_fsync_ms
from tests.bench.process_runs import process_runs
from tests.bench.processes import GATEWAY_CORE, ROOT, BenchFailure, Running, asgi_server, resident_mb
from tests.bench.rounds import LoadClient, Plan, Target, measure_rows, print_progress, write_json
from tests.bench.ruling import measure_ruling
from tests.bench.sessions import measure_sessions, session_runs
from tests.bench.state_runs import state_runs
from tests.bench.workflow_runs import workflow_runs

RESULT = ROOT / "build" / "bench.json"
_PLAIN_PATHS = {
    "mcp": "/mcp",
    "mcp_session": OLDER,
    "mcp_many": THOUSAND,
    "a2a": "/a2a",
    "a2a_stream": "/streaming",
    "a2a_burst": "/burst",
    "a2a_get": "/a2a",
    "a2a_list": "/a2a",
}
_LIBRARIES = ("uvicorn", "uvloop", "httptools", "aiohttp", "cedarpy", "python-jose", "msgspec", "sqlalchemy")
_SETTLE = 2.0  # seconds from the registrations to the look at idle memory


def plan_of(arguments: Sequence[str]) -> Plan:
    """Raises SystemExit on wrong usage."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench", description="Speed of the gateway beside direct calls and a raw pass-through."
    )
    parser.add_argument("--quick", action="store_true", help="one short round: shows that it runs, not how fast")
    parser.add_argument(
        "--only",
        choices=("mcp", "a2a", "beside", "ruling", "workflows", "events", "state", "console", "processes"),
        help="one workload, or what is measured beside them",
    )
    parser.add_argument("--seconds", type=float, help="length of one cell (default 3; quick 0.5)")
    parser.add_argument("--rounds", type=int, help="rounds that the medians are of (default 3; quick 1)")
    parser.add_argument("--cold-starts", type=int, help="how often the gateway is started from nothing (default 3; quick 1; 0: never)")
    parser.add_argument("--waiting-runs", type=int, help="runs that wait for people (default 10000; quick 100; 0: not measured)")
    parser.add_argument("--targets", default="direct,floor,interlock", help="comma-separated, of direct, floor and interlock")
    parser.add_argument("--profile", action="store_true", help="no figures: where the gateway's time goes with 16 connections")
    given = parser.parse_args(arguments)
    plan = Plan(targets=tuple(given.targets.split(",")), profile=given.profile)
    if given.quick:
        plan = replace(plan, rounds=1, seconds=0.5, warmup=0.2, users=10, fresh_users=50, cold_starts=1, subscribers=100, sessions=100)
        plan = replace(plan, waiting_runs=100, event_seconds=2.0, facts=2000, claimants=10, tasks=2000)
    parts = {"workflows": False, "events": False, "shared_state": False, "console": False, "processes": False}
    if given.only == "ruling":
        plan = replace(plan, targets=(), workloads=(), beside=False, **parts)
    elif given.only in ("workflows", "events", "state", "console", "processes"):
        parts["shared_state" if given.only == "state" else given.only] = True
        plan = replace(plan, targets=("interlock",), workloads=(), beside=False, cold_starts=0, **parts)
    elif given.only:
        plan = replace(plan, workloads=() if given.only == "beside" else (given.only,), beside=given.only == "beside", **parts)
    if given.waiting_runs is not None:
        plan = replace(plan, waiting_runs=given.waiting_runs)
    if given.cold_starts is not None:
        plan = replace(plan, cold_starts=given.cold_starts)
    return replace(plan, seconds=given.seconds or plan.seconds, rounds=given.rounds or plan.rounds)


@contextmanager
def plain_targets(plan: Plan, folder: Path) -> Iterator[tuple[Running, list[Target]]]:
    """The upstream and the targets that need no gateway."""
    tokens = [f"nobody-{number}" * 40 for number in range(plan.users)]  # as long as real ones: all targets get the same bytes to read
    with (
        asgi_server("tests.bench.echo:app", folder) as upstream,
        asgi_server("tests.bench.floor:app", folder, GATEWAY_CORE, **{UPSTREAM: upstream.url}) as floor,
    ):
        both = [Target("direct", upstream, _PLAIN_PATHS, tokens), Target("floor", floor, _PLAIN_PATHS, tokens)]
        yield upstream, [target for target in both if target.name in plan.targets]


def bench(plan: Plan, folder: Path) -> tuple[list[Run], Whole, list[str]]:
    """All rows, what is measured once, and the first fault of each job that had any. Raises BenchFailure."""
    print_progress("50 policies and a thousand entities: a ruling by itself")
    alone = measure_ruling()
    if not plan.targets:
        return [], Whole(ruling=alone), []
    with ExitStack() as stack:
        client = stack.enter_context(LoadClient.started(folder))
        upstream, targets = stack.enter_context(plain_targets(plan, folder))
        fsync = disk_fsync_ms(folder)
        if "interlock" not in plan.targets:
            return measure_rows(client, plan, targets), Whole(fsync_ms=fsync, ruling=alone), client.faults
        print_progress(f"cold start, {plan.cold_starts} times")
        colds = [cold_start_s(folder / f"cold-{turn}", upstream) for turn in range(plan.cold_starts)]
        with_grpc = [cold_start_s(folder / f"cold-grpc-{turn}", upstream, grpc=True) for turn in range(plan.cold_starts)]
        home = Home.fresh(folder / "gateway")
        with serve_registered(home, upstream, plan.users) as gateway:
            time.sleep(_SETTLE)
            idle = resident_mb(gateway.running.pid)
            print_progress("direct, floor and interlock in turns")
            runs = measure_rows(client, plan, [*targets, gateway])
            if "mcp" in plan.workloads:
                print_progress("the same in sessions of the initialize era")
                runs += session_runs(client, plan, targets, gateway)
            print_progress(f"{plan.fresh_users} people never seen before, one call each")
            runs += fresh_user_runs(client, plan, home, gateway)
            loaded = resident_mb(gateway.running.pid)
            if plan.beside:
                print_progress("streams, tasks asked for, translation")
                runs += beside_runs(client, plan, targets, gateway, home.tokens("lister", plan.users))
        waiting, held = measure_idle_clients(plan, folder, upstream) if plan.beside else (None, None)
        if "mcp" in plan.workloads:
            print_progress("50 servers more with a thousand tools")
            runs += many_tools_runs(client, plan, folder / "many", targets, upstream)
        stepped: tuple[list[Run], dict[str, WorkflowFigures]] = ([], {})
        if plan.workflows:
            stepped = workflow_runs(client, plan, folder / "workflows", upstream)
        runs += event_runs(client, plan, folder / "events", upstream) if plan.events else []
        shared: tuple[list[Run], dict[str, StateFigures]] = ([], {})
        if plan.shared_state:
            shared = state_runs(client, plan, folder / "state", upstream)
        runs += console_runs(folder / "console", Size(min(10_000, plan.tasks), plan.tasks)) if plan.console else []
        pairs: tuple[list[Run], list[CallOnPostgres]] = ([], [])
        if plan.processes:
            print_progress("one process and two on PostgreSQL, in turns")
            pairs = process_runs(plan, folder / "processes", upstream)
        runs += pairs[0]
        print_progress("a policy that reads the arguments")
        runs += input_policy_runs(client, plan, folder / "reading", upstream) if plan.workloads else []
        starts = (median(taken) if taken else None for taken in (colds, with_grpc))
        whole = Whole(*starts, waiting, held, idle, loaded, fsync, alone, stepped[1], shared[1], pairs[1])
        return runs + stepped[0] + shared[0], whole, client.faults


def measure_idle_clients(plan: Plan, folder: Path, upstream: Running) -> tuple[Subscribers, Sessions]:
    """What idle subscribers and idle sessions cost, each in a gateway whose memory was never larger. Raises BenchFailure."""
    print_progress(f"{plan.subscribers:,} subscribers")
    with serve_registered(Home.fresh(folder / "subscribers"), upstream, plan.users) as unused:
        waiting = measure_subscribers(plan, unused)
    print_progress(f"{plan.sessions:,} sessions of the legacy era")
    with serve_registered(Home.fresh(folder / "sessions"), upstream, plan.users) as unused:
        return waiting, measure_sessions(plan, unused)


def profiles(plan: Plan, folder: Path) -> str:
    """Raises BenchFailure."""
    with LoadClient.started(folder) as client, asgi_server("tests.bench.echo:app", folder) as upstream:
        return profile(client, plan, folder, upstream)


def settings(plan: Plan) -> dict[str, Any]:
    """What has to stand beside every figure."""
    libraries = {name: installed(name) for name in _LIBRARIES}
    machine = {"python": platform.python_version(), "cores": os.cpu_count(), "system": platform.platform()}
    return {"commit": commit(), "plan": asdict(plan), **machine, "load": os.getloadavg(), "libraries": libraries}


def main(arguments: Sequence[str]) -> int:
    """The exit code: 0 when everything ran and no reply was wrong, whatever the figures."""
    plan, began = plan_of(arguments), time.monotonic()
    RESULT.parent.mkdir(exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(prefix="bench-", dir=RESULT.parent) as folder:
            if plan.profile:
                print(profiles(plan, Path(folder)))
                return 0
            runs, whole, faults = bench(plan, Path(folder))
    except BenchFailure as failure:
        print_progress(f"bench: {failure}")
        return 1
    write_json(figures.document(runs, whole, settings(plan)), RESULT)
    print(f"{figures.table(runs, whole)}\n\n{time.monotonic() - began:.0f} s; also in {RESULT.relative_to(ROOT)}")
    for fault in faults:
        print_progress(f"WRONG REPLIES: {fault}")
    return 1 if any(run.errors for run in runs) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
