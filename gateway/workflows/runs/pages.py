"""Pages of runs, newest first, as their owner or an auditor sees them."""

from typing import Any, Literal

import msgspec
from msgspec import Struct
from sqlalchemy import Connection, Row, literal, select

from adapters.task import TaskState
from gateway.storage.database import Database
from gateway.storage.paging import format_place, parse_place, with_index
from gateway.storage.tables import ENDED_STATES, tasks
from gateway.tasks.log import TaskRow, to_rfc3339, to_task_row
from gateway.workflows.runs.store import RUN_COLUMNS, RunKey, RunRow, to_run_row
from gateway.workflows.runs.tables import IS_TASK_OF_RUN, workflow_runs


class RunFilter(Struct, frozen=True):
    """Which runs: of one workflow, or of all where that is empty; in one state, or in all; after `cursor`.

    Beside the states of tasks, a run is `paused`, or `waiting` for people, a moment or an event.
    """

    workflow: str = ""
    state: TaskState | Literal["paused", "waiting"] | None = None
    cursor: str = ""
    limit: int = 50


class ShownRun(Struct, frozen=True):
    """A run with its task."""

    run: RunRow
    task: TaskRow


async def find_run(database: Database, tenant: str, owner: str | None, run_id: str) -> ShownRun | None:
    """The run of this owner, or None; of any owner where `owner` is None.

    A task that its workflow has not begun yet is a run without a version.
    """
    query = _runs_of(tenant, owner).where(tasks.c.id == run_id)
    mine = (tasks.c.tenant == tenant) & (tasks.c.id == run_id)
    if owner is not None:
        mine &= tasks.c.owner == owner

    def work(connection: Connection) -> ShownRun | None:
        if (row := connection.execute(query).first()) is not None:
            return _from_row(row)
        task = connection.execute(select(tasks).where(mine)).first()
        return None if task is None else _not_begun(to_task_row(task))

    return await database.read(work)


def _not_begun(task: TaskRow) -> ShownRun:
    return ShownRun(RunRow(RunKey(task.tenant, task.id), task.agent, "", None, task.created), task)


async def list_runs(database: Database, tenant: str, owner: str | None, page: RunFilter) -> tuple[list[ShownRun], str | None]:
    """One page and the cursor of the next; of the runs of all owners where `owner` is None. Raises BadCursor."""
    query = _runs_of(tenant, owner, has_inputs=False)
    if page.workflow:
        query = query.where(workflow_runs.c.workflow == page.workflow)
    query = _in_state(query, page.state)
    if page.cursor:
        at, last = parse_place(page.cursor)
        query = query.where((workflow_runs.c.started < at) | ((workflow_runs.c.started == at) & (workflow_runs.c.id < last)))
    query = query.order_by(workflow_runs.c.started.desc(), workflow_runs.c.id.desc()).limit(page.limit + 1)
    query = with_index(query, workflow_runs, "workflow_runs_of_workflow" if page.workflow else "workflow_runs_started")

    def work(connection: Connection) -> list[ShownRun]:
        return [_from_row(row) for row in connection.execute(query)]

    found = await database.read(work)
    shown = found[: page.limit]
    more = format_place(shown[-1].run.started, shown[-1].task.id) if len(found) > page.limit else None
    return shown, more


def _in_state(query: Any, state: TaskState | Literal["paused", "waiting"] | None) -> Any:
    if state is None:
        return query
    if isinstance(state, TaskState):
        return query.where(tasks.c.state == state.value)
    query = query.where(tasks.c.state.not_in(ENDED_STATES))
    if state == "paused":
        return query.where(workflow_runs.c.paused_at.is_not(None))
    return query.where(workflow_runs.c.paused_at.is_(None), workflow_runs.c.note != "")


async def continuations_of(database: Database, run: RunKey) -> list[str]:
    """The runs that began with the journal of this one, the oldest first. They have the same owner."""
    columns = workflow_runs.c
    query = select(columns.id).where(columns.tenant == run.tenant, columns.origin_id == run.id).order_by(columns.started, columns.id)
    return list(await database.read(lambda connection: connection.execute(query).scalars().all()))


def run_document(shown: ShownRun) -> dict[str, Any]:
    """A run as /api shows it."""
    run, task = shown.run, shown.task
    return {
        "id": task.id,
        "workflow": run.workflow,
        "version": run.version,
        "state": task.state.value,
        "fault": msgspec.json.decode(run.fault) if run.fault else None,
        "note": "" if task.has_ended else run.note,
        "paused": None if task.has_ended or run.paused_at is None else {"at": to_rfc3339(run.paused_at), "by": run.paused_by},
        "origin": {"run": run.origin.run_id, "kind": run.origin.kind, "step": run.origin.step} if run.origin.run_id else None,
        "wake_at": to_rfc3339(run.wake_at) if run.wake_at is not None and not task.has_ended else None,
        "owner": task.owner,
        "created": to_rfc3339(task.created),
        "updated": to_rfc3339(task.updated),
    }


def _runs_of(tenant: str, owner: str | None, *, has_inputs: bool = True) -> Any:
    """Runs with their tasks. Without `has_inputs`, the inputs are not read: a page would have up to 8 MiB of each run in memory."""
    absent = {} if has_inputs else {"input": literal("null"), "inputs": literal("{}")}
    columns = [absent.get(name, workflow_runs.c[name]).label(f"run_{name}") for name in RUN_COLUMNS]
    query = select(tasks, *columns).select_from(workflow_runs).join(tasks, IS_TASK_OF_RUN).where(workflow_runs.c.tenant == tenant)
    return query if owner is None else query.where(tasks.c.owner == owner)


def _from_row(row: "Row[Any]") -> ShownRun:
    found = dict(row._mapping)
    named = {name: found.pop(f"run_{name}") for name in RUN_COLUMNS}
    task = TaskRow(**{**found, "state": TaskState(found["state"])})
    return ShownRun(to_run_row(RunKey(task.tenant, task.id), named), task)
