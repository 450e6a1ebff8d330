"""What runs of workflows cost on one database: a step of each kind, alone and ten runs at once, and runs that wait for people."""

import asyncio
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp

from tests.bench.figures import Run, WaitingRuns, WorkflowFigures
from tests.bench.gateway_runs import serve_registered
from tests.bench.interlock import AGENT, PATHS, SERVER, Home, send_request
from tests.bench.processes import BenchFailure, Running, cpu_seconds, resident_mb
from tests.bench.rounds import LoadClient, Plan, Target, measure_rows, print_progress
from tests.bench.workload import EVERY_WORKLOAD
from tests.chaos.databases import Server, postgres
from tests.chaos.stage import workers_of

DATABASES = ("sqlite", "postgres")
AT_ONCE = 10
_HEAD = "document: {{dsl: 1.0.3, namespace: bench, name: {name}, version: 1.0.0, title: {name}, summary: Runs steps of one kind}}\n"
_LOOP = """do:
- steps:
    for: {{each: number, in: '${{ [range({count})] }}'}}
    do:
    - step:
{step}
"""
_FIXED = """        metadata: {gateway: {kind: deterministic}}
        set: {text: '${ .text }', total: '${ (.total // 0) + $number }'}"""
_AGENT = f"""        call: gateway.agent
        with: {{agent: {AGENT}, input: '${{ .text }}'}}
        metadata: {{gateway: {{kind: ai}}}}
        input: {{schema: {{document: {{type: object}}}}}}
        output: {{schema: {{document: {{type: object}}}}, as: '{{text: .}}'}}"""
_TOOL = f"""        call: gateway.tool
        with: {{tool: {SERVER}.echo, arguments: {{text: '${{ .text }}'}}}}
        output: {{as: '{{text: .}}'}}"""
_WAITS = "do:\n- ask: {call: gateway.approve, with: {prompt: Shall it be shipped}}\n"
STEPS = {"workflow_fixed": 40, "workflow_agent": 10, "workflow_tool": 10}  # of one run
_BODIES = {"workflow_fixed": _FIXED, "workflow_agent": _AGENT, "workflow_tool": _TOOL}
_SETTLE, _LOOK = 3.0, 20.0  # seconds until all is quiet, and in which the CPU of waiting is counted
_REST_MAX = 90.0  # seconds
_STARTS_AT_ONCE = 16


def name_of(workload: str) -> str:
    return workload.replace("_", "-")


def document_of(workload: str) -> str:
    """The document whose runs are the workload."""
    return _HEAD.format(name=name_of(workload)) + _LOOP.format(count=STEPS[workload], step=_BODIES[workload])


def workflow_runs(client: LoadClient, plan: Plan, folder: Path, upstream: Running) -> tuple[list[Run], dict[str, WorkflowFigures]]:
    """The rows of both databases, and what is measured once on each. Raises BenchFailure."""
    rows: list[Run] = []
    figures = {}
    for database in DATABASES:
        folder_of = folder / database
        folder_of.mkdir(parents=True)
        with database_settings(database, folder_of) as settings, _prepared(folder_of, settings, upstream, plan) as target:
            print_progress(f"steps of workflows on {database}")
            rows += _step_rows(client, plan, target, database)
            _await_rest(target.running)
            idle = resident_mb(target.running.pid)
            waiting = None
            if plan.waiting_runs:
                print_progress(f"{plan.waiting_runs:,} runs on {database} that wait for people")
                waiting = asyncio.run(_Waiting(target).measure_rows(plan.waiting_runs))
            figures[database] = WorkflowFigures(idle, waiting)
    return rows, figures


@contextmanager
def database_settings(database: str, folder: Path) -> Iterator[dict[str, Any]]:
    with postgres(folder / "server") if database == "postgres" else nullcontext() as server:
        yield {"database": {"url": server.url}} if isinstance(server, Server) else {}


@contextmanager
def _prepared(folder: Path, settings: dict[str, Any], upstream: Running, plan: Plan) -> Iterator[Target]:
    """A gateway with the workflows published."""
    home = Home.fresh(folder / "home", settings)
    with serve_registered(home, upstream, plan.users) as target:
        admin = home.admin_token()
        documents = [document_of(workload) for workload in STEPS] + [_HEAD.format(name="waits") + _WAITS]
        for document in documents:
            status, said = send_request(target.running, "/api/workflows", admin, {"document": document})
            if status != 201:
                raise BenchFailure(f"a workflow was not added: {status} {said[:1000]!r}")
        yield replace(target, paths={**PATHS, **{workload: f"/agents/{name_of(workload)}" for workload in STEPS}})


def _await_rest(running: Running) -> None:
    """Until the processes that evaluate expressions have ended, which they do after a minute without work."""
    end = time.monotonic() + _REST_MAX
    while workers_of(running.pid) and time.monotonic() < end:
        time.sleep(0.5)
    time.sleep(_SETTLE)


def _step_rows(client: LoadClient, plan: Plan, target: Target, database: str) -> list[Run]:
    """Each row of a workflow is of its steps: steps a second, milliseconds and CPU of a step. Beside them, the agent called by hand."""
    runs = measure_rows(client, replace(plan, workloads=tuple(STEPS)), [target], connections=(1, AT_ONCE))
    by_hand = measure_rows(client, replace(plan, workloads=("a2a",)), [target], "+by_hand", (1, AT_ONCE))
    steps = {EVERY_WORKLOAD[workload].name: count for workload, count in STEPS.items()}
    return [replace(each, database=database) for each in [*(per_step(run, steps[run.workload]) for run in runs), *by_hand]]


def per_step(run: Run, steps: int) -> Run:
    """The row of runs as one of their steps."""
    each = {name: round(getattr(run, name) / steps, 3) for name in ("p50_ms", "p99_ms", "cpu_us")}
    return replace(run, workload=run.workload.replace("_run", "_step"), req_s=round(run.req_s * steps, 1), **each)


class _Waiting:
    """Runs of a gateway that wait for an approval."""

    def __init__(self, target: Target) -> None:
        self._target = target

    async def measure_rows(self, count: int) -> WaitingRuns:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=_STARTS_AT_ONCE)) as http:
            await self._start(http, range(50))  # what the first of all cost is not theirs
            await self._settled(http, 50)
            before, at_rest = resident_mb(self._target.running.pid), await self._cpu_percent()
            began = time.perf_counter()
            await self._start(http, range(50, 50 + count))
            await self._settled(http, 50 + count)
            taken = time.perf_counter() - began
        await asyncio.sleep(_SETTLE)
        grown = resident_mb(self._target.running.pid) - before
        return WaitingRuns(count, grown, await self._cpu_percent() - at_rest, at_rest, taken)

    async def _cpu_percent(self) -> float:
        cpu, since = cpu_seconds(self._target.running.pid), time.perf_counter()
        await asyncio.sleep(_LOOK)
        return (cpu_seconds(self._target.running.pid) - cpu) / (time.perf_counter() - since) * 100

    async def _start(self, http: aiohttp.ClientSession, numbers: Sequence[int]) -> None:
        waiting = iter(numbers)

        async def start_some() -> None:
            for number in waiting:
                if number % 1000 == 999:
                    print_progress(f"  {number + 1:,} started")
                await self._start_one(http, number)

        await asyncio.gather(*(start_some() for _ in range(_STARTS_AT_ONCE)))

    async def _start_one(self, http: aiohttp.ClientSession, number: int) -> None:
        token = self._target.tokens[number % len(self._target.tokens)]
        headers = {"authorization": f"Bearer {token}"}
        async with http.post(f"{self._target.running.url}/api/workflows/waits/runs", json={"input": {}}, headers=headers) as answer:
            if answer.status != 201:
                raise BenchFailure(f"no run: HTTP {answer.status} {(await answer.text())[:500]}")

    async def _settled(self, http: aiohttp.ClientSession, count: int) -> None:
        """Until each person's newest runs are suspended. Raises BenchFailure."""
        end = time.monotonic() + 120
        while not await self._are_suspended(http):
            if time.monotonic() > end:
                raise BenchFailure(f"not all of {count} runs wait")
            await asyncio.sleep(0.2)

    async def _are_suspended(self, http: aiohttp.ClientSession) -> bool:
        for token in self._target.tokens:
            headers = {"authorization": f"Bearer {token}"}
            async with http.get(f"{self._target.running.url}/api/workflows/waits/runs?limit=20", headers=headers) as answer:
                if any(not run["note"] for run in json.loads(await answer.text())["items"]):
                    return False
        return True
