"""The task log: stores each accepted task and its events before they are shown, and replays them from any number."""

import asyncio
import hashlib
from bisect import bisect_right
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from itertools import accumulate
from typing import Any

from msgspec.structs import replace
from sqlalchemy import Connection, Row, exists, select, text

from adapters.task import TERMINAL, Message, TaskState, TaskStatus, encode
from gateway.events.recorder import NO_EVENTS, EventRecorder
from gateway.storage.database import Batch, Database, GuardedUpdate, ReadFailed
from gateway.storage.tables import processes, task_events, task_prompts, tasks
from gateway.tasks.contracts.prompts import open_prompts
from gateway.tasks.ended_tasks import PruningNotice
from gateway.tasks.events.endings import record_ending
from gateway.tasks.events.entries import (
    WITHHELD,
    TaskEvent,
    TaskRecord,
    TaskRow,
    event_from_row,
    stream_response,
    task_from_events,
    text_length,
    to_rfc3339,
)
from gateway.tasks.events.live import LiveEvents, LiveEventsByTask, TaskLeft
from gateway.tasks.events.rows import write_events, write_new_task
from policies.callers import Caller
from registry.names import FRONT_DOOR

__all__ = [
    "WITHHELD",
    "IdempotencyKeyUsed",
    "ParentTaskEnded",
    "TaskEnded",
    "TaskEvent",
    "TaskLeft",
    "TaskLog",
    "TaskMoved",
    "TaskNotWaiting",
    "TaskRecord",
    "TaskRow",
    "UnknownTask",
    "stream_response",
    "task_from_events",
    "to_rfc3339",
]
POLL_SECONDS = 0.25  # between two polls for changes by other processes
SELECT_MOVED = """
SELECT tasks.tenant, tasks.id FROM tasks
JOIN unnest(%(tenants)s::text[], %(ids)s::text[], %(seqs)s::bigint[]) AS known (tenant, id, seq) USING (tenant, id)
WHERE tasks.last_seq > known.seq
"""
RECENTLY_MOVED_US = 2_000_000  # a task of this process that was updated within this time is not lost
RUNNING_STATES = (TaskState.SUBMITTED, TaskState.WORKING)
_UPDATE_VENDOR_REF = (
    "UPDATE tasks SET vendor_ref = ?, awaited_connection_id = ? WHERE tenant = ? AND id = ? AND last_seq = ? AND runner = ?"
)
_DELETE_PROMPTS = "DELETE FROM task_prompts WHERE tenant = ? AND task_id = ?"
BATCH_EVENTS, BATCH_SIZE = 64, 64 << 10  # events, and characters of their bodies, that a follower gets at once
DESCENDANTS_READ_MAX = 10_000  # tasks of one transaction that are searched


class UnknownTask(Exception):
    """No such task exists for this caller."""


class ParentTaskEnded(Exception):
    """The task that caused a new task has ended."""


class TaskNotWaiting(Exception):
    """The task does not wait for a message: it has ended, or its agent works on it."""


class TaskEnded(TaskNotWaiting):
    """The task has reached a terminal state, so it has no more events to subscribe to (A2A 1.0 s3.1.6)."""


class TaskMoved(TaskNotWaiting):
    """Another request or process has moved the task since it was read."""


_ADVANCE = GuardedUpdate(
    tasks,
    ("state", "updated", "last_seq", "runner", "vendor_ref", "awaited_connection_id", "decision_id", "grant_id"),
    ("tenant", "id", "last_seq", "runner"),  # a process whose turn another one has taken up moves nothing any more
    TaskMoved,
)
_ADVANCE_SEQ = GuardedUpdate(tasks, ("last_seq",), _ADVANCE.keys, TaskMoved)  # five indexes stay as they are


class IdempotencyKeyUsed(Exception):
    """A concurrent request with the same Idempotency-Key has opened its task first."""


class TaskLog:
    """Reads and appends task events. Only the process that runs a turn (`runner`) appends to its task."""

    def __init__(self, database: Database, now: Callable[[], int], runner: str, recorder: EventRecorder = NO_EVENTS) -> None:
        self._recorder = recorder
        self._database = database
        self._now = now
        self.runner = runner
        self._look_subscribers: list[Callable[[Caller, TaskRow], Awaitable[None]]] = []
        self._live_events = LiveEventsByTask()
        self._is_draining = False
        self.pruning = PruningNotice()

    def subscribe_to_looks(self, subscriber: Callable[[Caller, TaskRow], Awaitable[None]]) -> None:
        """Has `subscriber` called by each `notify_look` of a task that rests."""
        self._look_subscribers.append(subscriber)

    async def notify_look(self, caller: Caller, row: TaskRow) -> None:
        """Tells the subscribers that the owner looks at a task that no process works on and that has not ended."""
        if not row.runner and not row.has_ended:
            for subscriber in self._look_subscribers:
                await subscriber(caller, row)

    def opening_events(self, row: TaskRow, message: Message) -> tuple[TaskRow, tuple[TaskEvent, ...]]:
        """Returns a new task with its first two events: the caller's message and the status SUBMITTED."""
        at = row.created
        status = encode(TaskStatus(state=row.state, timestamp=to_rfc3339(at))).decode()
        events = (TaskEvent(1, at, "message", encode(message).decode()), TaskEvent(2, at, "status", status))
        return replace(row, last_seq=2, runner=self.runner), events

    def open(self, batch: Batch, row: TaskRow, events: Sequence[TaskEvent]) -> None:
        """Writes a new task, in one commit with the decision that allowed it. Raises ParentTaskEnded."""
        if row.parent_id and has_ended(batch.connection, row.tenant, row.parent_id):
            raise ParentTaskEnded
        write_new_task(batch, row)
        write_events(batch, row, events)

    def advance(self, batch: Batch, previous: TaskRow, row: TaskRow, events: Sequence[TaskEvent]) -> None:
        """Appends events and updates the task. Raises TaskMoved if the task has moved since `previous` or has ended."""
        if previous.has_ended:
            raise TaskMoved
        keys = (previous.tenant, previous.id, previous.last_seq, previous.runner)
        if row.updated == previous.updated and row == replace(previous, last_seq=row.last_seq):
            batch.update(_ADVANCE_SEQ, (row.last_seq, *keys))
        else:
            refs = (row.vendor_ref, row.awaited_connection_id, row.decision_id, row.grant_id)
            batch.update(_ADVANCE, (row.state.value, row.updated, row.last_seq, row.runner, *refs, *keys))
            _write_prompts(batch, previous, row)
        write_events(batch, row, events)
        if row.has_ended:
            record_ending(batch, self._recorder, row)

    def claim(self, batch: Batch, row: TaskRow) -> TaskRow:
        """Makes this process the runner of the task's turn, so that later writes of its former runner are refused.

        Raises TaskMoved, at the latest with the commit, if the task has moved or was claimed since `row` was read.
        """
        claimed = replace(row, runner=self.runner, updated=self._now())
        self.advance(batch, row, claimed, ())
        return claimed

    def update_vendor_ref(self, batch: Batch, row: TaskRow) -> None:
        """Keeps the agent's own ids alone. Nothing, once anything was appended: that brought them along."""
        batch.run(_UPDATE_VENDOR_REF, (row.vendor_ref, row.awaited_connection_id, row.tenant, row.id, row.last_seq, row.runner))

    def live_events(self, row: TaskRow) -> LiveEvents:
        """Returns the live events of a task. A process that runs or follows the task holds them to get each new event."""
        return self._live_events.live_events_of(row)

    def publish(self, row: TaskRow, events: Sequence[TaskEvent]) -> None:
        """Delivers committed events to the followers in this process. Called after the commit with all of its events of the task."""
        tail = self._live_events.find(row.tenant, row.id)
        if tail is not None:
            tail.update(row, events)

    async def poll_other_processes(self) -> None:
        """Finds out, by one query, which of the awaited tasks other processes have moved. Does nothing on SQLite."""
        known = list(self._live_events.awaited_rows())
        if not known or self._database.is_sqlite:
            return
        parameters = {"tenants": [row.tenant for row in known], "ids": [row.id for row in known], "seqs": [row.last_seq for row in known]}
        try:
            moved = await self._database.read(lambda connection: connection.exec_driver_sql(SELECT_MOVED, parameters).all())
        except ReadFailed:
            return
        for tenant, task_id in moved:
            if (tail := self._live_events.find(tenant, task_id)) is not None:
                tail.invalidate()

    async def find(self, tenant: str, owner: str, task_id: str) -> TaskRow:
        """Returns the task of this owner. Raises UnknownTask, also for a task of another owner."""
        return await self._database.read(lambda connection: _find_row(connection, tenant, owner, task_id))

    async def read_record(self, tenant: str, owner: str, task_id: str) -> TaskRecord:
        """Returns a task with its log. Raises UnknownTask."""

        def work(connection: Connection) -> TaskRecord:
            row = _find_row(connection, tenant, owner, task_id)
            return TaskRecord(row, _read_events(connection, row, 0))

        return await self._database.read(work)

    async def read_since(self, row: TaskRow, after_seq: int) -> TaskRecord:
        """Returns the task with its events after `after_seq`. Raises UnknownTask."""

        def work(connection: Connection) -> TaskRecord:
            current = _find_row(connection, row.tenant, row.owner, row.id)
            return TaskRecord(current, _read_events(connection, current, after_seq))

        return await self._database.read(work)

    async def next_events(self, row: TaskRow, after: int) -> TaskRecord:
        """Returns the task with its next events after number `after`, about BATCH_SIZE characters together."""

        def work(connection: Connection) -> TaskRecord:
            current = _find_row(connection, row.tenant, row.owner, row.id)
            return TaskRecord(current, _first_of(_read_events(connection, current, after, BATCH_EVENTS)))

        return await self._database.read(work)

    async def read_events(self, row: TaskRow, after_seq: int) -> tuple[TaskEvent, ...]:
        """Returns the events after `after_seq`."""
        return (await self.read_since(row, after_seq)).events

    async def open_descendants(self, row: TaskRow) -> list[TaskRow]:
        """Returns the tasks below this one, at any depth, that have not ended; nearer ones first."""
        same = (tasks.c.tenant == row.tenant) & (tasks.c.txn == row.txn) & (tasks.c.owner == row.owner)
        query = select(tasks).where(same).order_by(tasks.c.id).limit(DESCENDANTS_READ_MAX)
        open_rows = await self._database.read(lambda connection: [to_task_row(found) for found in connection.execute(query)])
        children: dict[str, list[TaskRow]] = {}
        for one in open_rows:
            children.setdefault(one.parent_id, []).append(one)
        below = children.pop(row.id, [])
        for one in below:  # the list grows during the loop
            below += children.pop(one.id, [])
        return [one for one in below if not one.has_ended]

    async def find_by_idempotency_key(self, tenant: str, owner: str, agent: str, key: str) -> TaskRow | None:
        """Returns the task that was opened under this idempotency key; the front door's name stands for any agent."""
        match = (tasks.c.tenant == tenant) & (tasks.c.owner == owner) & (tasks.c.idempotency_key == key)
        if agent != FRONT_DOOR:
            match &= tasks.c.agent == agent
        found = await self._database.read(lambda c: c.execute(select(tasks).where(match)).first())
        return None if found is None else to_task_row(found)

    async def begin_drain(self) -> None:
        """Ends the streams of tasks that no turn of this process works on, now and when turns end."""
        self._is_draining = True
        self._live_events.wake_all()

    def has_left(self, row: TaskRow) -> bool:
        """Returns whether this process drains and works on the task no more."""
        return self._is_draining and row.runner != self.runner

    def follow(
        self, row: TaskRow, after_seq: int, until_end: bool = False, *, until_drain: bool = False
    ) -> AsyncGenerator[tuple[TaskEvent, ...], None]:
        """Yields the events after `after_seq` until the task ends or waits for an answer, whichever process appends them.

        A batch has at least one event and about BATCH_SIZE characters, so that slow readers hold little. `until_end`: continues while the
        task waits. `until_drain`: raises TaskLeft where this process has left the task. While the database is away, it waits for it.
        """
        return _follow(self, self._live_events.live_events_of(row), row, after_seq, until_end=until_end, until_drain=until_drain)

    async def first_events(self, row: TaskRow, seconds: float) -> tuple[TaskEvent, ...]:
        """Returns the first events after `row`. Returns none if the agent has begun a task of its own, or after `seconds`."""
        try:
            async with asyncio.timeout(seconds):
                return await _first_after(self, self._live_events.live_events_of(row), row)
        except TimeoutError:
            return ()

    def note_agent_task(self, row: TaskRow) -> None:
        """Tells the followers of this task in this process that its agent has begun a task of its own."""
        tail = self._live_events.find(row.tenant, row.id)
        if tail is not None:
            tail.note_agent_task()

    async def find_orphans(self) -> list[TaskRow]:
        """Returns tasks of ended processes, at most 1000, and possibly lost tasks of this process.

        A task of this process may be lost if it has not moved for a while. One query over both tables is enough, because a process
        registers before it opens a task and deletes only ended processes.
        """
        has_runner = text("tasks.runner <> ''")  # the condition of the partial index
        gone = select(tasks).where(has_runner, ~exists().where(processes.c.id == tasks.c.runner)).limit(1000)
        of_this_process = select(tasks).where(has_runner, tasks.c.runner == self.runner, tasks.c.updated < self._now() - RECENTLY_MOVED_US)
        return await self._database.read(
            lambda connection: [to_task_row(row) for query in (gone, of_this_process) for row in connection.execute(query)]
        )


def _write_prompts(batch: Batch, previous: TaskRow, row: TaskRow) -> None:
    """Replaces the rows of the prompts that a task waits for, where they differ from those of `previous`."""
    if row.vendor_ref == previous.vendor_ref:
        return
    previous_prompts, now = ({prompt_digest(prompt.id) for prompt in open_prompts(ref)} for ref in (previous.vendor_ref, row.vendor_ref))
    if previous_prompts == now:
        return
    batch.run(_DELETE_PROMPTS, (row.tenant, row.id))
    for digest in sorted(now):
        batch.add(task_prompts, {"tenant": row.tenant, "task_id": row.id, "prompt_digest": digest})


def prompt_digest(prompt_id: str) -> str:
    """What `task_prompts` knows a prompt by: an agent's id may be too long for an index."""
    return hashlib.sha256(prompt_id.encode()).hexdigest()


async def _follow(
    log: TaskLog, live_events: LiveEvents, row: TaskRow, after_seq: int, *, until_end: bool, until_drain: bool
) -> AsyncGenerator[tuple[TaskEvent, ...], None]:
    while True:
        known = live_events.events_after(after_seq) or await _read_after(log, live_events, row, after_seq)
        now, events = known[0], _first_of(known[1])
        del known
        if events:
            after_seq = events[-1].seq
            yield events
        is_whole = not events or after_seq >= now.last_seq
        if is_whole and (now.has_ended or not (until_end or now.state in RUNNING_STATES)):
            return
        if is_whole and until_drain and log.has_left(now):
            raise TaskLeft
        del events, now  # an idle follower holds no events
        if live_events.is_up_to(after_seq):
            await live_events.wait()


async def _read_after(log: TaskLog, tail: LiveEvents, row: TaskRow, after: int) -> tuple[TaskRow, tuple[TaskEvent, ...]]:
    """Reads the task and its first events after number `after`, and updates the live events. Repeats until the database answers."""
    while True:
        try:
            record = await log.next_events(row, after)
        except ReadFailed:
            await asyncio.sleep(POLL_SECONDS)
            continue
        now = row if record.row == row else record.row
        if not record.events or record.events[-1].seq == now.last_seq:
            tail.update(now, record.events)
        return now, record.events


async def _first_after(log: TaskLog, tail: LiveEvents, row: TaskRow) -> tuple[TaskEvent, ...]:
    """Returns the first events after `row`, or none if the agent has begun a task of its own or the task does not run."""
    while not tail.has_agent_task:
        now, events = tail.events_after(row.last_seq) or await _read_after(log, tail, row, row.last_seq)
        if events or now.state not in RUNNING_STATES:
            return _first_of(events)
        if tail.is_up_to(row.last_seq) and not tail.has_agent_task:
            await tail.wait()
    return ()


async def events_one_by_one(batches: AsyncGenerator[tuple[TaskEvent, ...], None]) -> AsyncIterator[TaskEvent]:
    """Yields the events of batches one by one."""
    async with aclosing(batches):
        async for batch in batches:
            for event in batch:
                yield event


def is_running(connection: Connection, tenant: str, task_id: str) -> bool:
    """Returns whether a turn of the task is running, in any process."""
    state = connection.execute(select(tasks.c.state).where((tasks.c.tenant == tenant) & (tasks.c.id == task_id))).scalar()
    return state in RUNNING_STATES


def has_ended(connection: Connection, tenant: str, task_id: str) -> bool:
    """Returns whether the task is in a terminal state."""
    state = connection.execute(select(tasks.c.state).where((tasks.c.tenant == tenant) & (tasks.c.id == task_id))).scalar()
    return state in TERMINAL


def _find_row(connection: Connection, tenant: str, owner: str, task_id: str) -> TaskRow:
    match = (tasks.c.tenant == tenant) & (tasks.c.owner == owner) & (tasks.c.id == task_id)
    found = connection.execute(select(tasks).where(match)).first()
    if found is None:
        raise UnknownTask
    return to_task_row(found)


def to_task_row(row: "Row[Any]") -> TaskRow:
    return TaskRow(**{**row._mapping, "state": TaskState(row.state)})


def _first_of(events: tuple[TaskEvent, ...]) -> tuple[TaskEvent, ...]:
    """As many of the first events as have BATCH_SIZE characters together, at least one."""
    sizes = list(accumulate(map(text_length, events)))
    return events[: max(1, bisect_right(sizes, BATCH_SIZE))]


def _read_events(connection: Connection, row: TaskRow, after_seq: int, most: int | None = None) -> tuple[TaskEvent, ...]:
    """Reads the events up to the row's last number, at most `most`. Events appended later belong to the next read."""
    match = (task_events.c.tenant == row.tenant) & (task_events.c.task_id == row.id)
    among = task_events.c.seq.between(after_seq + 1, row.last_seq)
    rows = connection.execute(select(task_events).where(match, among).order_by(task_events.c.seq).limit(most)).all()
    return tuple(event_from_row(row) for row in rows)
