"""How long the gateway takes for each page of the console with a full database: `python -m tests.bench.console_pages [sqlite|postgres]`."""

import asyncio
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from sqlalchemy import text

from gateway.calls.costs.reports.report import read_sums
from gateway.calls.costs.reports.stored_sums import StoredSums
from gateway.storage.database import Database, engine_for
from gateway.storage.migrations.run import upgrade
from policies.ids import now_us
from tests.bench.console_fixture import Size, agent_name, fill, task_id
from tests.bench.figures import Run
from tests.bench.processes import BenchFailure
from tests.bench.rounds import print_progress
from tests.bench.workflow_runs import DATABASES
from tests.chaos.databases import postgres
from tests.fakes.console import ConsoleBrowser
from tests.fakes.house import ROLES, house

LOADS = 15  # of each page; the first is not counted
PERSON = "admin"
PAGES = {
    "overview": "/console",
    "overview of everybody": "/console?everybody=true",
    "health": "/console/health",
    "tasks": "/console/tasks",
    "tasks that failed": "/console/tasks?state=TASK_STATE_FAILED",
    "tasks that none is like": "/console/tasks?state=TASK_STATE_AUTH_REQUIRED",
    "tasks that completed": "/console/tasks?state=TASK_STATE_COMPLETED",
    "tasks of a busy agent": f"/console/tasks?agent={agent_name(0)}",
    "tasks of a rare agent": f"/console/tasks?agent={agent_name(9000)}",
    "failed tasks of an agent": f"/console/tasks?agent={agent_name(9000)}&state=TASK_STATE_FAILED",
    "tasks of everybody": "/console/tasks?everybody=true",
    "failed tasks of everybody": "/console/tasks?everybody=true&state=TASK_STATE_FAILED",
    "tasks of a rare agent of everybody": f"/console/tasks?everybody=true&agent={agent_name(9000)}",
    "tasks of a context of everybody": f"/console/tasks?everybody=true&context_id=c_{17:026}",
    "task": f"/console/tasks/{task_id(49)}",
    "task of another person": f"/console/tasks/{task_id(48)}",
    "inbox": "/console/inbox",
    "approval": f"/console/approvals/ap_{5:026}",
    "why": f"/console/why/d_{49:026}",
    "ask why": "/console/why",
    "last refusals": "/console/why?everybody=true",
    "evaluate": f"/console/evaluate?action=invokeAgent&resource={agent_name(31)}&person=bob",
    "replay": "/console/replay",
    "register an agent": "/console/register/agent",
    "register a server": "/console/register/server",
    "agents": "/console/agents",
    "agents by words": "/console/agents?q=subject42",
    "agent": f"/console/agents/{agent_name(31)}",
    "servers": "/console/servers",
    "workflows": "/console/workflows",
    "runs": "/console/runs",
    "runs of everybody": "/console/runs?everybody=true",
    "failed runs": "/console/runs?state=TASK_STATE_FAILED",
    "subjects": "/console/subjects?everybody=true",
    "audit": "/console/audit",
    "audit of a kind": "/console/audit?kind=kill",
    "verification": "/console/audit/verification",
    "cost by day": "/console/cost",
    "cost by day of everybody": "/console/cost?everybody=true",
    "cost by person": "/console/cost?by=person&everybody=true",
    "cost by agent": "/console/cost?by=agent&everybody=true",
    "memory": "/console/memory",
    "events": "/console/events",
    "triggers": "/console/triggers",
    "dead letters": "/console/deadletters",
    "account": "/console/account",
    "settings": "/console/settings",
}


@dataclass(frozen=True, slots=True)
class PageTime:
    """Milliseconds of the gateway for one page: the median and the slowest."""

    name: str
    p50_ms: float
    most_ms: float


async def measure_pages(url: str, folder: Path, size: Size) -> list[PageTime]:
    """Fills an empty database, and loads each page as a person with all rights. Raises BenchFailure."""
    engine = engine_for(url)
    upgrade(engine)
    fill(engine, PERSON, size)
    engine.dispose()
    await _add_up_costs(url)
    users = {PERSON: {"roles": ["operator"]}, "bob": {"roles": ["support"]}}
    async with house(folder / "home", url, server={"public_url": "https://interlock.test"}, users=users, roles=ROLES) as home:
        browser = await ConsoleBrowser(home).sign_in(PERSON)
        return [await _time_page(browser, name, path) for name, path in PAGES.items()]


async def _add_up_costs(url: str) -> None:
    """Does what a gateway does within the hour after an hour or a day."""
    database = Database(engine_for(url))
    database.start()
    try:
        while await StoredSums(database, lambda: ["default"], read_sums, now_us).run_once():
            pass
        if not database.is_sqlite:
            with database.engine.connect() as connection:
                connection.execution_options(isolation_level="AUTOCOMMIT").execute(text("ANALYZE"))
    finally:
        database.close()


async def _time_page(browser: ConsoleBrowser, name: str, path: str) -> PageTime:
    took = []
    for _ in range(LOADS):
        began = time.perf_counter()
        answer = await browser.get(path)
        took.append((time.perf_counter() - began) * 1000)
        if answer.status_code != 200:
            raise BenchFailure(f"{path}: {answer.status_code} {answer.text[:2000]}")
    return PageTime(name, round(median(took[1:]), 1), round(max(took[1:]), 1))


def console_runs(folder: Path, size: Size) -> list[Run]:
    """The rows of both databases. Raises BenchFailure."""
    rows: list[Run] = []
    for database in DATABASES:
        folder_of = folder / database
        folder_of.mkdir(parents=True)
        with _database(database, folder_of) as url:
            print_progress(f"pages of the console with {size.agents:,} agents and {size.tasks:,} tasks on {database}")
            for each in asyncio.run(measure_pages(url, folder_of, size)):
                workload = f"console.{each.name.replace(' ', '_')}"
                rows.append(Run("interlock", workload, 1, round(1000 / each.p50_ms, 1), each.p50_ms, each.most_ms, 0.0, 0, database))
    return rows


@contextmanager
def _database(name: str, folder: Path) -> Iterator[str]:
    if name == "postgres":
        with postgres(folder / "server") as server:
            yield server.url
    else:
        yield f"sqlite:///{folder}/bench.db"


async def main(databases: list[str]) -> None:
    for name in databases:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, _database(name, Path(folder)) as url:
            for each in await measure_pages(url, Path(folder), Size()):
                print(f"{name:9} {each.name:32} p50 {each.p50_ms:8.1f} ms  most {each.most_ms:8.1f} ms")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:] or ["sqlite", "postgres"]))
