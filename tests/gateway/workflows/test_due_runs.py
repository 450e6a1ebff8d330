"""What is due is found through indexes: thousands of runs that wait for people cost nothing at each look."""

import re
from typing import Any

from sqlalchemy import Connection, insert, text

from gateway.storage.database import Database
from gateway.storage.tables import tasks
from gateway.workflows.runs.store import RunStore, due_queries, lost_runs
from gateway.workflows.runs.tables import workflow_listens, workflow_runs, workflow_waits

NOW = 1_000_000
WAITING = 5_000  # with fewer, PostgreSQL may find a scan of all tasks as cheap
TASK = {
    "context_id": "c", "owner": "o", "agent": "order", "runner": "", "decision_id": "", "grant_id": "", "parent_id": "",
    "request_digest": "", "trace": "", "txn": "", "vendor_ref": "", "created": 0, "updated": 0, "last_seq": 1,
}  # fmt: skip
RUN = {
    "workflow": "order", "version": "v", "input": "{}", "started": 0, "note": "", "paused_by": "", "fault": "",
    "origin_id": "", "origin_kind": "", "origin_step": "", "inputs": "{}", "requesters": "",
}  # fmt: skip


def _task(name: str, state: str = "WORKING", **more: Any) -> dict[str, Any]:
    return {**TASK, "tenant": "default", "id": name, "state": f"TASK_STATE_{state}", **more}


def _run(name: str, **more: Any) -> dict[str, Any]:
    times = {"wake_at": NOW + 1, "ends_at": NOW + 2, "paused_at": None, "queued_at": None}
    return {**RUN, "tenant": "default", "id": name, **times, **more}


def fill(connection: Connection) -> None:
    """Many runs that wait, and one that is due for each cause."""
    due = {"woken": {"wake_at": NOW}, "late": {"ends_at": NOW, "paused_at": 1}, "told": {}, "moved": {}}
    others = {"paused": {"wake_at": NOW, "paused_at": 1}, "ended": {"wake_at": NOW}, "queued": {"wake_at": NOW, "queued_at": 1}}
    waiting = [f"waits-{number}" for number in range(WAITING)]
    states = {"ended": "COMPLETED"}
    rows = [_task(name, states.get(name, "WORKING")) for name in (*due, *others, *waiting)]
    connection.execute(insert(tasks), [*rows, _task("child", "COMPLETED"), _task("asking", "INPUT_REQUIRED"), _task("resting")])
    connection.execute(insert(workflow_runs), [_run(name, **(due | others).get(name, {})) for name in (*due, *others, *waiting)])
    listen = {"tenant": "default", "key": "k", "filters": "[]", "progress": "", "lost": 0}
    listens = [{**listen, "run_id": name, "received": 1, "seen": int(name != "told")} for name in ("told", *waiting)]
    connection.execute(insert(workflow_listens), listens)
    waits = [("moved", "child"), ("waits-0", "asking"), ("paused", "child"), ("queued", "child"), ("waits-1", "resting")]
    known = {"asking": "TASK_STATE_INPUT_REQUIRED"}
    rows = [{"tenant": "default", "run_id": run, "task_id": task, "state": known.get(task, "TASK_STATE_WORKING")} for run, task in waits]
    connection.execute(insert(workflow_waits), rows)


async def test_only_runs_that_can_go_on_are_due(database: Database) -> None:
    with database.engine.begin() as connection:
        fill(connection)
    found = await RunStore(database, lambda: NOW, "p").due()
    assert sorted(row.id for row in found) == ["late", "moved", "told", "woken"]


async def test_what_is_due_is_found_through_indexes(database: Database) -> None:
    with database.engine.begin() as connection:
        fill(connection)
        connection.execute(text("ANALYZE"))
    plans = await database.read(lambda connection: [_plan(connection, query) for query in due_queries(NOW)])
    for plan, index in zip(plans[:3], ("workflow_runs_due", "workflow_runs_ending", "workflow_listens_unread"), strict=True):
        assert index in plan, plan
    for plan in plans:
        assert not re.search(r"SCAN (tasks|run|child|workflow_runs)\b(?! USING)|Seq Scan on (tasks|workflow_runs)", plan), plan


async def test_what_can_only_end_is_looked_for_among_tasks_that_have_not_completed(database: Database) -> None:
    with database.engine.begin() as connection:
        fill(connection)
        connection.execute(insert(tasks), [_task("parent", "FAILED"), _task("orphan", parent_id="parent")])
        connection.execute(insert(workflow_runs), [_run("orphan")])
    found = await database.read(lambda connection: connection.execute(lost_runs(NOW)).all())
    assert [row.id for row in found] == ["orphan"]
    if database.is_sqlite:  # PostgreSQL chooses by its figures
        assert "tasks_state" in await database.read(lambda connection: _plan(connection, lost_runs(NOW)))


def _plan(connection: Connection, query: Any) -> str:
    explain = "EXPLAIN QUERY PLAN" if connection.dialect.name == "sqlite" else "EXPLAIN"
    compiled = query.compile(dialect=connection.dialect, compile_kwargs={"literal_binds": True})
    return "\n".join(str(row) for row in connection.execute(text(f"{explain} {compiled}")).all())
