"""How many runs of one workflow are at work at once. One more waits for its turn, and the one that waits longest is the next."""

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Connection, Select, exists, func, or_, select

from gateway.storage.database import Batch
from gateway.storage.tables import ENDED_STATES, processes, tasks
from gateway.tasks.log import TaskRow, to_task_row
from gateway.workflows.runs.store import RunKey, RunRow, RunStore, lock_run
from gateway.workflows.runs.tables import IS_TASK_OF_RUN, workflow_runs

_LOCK_WORKFLOW: Final = "UPDATE workflow_versions SET author = author WHERE tenant = ? AND name = ?"
_QUEUE: Final = "UPDATE workflow_runs SET queued_at = ?, runs_max = ? WHERE tenant = ? AND id = ? AND queued_at IS NULL"
_MOVE: Final = "UPDATE workflow_runs SET queued_at = ? WHERE tenant = ? AND id = ? AND queued_at IS NOT NULL"
_ADMIT: Final = "UPDATE workflow_runs SET admitted_at = ?, queued_at = NULL WHERE tenant = ? AND id = ?"


class RunPlaces:
    """The places of workflows whose documents limit how many runs are at once.

    A run has a place while it is at work. It gives the place back in the commit that suspends it, whatever it waits for, and queues for
    one again before it goes on.
    """

    def __init__(self, store: RunStore) -> None:
        self._store = store

    async def take(self, run: RunRow, runs_max: int, *, is_first: bool = False) -> int | None:
        """None for a run that has a place now, else how many runs wait before it. Raises RunTaken.

        `is_first`: the run has to be undone, and counts as waiting since it began.
        """
        now = self._store.now()

        def work(batch: Batch) -> int | None:
            lock_run(batch, run.key, self._store.process)
            batch.run(_LOCK_WORKFLOW, (run.key.tenant, run.workflow))  # two runs never take the last place
            if _is_admitted(batch.connection, run):
                return None
            if not batch.run(_QUEUE, (run.started if is_first else now, runs_max, run.key.tenant, run.key.id)) and is_first:
                batch.run(_MOVE, (run.started, run.key.tenant, run.key.id))
            before = _count(batch.connection, _queued_runs(run.key.tenant, run.workflow).where(_is_before(batch.connection, run)))
            if _count(batch.connection, _admitted_runs(run.key.tenant, run.workflow)) + before >= runs_max:
                return before
            batch.run(_ADMIT, (now, run.key.tenant, run.key.id))
            return None

        return await self._store.database.write(work)

    async def put_back(self, run: RunKey, microseconds: int) -> None:
        """Has a run that can't go on now wait as though it came to the queue so much later, so that those behind it go on."""
        until = self._store.now() + microseconds
        await self._store.database.write(lambda batch: batch.run(_MOVE, (until, run.tenant, run.id)))

    async def next_runs(self, left_out: Sequence[str] = ()) -> list[TaskRow]:
        """Tasks of runs that have waited for their turn, and for which there is a place now. `left_out` has ids of runs to pass over."""
        now = self._store.now()

        def work(connection: Connection) -> list[TaskRow]:
            found: list[TaskRow] = []
            for tenant, workflow, runs_max in connection.execute(_queues()).all():
                admitted = _count(connection, _admitted_runs(tenant, workflow))
                oldest = (
                    _queued_runs(tenant, workflow)
                    .where(workflow_runs.c.queued_at <= now, tasks.c.id.not_in(left_out))
                    .order_by(workflow_runs.c.queued_at, workflow_runs.c.id)
                    .limit(max(0, runs_max - admitted))
                )
                allowed = connection.execute(oldest.with_only_columns(workflow_runs.c.runs_max)).scalars().all()
                for before, (row, most) in enumerate(zip(connection.execute(oldest).all(), allowed, strict=False)):
                    if admitted + before < most and row.runner == "":  # as `take` counts, which else refuses
                        found.append(to_task_row(row))
            return found

        return await self._store.database.read(work)


def _open_runs(tenant: str, workflow: str) -> "Select[Any]":
    mine = (workflow_runs.c.tenant == tenant) & (workflow_runs.c.workflow == workflow)
    return select(tasks).join(workflow_runs, IS_TASK_OF_RUN).where(mine, tasks.c.state.not_in(ENDED_STATES))


def _queues() -> "Select[Any]":
    """Each workflow that has open runs in its queue, with the highest number of runs that their versions allow."""
    query = select(workflow_runs.c.tenant, workflow_runs.c.workflow, func.max(workflow_runs.c.runs_max)).join(tasks, IS_TASK_OF_RUN)
    query = query.where(workflow_runs.c.queued_at.is_not(None), tasks.c.state.not_in(ENDED_STATES))
    return query.group_by(workflow_runs.c.tenant, workflow_runs.c.workflow)


def _admitted_runs(tenant: str, workflow: str) -> "Select[Any]":
    return _open_runs(tenant, workflow).where(workflow_runs.c.admitted_at.is_not(None))


def _queued_runs(tenant: str, workflow: str) -> "Select[Any]":
    """Runs that wait for their turn. A paused one lets the others pass, as does one whose process has ended until another has taken it."""
    query = _open_runs(tenant, workflow).where(workflow_runs.c.queued_at.is_not(None), workflow_runs.c.paused_at.is_(None))
    return query.where((tasks.c.runner == "") | exists().where(processes.c.id == tasks.c.runner))


def _is_admitted(connection: Connection, run: RunRow) -> bool:
    mine = (workflow_runs.c.tenant == run.key.tenant) & (workflow_runs.c.id == run.key.id)
    return connection.execute(select(workflow_runs.c.admitted_at).where(mine)).scalar() is not None


def _is_before(connection: Connection, run: RunRow) -> Any:
    """The condition that a run has waited for longer than this one."""
    mine = (workflow_runs.c.tenant == run.key.tenant) & (workflow_runs.c.id == run.key.id)
    since = connection.execute(select(workflow_runs.c.queued_at).where(mine)).scalar_one()
    queued_at = workflow_runs.c.queued_at
    return or_(queued_at < since, (queued_at == since) & (workflow_runs.c.id < run.key.id))


def _count(connection: Connection, query: "Select[Any]") -> int:
    return connection.execute(select(func.count()).select_from(query.subquery())).scalar_one()
