"""Rows of tasks that ended long ago, written as the gateway writes them."""

from typing import Any

from gateway.storage.database import Batch, Database
from gateway.storage.tables import task_events, tasks

DAY = 86_400_000_000
NOW = 2_000 * DAY
ENDED = "TASK_STATE_COMPLETED"


def add_task(batch: Batch, task_id: str, *, days_old: float = 100, events: int = 2, **more: Any) -> None:
    """A task in the tenant `t`, whose transaction is its own unless `txn` names another."""
    names = dict.fromkeys(("context_id", "parent_id", "decision_id", "grant_id", "runner", "vendor_ref", "request_digest"), "")
    at = NOW - int(days_old * DAY)
    given = {"tenant": "t", "owner": "t|i|alice", "agent": "sales", "state": ENDED, "txn": f"x-{task_id}", **more}
    batch.add(tasks, {**names, "id": task_id, "last_seq": events, "created": at, "updated": at, "trace": "", **given})
    for seq in range(1, events + 1):
        row = {"tenant": given["tenant"], "task_id": task_id, "seq": seq, "at": at, "kind": "status", "body": "{}"}
        batch.add(task_events, {**row, "append": False, "last_chunk": False, "replied": False})


async def insert(database: Database, table: Any, **row: Any) -> None:
    """One row. Columns that are not given are empty, or zero."""
    filler = {column.name: "" if column.type.python_type is str else 0 for column in table.columns if not column.nullable}
    await database.write(lambda batch: batch.add(table, {**filler, "tenant": "t", **row}))


async def task_ids(database: Database, tenant: str = "t") -> set[str]:
    found = await database.query("SELECT id FROM tasks WHERE tenant = ?", (tenant,), lambda rows: rows)
    return {row[0] for row in found}


async def count(database: Database, table: str) -> int:
    return int((await database.query(f"SELECT COUNT(*) FROM {table}", (), lambda rows: rows))[0][0])
