"""`python -m tests.overload`: four times the capacity for a minute, as an open loop; the table and build/overload.json."""

import argparse
import os
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from tests.bench.gateway_runs import serve_registered
from tests.bench.interlock import Home, commit
from tests.bench.load import Sample
from tests.bench.processes import ROOT, BenchFailure, Running, asgi_server
from tests.bench.rounds import LoadClient, print_progress, write_json
from tests.overload.measuring import await_served, capacity, on_core, own_refusals, raw_refusals, storm
from tests.overload.report import TIMES, Measured, document, table

SETTLE_SECONDS = 12.0  # the gateway releases freed memory ten seconds after a refusal
RESULT = ROOT / "build" / "overload.json"


@dataclass(frozen=True, slots=True)
class OverloadPlan:
    """How long is measured: seconds of load, of one look at capacity or refusals, and how often each is looked at."""

    seconds: float
    look: float = 3.0
    looks: int = 3
    users: int = 50
    workload: str = "mcp"


def measure(plan: OverloadPlan, folder: Path) -> Measured:
    """Raises BenchFailure."""
    cores = sorted(os.sched_getaffinity(0))
    gateway_core, load_core = cores[0], cores[-1]
    with on_core(load_core), ExitStack() as stack:
        client = stack.enter_context(LoadClient.started(folder))
        upstream = stack.enter_context(asgi_server("tests.bench.echo:app", folder))
        raw, own = measure_refusals(plan, folder, client, upstream, gateway_core)
        home = Home.fresh(folder / "gateway")
        with on_core(gateway_core):
            target = stack.enter_context(serve_registered(home, upstream, plan.users))
        admin = home.admin_token()
        print_progress(f"capacity, {plan.looks} times {plan.look:g} s")
        capacity(client, plan.workload, target, plan.look)
        before = [capacity(client, plan.workload, target, plan.look) for _ in range(plan.looks)]
        time.sleep(min(2.0, plan.look))
        rate = TIMES * before[-1].calls / before[-1].wall_s
        print_progress(f"{rate:,.0f} requests a second for {plan.seconds:g} s")
        stormed = storm(folder, plan.workload, target, admin, rate=rate, seconds=plan.seconds, settle=SETTLE_SECONDS)
        print_progress("capacity afterwards")
        after = [capacity(client, plan.workload, target, plan.look) for _ in range(plan.looks)]
    return Measured(before, after, raw, own, stormed)


def measure_refusals(
    plan: OverloadPlan, folder: Path, client: LoadClient, upstream: Running, core: int
) -> tuple[list[Sample], list[Sample]]:
    """Refusals of raw ASGI and of a gateway of its own that lets no request wait, in turns."""
    print_progress(f"refusals, {plan.looks} times")
    raw: list[Sample] = []
    own: list[Sample] = []
    home = Home.fresh(folder / "refusing", {"server": {"admission_queue": 0}})
    with ExitStack() as stack:
        with on_core(core):
            refuser = stack.enter_context(asgi_server("tests.overload.refuser:app", folder))
            target = stack.enter_context(serve_registered(home, upstream, plan.users))
        capacity(client, "mcp", target, min(1.0, plan.look))  # every token is known from here on
        for _ in range(plan.looks):
            raw.append(raw_refusals(client, refuser, target.tokens, plan.look))
            own.append(own_refusals(client, home, target, plan.look))
            await_served(target)
    return raw, own


def main(arguments: list[str]) -> int:
    """The exit code: 0 when every request was answered, whatever the figures."""
    parser = argparse.ArgumentParser(prog="python -m tests.overload", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="length of the load (default 60)")
    parser.add_argument("--workload", choices=("mcp", "a2a"), default="mcp")
    given = parser.parse_args(arguments)
    plan, began = OverloadPlan(given.seconds, workload=given.workload), time.monotonic()
    RESULT.parent.mkdir(exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(prefix="overload-", dir=RESULT.parent) as folder:
            found = measure(plan, Path(folder))
    except BenchFailure as failure:
        print_progress(f"overload: {failure}")
        return 1
    settings = {"commit": commit(), "cores": os.cpu_count(), "load": os.getloadavg(), "seconds": plan.seconds, "workload": plan.workload}
    write_json(document(found, settings), RESULT)
    print(f"{table(found)}\n\n{time.monotonic() - began:.0f} s; also in {RESULT.relative_to(ROOT)}")
    answers = found.storm.answers
    if answers.errors:
        print_progress(f"WRONG: {answers.errors}, first: {answers.fault}")
    for kind, problem in found.storm.probes.failed.items():
        print_progress(f"NOT ANSWERED: {kind}: {problem}")
    return 1 if answers.errors or found.storm.probes.failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
