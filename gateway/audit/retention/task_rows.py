"""The rows that belong to a task: counts them, reads them for the archive, and deletes them in transactions of a bounded size."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any, Final

from sqlalchemy import Column, Connection, Table, func, select

from gateway.storage.batch import Batch
from gateway.storage.tables import ENDED_STATES, metadata, task_events, tasks

READ_AT_ONCE: Final = 100  # rows of the archive
_HIDE: Final = "UPDATE tasks SET owner = ?, txn = '', context_id = '', parent_id = '', idempotency_key = NULL WHERE tenant = ? AND id = ?"


@cache
def tables_of_task() -> Mapping[Table, "Column[Any]"]:
    """Returns each table whose rows go with a task, with its column of the task's id. A table comes after those that it refers to.

    All packages with tables must have been imported, as gateway/server/composition/access/retention.py does.
    A table that names no task has few rows, which go with what it refers to: `workflow_looks`.
    """
    found: dict[Table, Column[Any]] = {tasks: tasks.c.id, task_events: task_events.c.task_id}
    for table in metadata.sorted_tables:
        for key in table.foreign_key_constraints:
            of_task = found.get(key.referred_table)
            for element in key.elements:
                if element.column is of_task:
                    found[table] = element.parent
    return found


def count_rows(connection: Connection, tenant: str, task_ids: Sequence[str]) -> Counter[str]:
    """Returns how many rows each task has in all tables together."""
    counted = Counter[str]()
    for table, column in tables_of_task().items():
        of_tasks = (table.c.tenant == tenant) & column.in_(task_ids)
        for task_id, count in connection.execute(select(column, func.count()).where(of_tasks).group_by(column)):
            counted[task_id] += count
    return counted


def read_rows(connection: Connection, tenant: str, task_id: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yields the rows of a task with the names of their tables, the task's own row first."""
    for table, column in tables_of_task().items():
        query = select(table).where(table.c.tenant == tenant, column == task_id)
        for row in connection.execute(query, execution_options={"yield_per": READ_AT_ONCE}):
            yield table.name, dict(row._mapping)


def lock_ended_tasks(connection: Connection, tenant: str, task_ids: Sequence[str]) -> list[str]:
    """Returns those of the tasks that have ended and that no process works on. Until the commit, no process can take them."""
    is_over = (tasks.c.runner == "") & tasks.c.state.in_(ENDED_STATES)
    query = select(tasks.c.id).where(tasks.c.tenant == tenant, tasks.c.id.in_(task_ids), is_over).with_for_update()
    return sorted(connection.execute(query).scalars())


def owner_of_deleted(tenant: str) -> str:
    """The owner of a task of which only a part is deleted yet: a person with no issuer, whom no token can name."""
    return f"{tenant}||deleted"


def hide_task(batch: Batch, tenant: str, task_id: str) -> None:
    """Takes a task from its owner, its transaction and its context, so that it is gone for people, traces and holds."""
    batch.run(_HIDE, (owner_of_deleted(tenant), tenant, task_id))


def find_hidden_tasks(connection: Connection, tenant: str) -> list[str]:
    """Returns the tasks whose deletion has begun and was interrupted."""
    query = select(tasks.c.id).where(tasks.c.tenant == tenant, tasks.c.owner == owner_of_deleted(tenant))
    return [*connection.execute(query).scalars()]


def delete_tasks(batch: Batch, tenant: str, task_ids: Sequence[str]) -> int:
    """Deletes tasks with all that belongs to them, and returns how many there were. Foreign keys delete what has one."""
    marks = ",".join("?" * len(task_ids))
    batch.run(f"DELETE FROM task_events WHERE tenant = ? AND task_id IN ({marks})", (tenant, *task_ids))  # noqa: S608 (marks)
    return batch.run(f"DELETE FROM tasks WHERE tenant = ? AND id IN ({marks})", (tenant, *task_ids))  # noqa: S608 (marks)


def delete_some_rows(batch: Batch, tenant: str, task_id: str, rows_max: int) -> int:
    """Deletes at most `rows_max` rows that belong to a task, those first that others refer to, and never the task's own row.

    Deletes none of a task that a process works on.
    """
    left = rows_max if lock_ended_tasks(batch.connection, tenant, [task_id]) else 0
    wanted = left
    for table, column in reversed([*tables_of_task().items()]):
        if table is tasks or not left:
            continue
        keys = ", ".join(each.name for each in table.primary_key.columns)
        some = f"SELECT {keys} FROM {table.name} WHERE tenant = ? AND {column.name} = ? LIMIT ?"  # noqa: S608 (our own tables)
        left -= batch.run(f"DELETE FROM {table.name} WHERE ({keys}) IN ({some})", (tenant, task_id, left))  # noqa: S608 (our own tables)
    return wanted - left
