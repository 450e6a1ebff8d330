"""The event that a task has ended, in the commit of its ending."""

from gateway.events.own_types import RUN_ENDED, TASK_ENDED
from gateway.events.recorder import EventRecorder
from gateway.storage.database import Batch
from gateway.tasks.events.entries import TaskRow


def record_ending(batch: Batch, recorder: EventRecorder, row: TaskRow) -> None:
    """Records that a task has ended, where anything waits for ends of tasks or runs. It says nothing of what the task was about."""
    if recorder.wants(row.tenant, TASK_ENDED) or recorder.wants(row.tenant, RUN_ENDED):
        data = {"task": row.id, "agent": row.agent, "state": row.state.value, "owner": row.owner, "parent": row.parent_id}
        recorder.record_event(batch, row.tenant, TASK_ENDED, row.id, data, owner=row.owner, txn=row.txn)
