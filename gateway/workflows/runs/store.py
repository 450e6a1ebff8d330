"""Rows of versions and runs. A write of a run is refused once another process works on it."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec
from msgspec import Struct
from sqlalchemy import Connection, Row, delete, func, select, text

from adapters.task import TaskState
from gateway.events.own_types import RUN_WAITING
from gateway.events.recorder import NO_EVENTS, EventRecorder
from gateway.storage.database import Batch, Database
from gateway.storage.paging import with_index
from gateway.storage.tables import ENDED_STATES, UNUSUAL, tasks
from gateway.tasks.log import TaskRow, to_task_row
from gateway.workflows.interpreter.effects import StepKey
from gateway.workflows.runs.requesters import encode_requesters, inherit_requesters, requesters_of
from gateway.workflows.runs.tables import (
    IS_TASK_OF_RUN,
    workflow_checkpoints,
    workflow_listens,
    workflow_runs,
    workflow_versions,
    workflow_waits,
)
from policies.tables import grants

DUE_MAX: Final = 100  # runs that are resumed at once
KEY_MAX: Final = 200  # characters, which an index can hold in any script
KEY_END: Final = 100
_INSERT_VERSION: Final = (
    "INSERT INTO workflow_versions (tenant, name, hash, document, author, created) VALUES (?, ?, ?, ?, ?, ?) "
    "ON CONFLICT (tenant, name, hash) DO UPDATE SET author = excluded.author"
)
_INSERT_RUN: Final = (
    "INSERT INTO workflow_runs "
    "(tenant, id, workflow, version, input, started, note, paused_by, fault, origin_id, origin_kind, origin_step, inputs, requesters) "
    "VALUES (?, ?, ?, ?, ?, ?, '', '', '', ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
)
_LOCK_TASK: Final = "UPDATE tasks SET updated = updated WHERE tenant = ? AND id = ? AND runner = ?"
_SUSPEND: Final = (
    "UPDATE workflow_runs SET wake_at = ?, note = ?, ends_at = ?, waits_for_sign_in = ?, admitted_at = NULL, queued_at = NULL "
    "WHERE tenant = ? AND id = ?"
)
_SUSPEND_IN_QUEUE: Final = _SUSPEND.replace(", queued_at = NULL", "")
_RESUME: Final = "UPDATE workflow_runs SET wake_at = NULL, note = '', ends_at = NULL, waits_for_sign_in = 0 WHERE tenant = ? AND id = ?"
_FAIL: Final = "UPDATE workflow_runs SET fault = ? WHERE tenant = ? AND id = ?"
_END: Final = "UPDATE workflow_runs SET wake_at = ?, ends_at = ? WHERE tenant = ? AND id = ?"
_WAKE: Final = "UPDATE workflow_runs SET wake_at = ? WHERE tenant = ? AND id = ?"
_END_ALL: Final = (
    "UPDATE workflow_runs SET wake_at = ?, ends_at = ? WHERE tenant = ? AND workflow = ? AND id IN "
    "(SELECT id FROM tasks WHERE tasks.tenant = workflow_runs.tenant AND runner = '' AND state IN "
    "('TASK_STATE_WORKING', 'TASK_STATE_INPUT_REQUIRED'))"
)
_DELETE_WAITS: Final = "DELETE FROM workflow_waits WHERE tenant = ? AND run_id = ?"
_RESUMABLE_STATES: Final = (TaskState.WORKING.value, TaskState.INPUT_REQUIRED.value)
PLAIN_COLUMNS: Final = ("workflow", "version", "started", "wake_at", "note", "paused_at", "paused_by", "fault")
RUN_COLUMNS: Final = (*PLAIN_COLUMNS, "input", "inputs", "requesters", "origin_id", "origin_kind", "origin_step")


class RunTaken(Exception):
    """Another process works on the run now, or the run has ended; this process may write nothing of it."""


class RunKey(Struct, frozen=True):
    """A run: the id of its task in its tenant."""

    tenant: str
    id: str


class Origin(Struct, frozen=True):
    """The run whose journal another run began with. `kind` is redrive or fork, `step` the pointer of the first task that ran again."""

    run_id: str
    kind: str
    step: str


NO_ORIGIN: Final = Origin("", "", "")


class RunRow(Struct, frozen=True):
    """A run. `version` is the hash of its document, `input` any JSON; times are microseconds since 1970.

    `inputs` has the inputs that a fork gave to tasks, by the pointer of the task. `fault` is JSON, empty unless the run failed.
    `requesters` are the people who brought about a run that a service owns, as they were when the row was read (requesters.py).
    """

    key: RunKey
    workflow: str
    version: str
    input: Any
    started: int
    wake_at: int | None = None
    note: str = ""
    paused_at: int | None = None
    paused_by: str = ""
    fault: str = ""
    origin: Origin = NO_ORIGIN
    inputs: Mapping[str, Any] = {}
    requesters: tuple[str, ...] = ()  # tenant|issuer|subject each


def key_text(key: StepKey) -> str:
    """A step's key as rows have it. A long one keeps its end, behind a digest of the whole."""
    text = str(key)
    return text if len(text) <= KEY_MAX else f"{hashlib.sha256(text.encode()).hexdigest()}…{text[-KEY_END:]}"


def version_of(document: str) -> str:
    """The version of a document: sha256 of its text, in hex."""
    return hashlib.sha256(document.encode()).hexdigest()


def lock_run(batch: Batch, run: RunKey, process: str) -> None:
    """Makes the rest of the transaction exclude other processes from the run. Raises RunTaken."""
    if not batch.run(_LOCK_TASK, (run.tenant, run.id, process)):
        raise RunTaken


def wake(batch: Batch, run: RunKey, at: int) -> None:
    """Has a suspended run go on at `at` at the latest."""
    batch.run(_WAKE, (at, run.tenant, run.id))


class Suspension(Struct, frozen=True):
    """What a suspended run waits for: the moment `wake_at`, tasks, checkpoints, keys of listening steps, the end of a pause, a sign-in.

    `task_states` has the state of each task by its id. `ends_at` is its deadline, `note` says in words what it waits for. A paused run has
    not come to all that it waits for. `is_partial`: the run was not interpreted, so it waits for what it waited for before, too.
    `is_queued`: it waits for one of the places of its workflow.
    """

    wake_at: int | None = None
    note: str = ""
    task_states: Mapping[str, str] = {}
    checkpoint_ids: tuple[str, ...] = ()
    listens: tuple[str, ...] = ()
    is_paused: bool = False
    waits_for_sign_in: bool = False
    is_partial: bool = False
    is_queued: bool = False
    ends_at: int | None = None


class RunStore:
    """Reads and writes versions and runs. `process` is the id of this process, as tasks name their runner."""

    def __init__(self, database: Database, now: Callable[[], int], process: str, recorder: EventRecorder = NO_EVENTS) -> None:
        self.database = database
        self.now = now
        self.process = process
        self._recorder = recorder

    async def add_version(self, tenant: str, name: str, document: str, author: str) -> str:
        """Stores a document under its latest uploader, and returns its version."""
        version, now = version_of(document), self.now()
        await self.database.write(lambda batch: batch.run(_INSERT_VERSION, (tenant, name, version, document, author, now)))
        return version

    async def document_of(self, tenant: str, name: str, version: str) -> str | None:
        """The text of a version, or None."""
        table = workflow_versions
        mine = (table.c.tenant == tenant) & (table.c.name == name) & (table.c.hash == version)
        return await self.database.read(lambda connection: connection.execute(select(table.c.document).where(mine)).scalar())

    async def author_of(self, tenant: str, name: str, version: str) -> str:
        """Who uploaded a version last, as tenant|issuer|subject; empty where the version is gone."""
        table = workflow_versions
        mine = (table.c.tenant == tenant) & (table.c.name == name) & (table.c.hash == version)
        found = await self.database.read(lambda connection: connection.execute(select(table.c.author).where(mine)).scalar())
        return found or ""

    async def requesters_of(self, tenant: str, txn: str) -> tuple[str, ...]:
        """The requesters of the run of a service in a transaction."""
        return await self.database.read(lambda connection: requesters_of(connection, tenant, txn))

    async def versions_of(self, tenant: str, name: str) -> list[tuple[str, int]]:
        """Every version of a workflow with the moment of its upload, the newest first."""
        table = workflow_versions
        query = select(table.c.hash, table.c.created).where((table.c.tenant == tenant) & (table.c.name == name))
        rows = await self.database.read(lambda connection: connection.execute(query.order_by(table.c.created.desc())).all())
        return [(row.hash, row.created) for row in rows]

    async def begin(self, row: RunRow) -> RunRow:
        """The run as it is stored, which is `row` where it begins now. Raises RunTaken."""

        def work(batch: Batch) -> RunRow:
            lock_run(batch, row.key, self.process)
            if insert_run(batch, row):
                inherit_requesters(batch, row.key.tenant, row.key.id, (row.workflow, row.version))
            found = _read_run(batch.connection, row.key)
            assert found is not None  # it was inserted, or there before
            return found

        return await self.database.write(work)

    async def find(self, run: RunKey) -> RunRow | None:
        return await self.database.read(lambda connection: _read_run(connection, run))

    async def suspend(self, run: RunKey, suspension: Suspension, also: Callable[[Batch], object] | None = None) -> list[str]:
        """Stores what a run waits for, with `also` in the same commit. Returns open tasks that it waited for before, and does no more.

        The run gives its place in its workflow back. It goes on at once if its pause is over, or people answered while its other branches
        worked. Raises RunTaken.
        """
        values = (suspension.wake_at, suspension.note, suspension.ends_at, int(suspension.waits_for_sign_in), run.tenant, run.id)

        def work(batch: Batch) -> list[str]:
            lock_run(batch, run, self.process)
            batch.run(_SUSPEND_IN_QUEUE if suspension.is_queued else _SUSPEND, values)
            has_resumed = suspension.is_paused and not is_paused(batch.connection, run)
            if has_resumed or _has_answers(batch.connection, run, suspension.checkpoint_ids):
                wake(batch, run, self.now())
            if also is not None:
                also(batch)
            if not suspension.is_partial:
                _record_waiting(batch, self._recorder, run)
            return [] if suspension.is_paused or suspension.is_partial else _replace_waits(batch, run, suspension)

        return await self.database.write(work)

    async def clear_suspension(self, run: RunKey) -> None:
        """The run goes on. What it waited for is known until it waits again. Raises RunTaken."""

        def work(batch: Batch) -> None:
            lock_run(batch, run, self.process)
            batch.run(_RESUME, (run.tenant, run.id))

        await self.database.write(work)

    async def fail(self, run: RunKey, fault: str) -> None:
        """Stores the error, as JSON, that a run fails with. Raises RunTaken."""

        def work(batch: Batch) -> None:
            lock_run(batch, run, self.process)
            batch.run(_FAIL, (fault, run.tenant, run.id))

        await self.database.write(work)

    async def end_all(self, tenant: str, workflow: str) -> None:
        """Has every suspended run of a workflow that was removed end now, paused ones too."""
        now = self.now()
        await self.database.write(lambda batch: batch.run(_END_ALL, (now, now, tenant, workflow)))

    async def open_runs_of(self, tenant: str, workflow: str) -> int:
        """How many runs of a workflow have not ended."""
        mine = (tasks.c.tenant == tenant) & (tasks.c.agent == workflow) & tasks.c.state.not_in(ENDED_STATES)
        query = select(func.count()).select_from(tasks).where(mine)
        return await self.database.read(lambda connection: connection.execute(query).scalar_one())

    async def suspended_workflows(self) -> list[tuple[str, str]]:
        """Tenant and name of each workflow that has suspended runs."""
        query = select(workflow_runs.c.tenant, workflow_runs.c.workflow).join(tasks, IS_TASK_OF_RUN).distinct()
        query = _among_unusual(query.where(tasks.c.runner == "", tasks.c.state.in_(_RESUMABLE_STATES)))
        return [(row.tenant, row.workflow) for row in await self.database.read(lambda connection: connection.execute(query).all())]

    async def wake_lost(self) -> int:
        """Has suspended runs go on, and so end, whose grant was revoked or whose parent task has ended. Returns how many."""
        now = self.now()
        found = await self.database.read(lambda connection: connection.execute(lost_runs(now)).all())

        def work(batch: Batch) -> int:
            return sum(batch.run(_END, (now, now, row.tenant, row.id)) for row in found)  # a pause keeps none of them

        return await self.database.write(work) if found else 0

    async def due(self, left_out: Sequence[str] = (), only: RunKey | None = None) -> list[TaskRow]:
        """Tasks of suspended runs that can go on: their moment or an event has come, or a task that they wait for has moved.

        `left_out` has ids of runs that are not looked for; `only` looks for one run.
        """
        queries = due_queries(self.now(), left_out, only)

        def work(connection: Connection) -> list[TaskRow]:
            rows = [to_task_row(row) for query in queries for row in connection.execute(query)]
            return list({(row.tenant, row.id): row for row in rows}.values())

        return await self.database.read(work)


def lost_runs(now: int) -> Any:
    """Suspended runs that are not due, and can only end."""
    parent = tasks.alias("parent")
    is_parent = (parent.c.tenant == tasks.c.tenant) & (parent.c.id == tasks.c.parent_id)
    is_grant = (grants.c.tenant == tasks.c.tenant) & (grants.c.id == tasks.c.grant_id)
    rests = (tasks.c.runner == "") & tasks.c.state.not_in(ENDED_STATES)
    is_lost = grants.c.revoked.is_not(None) | parent.c.state.in_(ENDED_STATES)
    is_later = workflow_runs.c.wake_at.is_(None) | (workflow_runs.c.wake_at > now)
    query = select(tasks.c.tenant, tasks.c.id).join(workflow_runs, IS_TASK_OF_RUN).outerjoin(parent, is_parent).outerjoin(grants, is_grant)
    return _among_unusual(query.where(rests, is_lost, is_later)).limit(DUE_MAX)


def _among_unusual(query: Any) -> Any:
    """Returns a query for tasks in a state other than completed, which reads them by their index and no run that has ended well."""
    return with_index(query.where(text(f"tasks.{UNUSUAL}")), tasks, "tasks_state")


def _replace_waits(batch: Batch, run: RunKey, suspension: Suspension) -> list[str]:
    """Makes the rows of what a run waits for those of `suspension`. Returns tasks that it waits for no more and that have not ended."""
    before, listens = workflow_waits.c, workflow_listens.c
    is_child = (tasks.c.tenant == before.tenant) & (tasks.c.id == before.task_id)
    lost = select(before.task_id).join(tasks, is_child).where(before.tenant == run.tenant, before.run_id == run.id)
    lost = lost.where(before.task_id.not_in(tuple(suspension.task_states)), tasks.c.state.not_in(ENDED_STATES))
    found = list(batch.connection.execute(lost).scalars())
    batch.run(_DELETE_WAITS, (run.tenant, run.id))
    for task_id, state in suspension.task_states.items():
        batch.add(workflow_waits, {"tenant": run.tenant, "run_id": run.id, "task_id": task_id, "state": state})
    mine = (listens.tenant == run.tenant) & (listens.run_id == run.id) & listens.key.not_in(suspension.listens)
    batch.connection.execute(delete(workflow_listens).where(mine))
    return found


def due_queries(now: int, left_out: Sequence[str] = (), only: RunKey | None = None) -> tuple[Any, ...]:
    """Tasks of suspended runs that can go on at `now`, one query for each cause. Each reads by an index, and no run that waits."""
    of_runs = _suspended_runs(tasks, left_out, only).join(workflow_runs, IS_TASK_OF_RUN)
    waits_for_sign_in = (tasks.c.state == TaskState.AUTH_REQUIRED.value) & (workflow_runs.c.waits_for_sign_in == 1)
    of_runs = of_runs.where(tasks.c.state.in_(_RESUMABLE_STATES) | waits_for_sign_in)
    is_active, listens = _can_go_on(), workflow_listens.c
    listening = (workflow_runs.c.tenant == listens.tenant) & (workflow_runs.c.id == listens.run_id) & (listens.received > listens.seen)
    return (
        of_runs.where(workflow_runs.c.wake_at <= now, is_active),
        of_runs.where(workflow_runs.c.ends_at <= now),
        of_runs.join(workflow_listens, listening).where(is_active),
        _runs_of_moved_tasks(left_out, only),
    )


def _suspended_runs(task: Any, left_out: Sequence[str], only: RunKey | None) -> Any:
    query = select(task).where(task.c.runner == "").limit(DUE_MAX)
    if left_out:
        query = query.where(task.c.id.not_in(left_out))
    return query if only is None else query.where(task.c.tenant == only.tenant, task.c.id == only.id)


def _can_go_on() -> Any:
    """The condition that a run is not paused and waits for no place: runs in a queue go on as places.py says."""
    return workflow_runs.c.paused_at.is_(None) & workflow_runs.c.queued_at.is_(None)


def _runs_of_moved_tasks(left_out: Sequence[str], only: RunKey | None) -> Any:
    """Tasks of runs that wait for a task whose state is not what it was. Rows of runs that have ended do not hide others."""
    child, run, waits = tasks.alias("child"), tasks.alias("run"), workflow_waits.c
    is_child = (child.c.tenant == waits.tenant) & (child.c.id == waits.task_id)
    is_row = (workflow_runs.c.tenant == waits.tenant) & (workflow_runs.c.id == waits.run_id)
    query = _suspended_runs(run, left_out, only).join(workflow_waits, (run.c.tenant == waits.tenant) & (run.c.id == waits.run_id))
    query = query.join(child, is_child).join(workflow_runs, is_row)
    query = query.where(run.c.state.in_(_RESUMABLE_STATES), _can_go_on())
    return query.where(child.c.state != waits.state)


def is_paused(connection: Connection, run: RunKey) -> bool:
    """Whether a run is to start no further step."""
    mine = (workflow_runs.c.tenant == run.tenant) & (workflow_runs.c.id == run.id)
    return connection.execute(select(workflow_runs.c.paused_at).where(mine)).scalar() is not None


def _has_answers(connection: Connection, run: RunKey, checkpoint_ids: tuple[str, ...]) -> bool:
    """Whether one of these checkpoints is not pending any more."""
    table = workflow_checkpoints
    mine = (table.c.tenant == run.tenant) & table.c.id.in_(checkpoint_ids) & (table.c.state != "pending")
    return bool(checkpoint_ids) and connection.execute(select(table.c.id).where(mine).limit(1)).first() is not None


def _read_run(connection: Connection, run: RunKey) -> RunRow | None:
    mine = (workflow_runs.c.tenant == run.tenant) & (workflow_runs.c.id == run.id)
    row = connection.execute(select(workflow_runs).where(mine)).first()
    return None if row is None else _to_run_row(row)


def _to_run_row(row: "Row[Any]") -> RunRow:
    return to_run_row(RunKey(row.tenant, row.id), dict(row._mapping))


def to_run_row(key: RunKey, columns: Mapping[str, Any]) -> RunRow:
    """A run from the columns of its row."""
    origin = Origin(*(columns[f"origin_{name}"] for name in ("id", "kind", "step")))
    decoded = {name: msgspec.json.decode(columns[name]) for name in ("input", "inputs")}
    requesters = tuple(msgspec.json.decode(columns["requesters"] or "[]"))
    return RunRow(key, **{name: columns[name] for name in PLAIN_COLUMNS}, **decoded, origin=origin, requesters=requesters)


def _record_waiting(batch: Batch, recorder: EventRecorder, run: RunKey) -> None:
    """Records the event that a run waits, in the commit that suspends it, where anything waits for such events."""
    if recorder.wants(run.tenant, RUN_WAITING):
        query = select(workflow_runs.c.workflow, workflow_runs.c.note, tasks.c.owner, tasks.c.txn).join(tasks, IS_TASK_OF_RUN)
        row = batch.connection.execute(query.where(tasks.c.tenant == run.tenant, tasks.c.id == run.id)).one()
        data = {"run": run.id, "workflow": row.workflow, "owner": row.owner, "note": row.note}
        recorder.record_event(batch, run.tenant, RUN_WAITING, run.id, data, owner=row.owner, txn=row.txn)


def insert_run(batch: Batch, row: RunRow) -> bool:
    """Stores a run that begins, unless it is there already."""
    given, inputs = (msgspec.json.encode(each).decode() for each in (row.input, row.inputs))
    origin = (row.origin.run_id, row.origin.kind, row.origin.step)
    values = (row.key.tenant, row.key.id, row.workflow, row.version, given, row.started, *origin, inputs, encode_requesters(row.requesters))
    return bool(batch.run(_INSERT_RUN, values))
