"""Pauses: a paused run starts no further step until it is resumed. The pause is part of its row, so any process keeps to it."""

from typing import Final

from sqlalchemy import select

from gateway.storage.database import Batch
from gateway.storage.tables import ENDED_STATES, tasks
from gateway.workflows.problems import RunNotOpen
from gateway.workflows.runs.store import RunKey, RunStore, wake
from gateway.workflows.runs.tables import IS_TASK_OF_RUN, workflow_runs
from policies.audit.log import AuditLog

_PAUSE: Final = (
    "UPDATE workflow_runs SET paused_at = ?, paused_by = ? WHERE tenant = ? AND id = ? AND paused_at IS NULL AND EXISTS "
    "(SELECT 1 FROM tasks WHERE tasks.tenant = workflow_runs.tenant AND tasks.id = workflow_runs.id AND tasks.state NOT IN "
    "('TASK_STATE_COMPLETED', 'TASK_STATE_FAILED', 'TASK_STATE_CANCELED', 'TASK_STATE_REJECTED'))"
)
_RESUME: Final = "UPDATE workflow_runs SET paused_at = NULL, paused_by = '' WHERE tenant = ? AND id = ? AND paused_at IS NOT NULL"


class Pauses:
    """Pauses and resumes runs. Doing either twice changes nothing, and is recorded once."""

    def __init__(self, store: RunStore, audit: AuditLog) -> None:
        self._store = store
        self._audit = audit

    async def pause(self, run: RunKey, by: str, decision_id: str) -> None:
        """Has a run stop before its next step; steps that are at work end. Raises RunNotOpen."""
        now = self._store.now()

        def work(batch: Batch) -> None:
            if batch.run(_PAUSE, (now, by, run.tenant, run.id)):
                self._audit.record(batch, _record("run-paused", run, by, decision_id))
            else:
                _check_open(batch, run)

        await self._store.database.write_or_refuse(work, RunNotOpen)

    async def end_pause(self, run: RunKey, by: str, decision_id: str) -> None:
        """Has a paused run go on. Raises RunNotOpen."""
        now = self._store.now()

        def work(batch: Batch) -> None:
            _check_open(batch, run)
            if batch.run(_RESUME, (run.tenant, run.id)):
                wake(batch, run, now)
                self._audit.record(batch, _record("run-resumed", run, by, decision_id))

        await self._store.database.write_or_refuse(work, RunNotOpen)


def _check_open(batch: Batch, run: RunKey) -> None:
    mine = (tasks.c.tenant == run.tenant) & (tasks.c.id == run.id)
    state = batch.connection.execute(select(tasks.c.state).join(workflow_runs, IS_TASK_OF_RUN).where(mine)).scalar()
    if state is None or state in ENDED_STATES:
        raise RunNotOpen


def _record(kind: str, run: RunKey, by: str, decision_id: str) -> dict[str, object]:
    return {"kind": kind, "tenant": run.tenant, "decision_id": decision_id, "txn": "", "task_id": run.id, "by": by}
