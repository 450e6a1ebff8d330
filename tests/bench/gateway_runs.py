"""What is measured of the gateway alone: cold start, a policy that reads arguments, people never seen before."""

import asyncio
import json
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import msgspec

from tests.bench.echo import TWENTY
from tests.bench.figures import Run, summarize
from tests.bench.interlock import FORBIDDEN, PATHS, READS_INPUT, SERVER, Home, await_ready, register, send_request
from tests.bench.load import Job, Sample, run
from tests.bench.processes import BenchFailure, Running, tail_of
from tests.bench.profiled import BEGIN
from tests.bench.rounds import LoadClient, Plan, Target, job, measure_rows
from tests.bench.workload import FIRST_ID, WORKLOADS
from tests.fakes.ports import free_port

READING, FRESH = "+input_policy", "+fresh_users"
_DENIED = -32010
_START_LIMIT = 60.0  # seconds


@contextmanager
def serve_registered(home: Home, upstream: Running, users: int, module: tuple[str, ...] = ("gateway",)) -> Iterator[Target]:
    """The gateway of `home`, running, with the upstream registered, and tokens of `users` people."""
    admin = home.admin_token()
    with home.serving(module) as running:
        await_ready(running)
        register(running, admin, upstream)
        yield Target("interlock", running, PATHS, home.tokens("user", users))


def cold_start_s(folder: Path, upstream: Running, grpc: bool = False) -> float:
    """Seconds from the start of the process to the first correct reply to a tool call; interlock.yaml declares the server.

    The home is empty but for the keys, so that the first migration is inside. Raises BenchFailure.
    """
    served = {"grpc_port": free_port()} if grpc else {}
    home = Home.fresh(folder, {**served, "servers": [{"name": SERVER, "url": f"{upstream.url}/mcp"}]})
    call = Job("mcp", home.port, PATHS["mcp"], home.tokens("early", 1), 1, secrets.token_hex(4), warmup=0.0, calls=1)
    since = time.perf_counter()
    with home.serving() as running:
        while True:
            sample = _attempt(call)
            taken = time.perf_counter() - since
            if sample is not None and sample.calls == 1 and not sample.errors:
                return taken
            if running.ended or taken > _START_LIMIT:
                fault = sample.fault if sample else "nothing listens"
                raise BenchFailure(f"no correct reply {taken:.0f} s after the start: {fault}\n{tail_of(running.log)}")
            time.sleep(0.01)


def _attempt(call: Job) -> Sample | None:
    try:
        return asyncio.run(run(call))
    except OSError:
        return None


def input_policy_runs(client: LoadClient, plan: Plan, folder: Path, upstream: Running) -> list[Run]:
    """16 connections to a gateway whose policies read `context.input`: no two calls have one decision. Raises BenchFailure."""
    home = Home.fresh(folder, rules=READS_INPUT)
    with serve_registered(home, upstream, plan.users) as target:
        _check_policy(target)
        return measure_rows(client, plan, [target], READING, (16,))


def many_tools_runs(client: LoadClient, plan: Plan, folder: Path, plain: list[Target], upstream: Running) -> list[Run]:
    """Calls and lists at /mcp while 50 servers more have a thousand tools, beside the targets that need no gateway."""
    servers = [{"name": f"s{number:02}", "url": f"{upstream.url}{TWENTY}"} for number in range(50)]
    home = Home.fresh(folder, {"servers": servers})
    with serve_registered(home, upstream, plan.users) as target:
        _await_tools(target)
        runs = measure_rows(client, replace(plan, workloads=("mcp_many",)), [*plain, target], connections=(1, 16))
        return runs + measure_rows(
            client, replace(plan, workloads=("mcp_list",)), [replace(target, tokens=target.tokens[:1])], connections=(1,)
        )


def _await_tools(target: Target) -> None:
    """Until the gateway has found all servers. Raises BenchFailure."""
    end = time.monotonic() + _START_LIMIT
    work = WORKLOADS["mcp_list"]
    body = json.loads(work.body % {b"id": FIRST_ID, b"text": b"1"})
    while True:
        _, reply = send_request(target.running, PATHS["mcp_list"], target.tokens[0], body, work.headers)
        if not (fault := work.fault(reply, FIRST_ID, "")):
            return
        if time.monotonic() > end:
            raise BenchFailure(f"a thousand tools are not listed after {_START_LIMIT:.0f} s: {fault}")
        time.sleep(0.2)


def profile(client: LoadClient, plan: Plan, folder: Path, upstream: Running) -> str:
    """Where the gateway's time goes with 16 connections: a report for each workload. The figures of such runs are worth nothing."""
    reports = []
    for workload in plan.workloads:
        report = folder / f"{workload}.profile"
        home = Home.fresh(folder / workload)
        with serve_registered(home, upstream, plan.users, ("tests.bench.profiled", str(report))) as target:
            os.kill(target.running.pid, BEGIN)
            client.run(job(plan, workload, 16, target))
        reports.append(f"{WORKLOADS[workload].name}: {report.read_text()}")
    return "\n".join(reports)


def _check_policy(target: Target) -> None:
    """Raises BenchFailure unless the policy refuses what it is there to refuse."""
    body = WORKLOADS["mcp"].body % {b"id": FIRST_ID, b"text": FORBIDDEN.encode()}
    headers = WORKLOADS["mcp"].headers
    status, reply = send_request(target.running, PATHS["mcp"], target.tokens[0], json.loads(body), headers)
    if status != 200 or json.loads(reply).get("error", {}).get("code") != _DENIED:
        raise BenchFailure(f"the policy that reads the input does not refuse: HTTP {status} {reply[:500]!r}")


def fresh_user_runs(client: LoadClient, plan: Plan, home: Home, target: Target) -> list[Run]:
    """The first call of people whom no cache knows, one call each, over 16 connections."""
    runs = []
    for workload in plan.workloads:
        samples = []
        for _ in range(plan.rounds):
            tokens = home.tokens(f"fresh-{secrets.token_hex(4)}", plan.fresh_users)
            once = msgspec.structs.replace(job(plan, workload, 16, target), tokens=tokens, calls=len(tokens), warmup=0.0, seconds=30.0)
            samples.append(client.run(once))
        runs.append(summarize(target.name, WORKLOADS[workload].name + FRESH, 16, samples))
    return runs
