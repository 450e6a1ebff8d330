"""Writes the rows of new tasks and of task events. Columns that most rows leave to their defaults are written only where they differ."""

from collections.abc import Sequence
from operator import attrgetter

from gateway.storage.database import Batch
from gateway.storage.tables import task_events, tasks
from gateway.tasks.events.entries import TaskEvent, TaskRow
from policies.tables import PartialInsert

_TASK_FIELDS = tuple(name for name in TaskRow.__struct_fields__ if name not in ("state", "idempotency_key", "awaited_connection_id"))
_values_of = attrgetter(*_TASK_FIELDS)
_TASK = PartialInsert(tasks, ("state", *_TASK_FIELDS))
_KEYED_TASK = PartialInsert(tasks, (*_TASK.columns, "idempotency_key"))
_PLAIN_EVENT = PartialInsert(task_events, ("tenant", "task_id", "seq", "at", "kind", "body"))
_MARKED_EVENT = PartialInsert(task_events, (*_PLAIN_EVENT.columns, "append", "last_chunk", "replied"))
_MARKED_EVENT_WITH_METADATA = PartialInsert(task_events, (*_MARKED_EVENT.columns, "metadata"))


def write_new_task(batch: Batch, row: TaskRow) -> None:
    """Inserts a task. No task begins with a connection that it waits for."""
    values = (row.state.value, *_values_of(row))
    if row.idempotency_key is None:
        batch.insert(_TASK, values)
    else:
        batch.insert(_KEYED_TASK, (*values, row.idempotency_key))


def write_events(batch: Batch, row: TaskRow, events: Sequence[TaskEvent]) -> None:
    """Inserts events of a task."""
    for event in events:
        values = (row.tenant, row.id, event.seq, event.at, event.kind, event.body)
        if not event.has_marks:
            batch.insert(_PLAIN_EVENT, values)
            continue
        marks = (event.is_append, event.is_last_chunk, event.is_reply)
        if event.metadata_json is None:
            batch.insert(_MARKED_EVENT, (*values, *marks))
        else:
            batch.insert(_MARKED_EVENT_WITH_METADATA, (*values, *marks, event.metadata_json))
