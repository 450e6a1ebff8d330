"""What events cost on both databases: taking them, one or twenty a request, and starting runs by them. Beside them, a search in memory."""

import asyncio
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import aiohttp
from sqlalchemy import create_engine, text

from tests.bench.figures import Run
from tests.bench.gateway_runs import serve_registered
from tests.bench.interlock import PATHS, Home, send_request
from tests.bench.load import percentile
from tests.bench.memory_search import measure_search
from tests.bench.processes import BenchFailure, Running, cpu_seconds
from tests.bench.rounds import LoadClient, Plan, Target, measure_rows, print_progress
from tests.bench.workflow_runs import DATABASES
from tests.bench.workload import EVENT_KINDS, EVERY_WORKLOAD
from tests.chaos.databases import postgres

RATE: Final = 50  # events a second that start runs
CONNECTIONS: Final = 16
_SETTLE_MAX: Final = 60.0  # seconds until the last run has started
_STARTED_TYPE: Final = "bench.order.started"
_WORKFLOW: Final = "started"
_DOCUMENT: Final = f"""document: {{dsl: 1.0.3, namespace: bench, name: {_WORKFLOW}, version: 1.0.0, title: started, summary: By events}}
do:
- note: {{set: {{done: true}}}}
"""
_SETTINGS: Final[dict[str, Any]] = {
    "roles": {"operator": ["*"], "member": ["agent:*", "tool:*", "state:write:events/*"], "clerk": ["agent:*", "state:read:events/*"]},
    "service_principals": {"clerk": {"roles": ["clerk"], "ceiling": ["agent:*", "state:read:events/*"]}},
    "triggers": [{"name": "start", "type": _STARTED_TYPE, "run_as": "clerk", "workflow": _WORKFLOW, "input": {"number": "{data.number}"}}],
}
_STARTED: Final = text(
    "SELECT r.input AS input, t.created AS created FROM workflow_runs r JOIN tasks t ON t.tenant = r.tenant AND t.id = r.id "
    "WHERE r.workflow = :workflow"
)


def event_runs(client: LoadClient, plan: Plan, folder: Path, upstream: Running) -> list[Run]:
    """The rows of both databases. Raises BenchFailure."""
    rows: list[Run] = []
    for database in DATABASES:
        folder_of = folder / database
        (folder_of / "memory").mkdir(parents=True)
        with _database(database, folder_of) as url, _prepared(folder_of, url, upstream, plan) as target:
            print_progress(f"events on {database}")
            rows += [replace(row, database=database) for row in _accepted_rows(client, plan, target)]
            rows.append(replace(asyncio.run(_measure_starts(target, url, plan.event_seconds)), database=database))
        with _database(database, folder_of / "memory") as url:
            print_progress(f"search over {plan.facts:,} facts on {database}")
            times = asyncio.run(measure_search(url, plan.facts))
            rate = round(1000 / times.p50_ms, 1)
            rows.append(Run("interlock", "memory.search", 1, rate, times.p50_ms, times.p99_ms, times.cpu_us, 0, database))
    return rows


@contextmanager
def _database(database: str, folder: Path) -> Iterator[str]:
    """The URL of an empty database."""
    if database == "postgres":
        with postgres(folder / "server") as server:
            yield server.url
    else:
        yield f"sqlite:///{folder}/bench.db"


@contextmanager
def _prepared(folder: Path, url: str, upstream: Running, plan: Plan) -> Iterator[Target]:
    """A gateway with the workflow that events of one type start."""
    home = Home.fresh(folder / "home", {**_SETTINGS, "database": {"url": url}})
    with serve_registered(home, upstream, plan.users) as target:
        status, said = send_request(target.running, "/api/workflows", home.admin_token(), {"document": _DOCUMENT})
        if status != 201:
            raise BenchFailure(f"a workflow was not added: {status} {said[:1000]!r}")
        yield replace(target, paths={**PATHS, **dict.fromkeys(EVENT_KINDS, "/api/events")})


def _accepted_rows(client: LoadClient, plan: Plan, target: Target) -> list[Run]:
    """Rows of requests become rows of events: events a second, and CPU of one; the times stay those of requests."""
    counts = {EVERY_WORKLOAD[kind].name: count for kind, count in EVENT_KINDS.items()}
    rows = measure_rows(client, replace(plan, workloads=tuple(EVENT_KINDS)), [target], connections=(1, CONNECTIONS))
    return [per_event(row, counts[row.workload]) for row in rows]


def per_event(row: Run, count: int) -> Run:
    """The row of requests with `count` events each as one of events."""
    return replace(row, req_s=round(row.req_s * count, 1), cpu_us=round(row.cpu_us / count, 1))


async def _measure_starts(target: Target, url: str, seconds: float) -> Run:
    """Sends RATE events a second, each of which starts a run; from before the request to the task of the run."""
    cpu, sent = cpu_seconds(target.running.pid), dict[int, float]()
    began = time.perf_counter()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=CONNECTIONS)) as http:
        sending = []
        for number in range(int(RATE * seconds)):
            await asyncio.sleep(max(0.0, began + number / RATE - time.perf_counter()))
            sending.append(asyncio.create_task(_send(http, target, number, sent)))
        await asyncio.gather(*sending)
    rate = len(sent) / (time.perf_counter() - began)
    started = await asyncio.to_thread(_await_starts, url, len(sent))
    return row_of_starts(sent, started, rate, cpu_seconds(target.running.pid) - cpu)


async def _send(http: aiohttp.ClientSession, target: Target, number: int, sent: dict[int, float]) -> None:
    event = {
        "specversion": "1.0",
        "id": f"start-{number}",
        "source": "https://bench.example",
        "type": _STARTED_TYPE,
        "data": {"number": number},
    }
    headers = {"authorization": f"Bearer {target.tokens[number % len(target.tokens)]}"}
    sent[number] = time.time()
    async with http.post(f"{target.running.url}/api/events", json=event, headers=headers) as answer:
        if answer.status != 202:
            raise BenchFailure(f"an event was not taken: HTTP {answer.status} {(await answer.text())[:500]}")


def _await_starts(url: str, count: int) -> list[tuple[int, float]]:
    """For each run the number of its event and when its task was made, once there are enough or nothing more comes."""
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    end = time.monotonic() + _SETTLE_MAX
    while True:
        with engine.connect() as connection:
            rows = connection.execute(_STARTED, {"workflow": _WORKFLOW}).all()
        if len(rows) >= count or time.monotonic() > end:
            engine.dispose()
            return [(json.loads(row.input)["number"], row.created / 1e6) for row in rows]
        time.sleep(0.5)


def row_of_starts(sent: dict[int, float], started: list[tuple[int, float]], rate: float, cpu: float) -> Run:
    """The row of starts. `errors`: events that started no run, and runs beside the first of an event."""
    first: dict[int, float] = {}
    for number, at in sorted(started, key=lambda each: each[1]):
        first.setdefault(number, at)
    missing, repeated = len(sent.keys() - first.keys()), len(started) - len(first)
    taken = sorted((first[number] - at) * 1e3 for number, at in sent.items() if number in first)
    times = (round(percentile(taken, share), 3) for share in (0.5, 0.99))
    return Run("interlock", "events.start", RATE, round(rate, 1), *times, round(cpu / len(sent) * 1e6, 1), missing + repeated)
