"""The runs of workflows that caused a task: the run whose step it is, and all runs above that one."""

from collections.abc import Callable
from typing import Final, NamedTuple

from msgspec.structs import replace
from sqlalchemy import Connection, and_, func, literal, select

from gateway.calls.costs.entries import CostEntry
from gateway.calls.costs.task_costs import RUNS
from gateway.storage.database import Database
from gateway.storage.tables import run_tasks, tasks
from policies.cache import BoundedCache

DEPTH_MAX: Final = 64  # tasks that are followed upwards; a chain of agents and runs is much shorter
CACHED_TASKS: Final = 10_000
CACHED_SECONDS: Final = 600.0  # what caused a task never changes, but tasks are deleted


class CausingRun(NamedTuple):
    """One run above a task. `step` is the JSON pointer of the step of this run that leads to the task; empty for the run's own task."""

    id: str
    workflow: str
    step: str


class CausingRuns:
    """Finds the runs that caused tasks. `clock` counts seconds."""

    def __init__(self, database: Database, clock: Callable[[], float]) -> None:
        self._database = database
        self._cached: BoundedCache[tuple[str, str], tuple[CausingRun, ...]] = BoundedCache(CACHED_TASKS, clock)
        self._steps: BoundedCache[tuple[str, str], tuple[str, str]] = BoundedCache(CACHED_TASKS, clock)

    async def find(self, tenant: str, task_id: str) -> tuple[CausingRun, ...]:
        """The runs above a task, the outermost first, and the task itself where it is a run. Raises ReadFailed."""
        if not task_id:
            return ()
        key = (tenant, task_id)
        found = self._cached.get(key)
        if found is not None:
            return found
        if (known := self._steps.get(key)) is not None and (above := await self.find(tenant, known[0])):
            return (*above[:-1], above[-1]._replace(step=known[1]))
        found = await self._database.read(lambda connection: read_causing_runs(connection, tenant, task_id))
        self._cached.put(key, found, CACHED_SECONDS)
        return found

    def learn_step(self, tenant: str, task_id: str, run_id: str, step: str) -> None:
        """Remembers that a step of a run has caused a task, which is no run."""
        self._steps.put((tenant, task_id), (run_id, step), CACHED_SECONDS)


def read_causing_runs(connection: Connection, tenant: str, task_id: str) -> tuple[CausingRun, ...]:
    """The runs above a task, as CausingRuns finds them."""
    caused = run_tasks
    above_id = func.coalesce(caused.c.run_id, tasks.c.parent_id)
    first = (
        select(tasks.c.id, above_id.label("above_id"))
        .add_columns(func.coalesce(caused.c.step, "").label("step"), literal(0).label("depth"))
        .outerjoin(caused, and_(caused.c.tenant == tasks.c.tenant, caused.c.task_id == tasks.c.id))
    )
    line = first.where(tasks.c.tenant == tenant, tasks.c.id == task_id).cte("line", recursive=True)
    above = (
        select(tasks.c.id, above_id)
        .add_columns(func.coalesce(caused.c.step, ""), line.c.depth + 1)
        .select_from(line)
        .join(tasks, and_(tasks.c.tenant == tenant, tasks.c.id == line.c.above_id))
        .outerjoin(caused, and_(caused.c.tenant == tasks.c.tenant, caused.c.task_id == tasks.c.id))
        .where(line.c.depth < DEPTH_MAX)
    )
    line = line.union_all(above)
    is_run = and_(RUNS.c.tenant == tenant, RUNS.c.id == line.c.id)
    rows = connection.execute(select(line.c.id, line.c.step, RUNS.c.workflow).outerjoin(RUNS, is_run).order_by(line.c.depth)).all()
    found: list[CausingRun] = []
    step = ""
    for row in rows:
        if row.workflow is not None:
            found.append(CausingRun(row.id, row.workflow, step))
            step = ""
        step = row.step or step
    return tuple(reversed(found))


def with_run(entry: CostEntry, runs: tuple[CausingRun, ...]) -> CostEntry:
    """The entry with the outermost run that caused the cost, and the step of that run."""
    return replace(entry, run_id=runs[0].id, step=runs[0].step) if runs else entry
