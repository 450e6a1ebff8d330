"""Counts how many runs that events started led to an event, so that workflows that start each other by events come to an end.

An event that a run sends carries the count as the extension attribute `interlockhops`. All that follows from a run that an event
started has the run's `txn`: its steps, the runs that it starts, and those that it leaves behind.
"""

from collections.abc import Callable
from typing import Any, Final

from sqlalchemy import Connection, select

from gateway.events.rules import HOPS_MAX as HOPS_MAX
from gateway.storage.database import Batch
from gateway.tasks.log import TaskRow
from gateway.workflows.cloud_events.envelope import HOPS, Event
from gateway.workflows.runs.tables import workflow_hops

_INSERT: Final = "INSERT INTO workflow_hops (tenant, txn, run_id, hops) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING"


def read_hops(connection: Connection, tenant: str, txn: str) -> int:
    """The hops of the event from which everything with this `txn` follows; 0 where people began it."""
    table = workflow_hops.c
    return int(connection.execute(select(table.hops).where(table.tenant == tenant, table.txn == txn)).scalar() or 0)


def hops_write(event: Event) -> Callable[[Batch, TaskRow], None]:
    """Stores the hops of the event that starts a run, in the commit that opens the run's task."""

    def write(batch: Batch, task: TaskRow) -> None:
        hops: Any = event.get(HOPS)
        if isinstance(hops, int) and hops > 0:
            batch.flush()  # the row of the task, which this one refers to
            batch.run(_INSERT, (task.tenant, task.txn, task.id, hops))

    return write
