"""The TaskLog: every accepted task and each of its events, kept before it is shown, replayable from any number."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from itertools import accumulate
from typing import Any, TypeVar

from msgspec.structs import asdict, replace
from sqlalchemy import Connection, Row, exists, select, text

from adapters.task import TERMINAL, Message, TaskState, TaskStatus, encode
from gateway.storage.database import Batch, Database, Moves, NotRead
from gateway.storage.tables import processes, task_events, tasks
from gateway.tasks.events.entries import WITHHELD, TaskEvent, TaskRecord, TaskRow, fold, rfc3339, shown
from gateway.tasks.events.live import Tail, Tails
from registry.names import FRONT_DOOR

__all__ = ["WITHHELD", "KeyUsed", "TaskEnded", "TaskEvent", "TaskLog", "TaskRecord", "TaskRow", "UnknownTask", "fold", "rfc3339", "shown"]
T = TypeVar("T")
POLL_SECONDS = 0.25  # between two looks at what other processes did
MOVED = """
SELECT tasks.tenant, tasks.id FROM tasks
JOIN unnest(%(tenants)s::text[], %(ids)s::text[], %(seqs)s::bigint[]) AS known (tenant, id, seq) USING (tenant, id)
WHERE tasks.last_seq > known.seq
"""
SETTLED_US = 2_000_000  # a task of ours that moved in this time is not looked at
RUNNING = (TaskState.SUBMITTED, TaskState.WORKING)
_REFER = "UPDATE tasks SET vendor_ref = ? WHERE tenant = ? AND id = ? AND last_seq = ? AND runner = ?"
BATCH_EVENTS, BATCH_SIZE = 64, 64 << 10  # events, and characters of their bodies, that a follower is handed together
CAUSED_MAX = 10_000  # tasks of one errand that are looked through


class UnknownTask(Exception):
    """No such task for this caller: of another owner, or of nobody."""


class TaskEnded(Exception):
    """The task has reached a terminal state, or another hand moved it on."""


_ADVANCE = Moves(
    tasks,
    ("state", "updated", "last_seq", "runner", "vendor_ref", "decision_id", "grant_id"),
    ("tenant", "id", "last_seq", "runner"),  # a process whose turn another one has taken up moves nothing any more
    TaskEnded,
)


class KeyUsed(Exception):
    """A request with the same Idempotency-Key was faster: its task is the one."""


class TaskLog:
    """Reads and appends. The process that runs a turn (`runner`) is the one that appends to its task."""

    def __init__(self, database: Database, now: Callable[[], int], runner: str) -> None:
        self._database = database
        self._now = now
        self.runner = runner
        self._tails: Tails[TaskRow, TaskEvent] = Tails()

    def opening(self, row: TaskRow, message: Message) -> tuple[TaskRow, tuple[TaskEvent, ...]]:
        """A new task with its first two events: what was asked, and that it was taken."""
        at = row.created
        status = encode(TaskStatus(state=row.state, timestamp=rfc3339(at))).decode()
        events = (TaskEvent(1, at, "message", encode(message).decode()), TaskEvent(2, at, "status", status))
        return replace(row, last_seq=2, runner=self.runner), events

    def open(self, batch: Batch, row: TaskRow, events: Sequence[TaskEvent]) -> None:
        """Keeps a new task, in the same commit as the decision that allowed it. Raises TaskEnded when the one that causes it is over."""
        if row.parent_id and is_over(batch.connection, row.tenant, row.parent_id):
            raise TaskEnded
        batch.add(tasks, asdict(row) | {"state": row.state.value})
        self._add(batch, row, events)

    def advance(self, batch: Batch, old: TaskRow, new: TaskRow, events: Sequence[TaskEvent]) -> None:
        """Appends events and moves the task on; raises TaskEnded when somebody else moved it since `old`."""
        values = (new.state.value, new.updated, new.last_seq, new.runner, new.vendor_ref, new.decision_id, new.grant_id)
        if old.ended:
            raise TaskEnded
        batch.move(_ADVANCE, (*values, old.tenant, old.id, old.last_seq, old.runner))
        self._add(batch, new, events)

    def claim(self, batch: Batch, row: TaskRow) -> TaskRow:
        """Makes this process the one that runs the task's turn: whatever its runner of before writes from now on is refused.

        Raises TaskEnded, at the latest with the commit, when anybody moved the task or took it up since `row` was read.
        """
        claimed = replace(row, runner=self.runner, updated=self._now())
        self.advance(batch, row, claimed, ())
        return claimed

    def refer(self, batch: Batch, row: TaskRow) -> None:
        """Keeps the agent's own ids alone. Nothing, once anything was appended: that brought them along."""
        batch.run(_REFER, (row.vendor_ref, row.tenant, row.id, row.last_seq, row.runner))

    def _add(self, batch: Batch, row: TaskRow, events: Sequence[TaskEvent]) -> None:
        for event in events:
            batch.add(
                task_events,
                {"tenant": row.tenant, "task_id": row.id, "seq": event.seq, "at": event.at, "kind": event.kind, "body": event.body},
            )

    def tail(self, row: TaskRow) -> Tail[TaskRow, TaskEvent]:
        """Whoever runs or follows a task holds its tail, so that what is kept here is handed on here."""
        return self._tails.of(row)

    def moved(self, row: TaskRow, events: Sequence[TaskEvent]) -> None:
        """Tells whoever follows this task here. Called after the commit, with all that it kept of the task."""
        tail = self._tails.find(row.tenant, row.id)
        if tail is not None:
            tail.learn(row, events)

    async def look(self) -> None:
        """Whether other processes moved what is waited for here: one question for all of it. On SQLite there are none."""
        known = list(self._tails.awaited())
        if not known or self._database.sqlite:
            return
        asked = {"tenants": [row.tenant for row in known], "ids": [row.id for row in known], "seqs": [row.last_seq for row in known]}
        try:
            moved = await self._database.read(lambda connection: connection.exec_driver_sql(MOVED, asked).all())
        except NotRead:
            return
        for tenant, task_id in moved:
            if (tail := self._tails.find(tenant, task_id)) is not None:
                tail.forget()

    async def find(self, tenant: str, owner: str, task_id: str) -> TaskRow:
        """Where a task stands. Raises UnknownTask, for a foreign task too: the owner is part of the question."""
        return await self._database.read(lambda connection: _find(connection, tenant, owner, task_id))

    async def record(self, tenant: str, owner: str, task_id: str) -> TaskRecord:
        """A task with its log. Raises UnknownTask."""

        def work(connection: Connection) -> TaskRecord:
            row = _find(connection, tenant, owner, task_id)
            return TaskRecord(row, _events(connection, row, 0))

        return await self._database.read(work)

    async def since(self, row: TaskRow, after: int) -> TaskRecord:
        """Where the task stands now, and its events after number `after`."""

        def work(connection: Connection) -> TaskRecord:
            current = _find(connection, row.tenant, row.owner, row.id)
            return TaskRecord(current, _events(connection, current, after))

        return await self._database.read(work)

    async def next_events(self, row: TaskRow, after: int) -> TaskRecord:
        """Where the task stands now, and the first of its events after number `after`, of about BATCH_SIZE together."""

        def work(connection: Connection) -> TaskRecord:
            current = _find(connection, row.tenant, row.owner, row.id)
            return TaskRecord(current, _first_of(_events(connection, current, after, BATCH_EVENTS)))

        return await self._database.read(work)

    async def events(self, row: TaskRow, after: int) -> tuple[TaskEvent, ...]:
        """The events after number `after`."""
        return (await self.since(row, after)).events

    async def caused(self, row: TaskRow) -> list[TaskRow]:
        """The tasks that hang below this one, at any depth, and have not ended; nearer ones first."""
        same = (tasks.c.tenant == row.tenant) & (tasks.c.txn == row.txn) & (tasks.c.owner == row.owner)
        query = select(tasks).where(same).order_by(tasks.c.id).limit(CAUSED_MAX)
        errand = await self._database.read(lambda connection: [row_of(found) for found in connection.execute(query)])
        children: dict[str, list[TaskRow]] = {}
        for one in errand:
            children.setdefault(one.parent_id, []).append(one)
        below = children.pop(row.id, [])
        for one in below:  # grows while it is gone through
            below += children.pop(one.id, [])
        return [one for one in below if not one.ended]

    async def repeated(self, tenant: str, owner: str, agent: str, key: str) -> TaskRow | None:
        """The task that was opened under this idempotency key; with any agent, where `agent` is the front door."""
        match = (tasks.c.tenant == tenant) & (tasks.c.owner == owner) & (tasks.c.idempotency_key == key)
        if agent != FRONT_DOOR:
            match &= tasks.c.agent == agent
        found = await self._database.read(lambda c: c.execute(select(tasks).where(match)).first())
        return None if found is None else row_of(found)

    def follow(self, row: TaskRow, after: int, past_waits: bool = False) -> AsyncGenerator[tuple[TaskEvent, ...], None]:
        """Every event after number `after`, until the task ends or waits for somebody; whichever process appends them.

        Each time those that there are, at least one, and of at most BATCH_SIZE together: a slow reader holds no more than that.
        `past_waits`: until it ends, whatever it waits for meanwhile.
        While the database does not answer, there is nothing to show: the stream waits until it does.
        """
        return _followed(self, self._tails.of(row), row, after, past_waits)

    async def first_events(self, row: TaskRow, seconds: float) -> tuple[TaskEvent, ...]:
        """The first events after where `row` stands; none once its agent has begun a task of its own, or after `seconds`."""
        try:
            async with asyncio.timeout(seconds):
                return await _first_after(self, self._tails.of(row), row)
        except TimeoutError:
            return ()

    def note_agent_task(self, row: TaskRow) -> None:
        """Tells those who follow this task here that its agent has begun a task of its own."""
        tail = self._tails.find(row.tenant, row.id)
        if tail is not None:
            tail.note_agent_task()

    async def orphans(self) -> list[TaskRow]:
        """Tasks of processes that are gone (at most 1000 at once), and our own that did not move for a while, which may be lost.

        A process joins before it opens a task, and strikes nobody off who lives: one look at both tables tells.
        """
        somebodys = text("tasks.runner <> ''")  # as the index says it
        gone = select(tasks).where(somebodys, ~exists().where(processes.c.id == tasks.c.runner)).limit(1000)
        ours = select(tasks).where(somebodys, tasks.c.runner == self.runner, tasks.c.updated < self._now() - SETTLED_US)
        return await self._database.read(lambda connection: [row_of(row) for query in (gone, ours) for row in connection.execute(query)])


async def _followed(
    log: TaskLog, tail: Tail[TaskRow, TaskEvent], row: TaskRow, after: int, past_waits: bool
) -> AsyncGenerator[tuple[TaskEvent, ...], None]:
    while True:
        known = tail.after(after) or await _read_after(log, tail, row, after)
        now, events = known[0], _first_of(known[1])
        del known
        if events:
            after = events[-1].seq
            yield events
        is_whole = not events or after >= now.last_seq
        if is_whole and (now.ended or not (past_waits or now.state in RUNNING)):
            return
        del events, now  # a quiet follower holds on to nothing
        if tail.rests_at(after):
            await tail.wait()


async def _read_after(log: TaskLog, tail: Tail[TaskRow, TaskEvent], row: TaskRow, after: int) -> tuple[TaskRow, tuple[TaskEvent, ...]]:
    """Where the database says that the task stands, and its first events after number `after`. The tail learns of them."""
    while True:
        try:
            record = await log.next_events(row, after)
        except NotRead:
            await asyncio.sleep(POLL_SECONDS)
            continue
        now = row if record.row == row else record.row
        if not record.events or record.events[-1].seq == now.last_seq:
            tail.learn(now, record.events)
        return now, record.events


async def _first_after(log: TaskLog, tail: Tail[TaskRow, TaskEvent], row: TaskRow) -> tuple[TaskEvent, ...]:
    """The first events after where `row` stands; none once the agent has begun a task of its own, or where the task rests."""
    while not tail.has_agent_task:
        now, events = tail.after(row.last_seq) or await _read_after(log, tail, row, row.last_seq)
        if events or now.state not in RUNNING:
            return _first_of(events)
        if tail.rests_at(row.last_seq) and not tail.has_agent_task:
            await tail.wait()
    return ()


async def one_by_one(batches: AsyncGenerator[tuple[TaskEvent, ...], None]) -> AsyncIterator[TaskEvent]:
    """The events of a follower, for whom one at a time is enough."""
    async with aclosing(batches):
        async for batch in batches:
            for event in batch:
                yield event


def is_running(connection: Connection, tenant: str, task_id: str) -> bool:
    """Whether the turn of a task is under way, in whichever process."""
    state = connection.execute(select(tasks.c.state).where((tasks.c.tenant == tenant) & (tasks.c.id == task_id))).scalar()
    return state in RUNNING


def is_over(connection: Connection, tenant: str, task_id: str) -> bool:
    """Whether a task has ended."""
    state = connection.execute(select(tasks.c.state).where((tasks.c.tenant == tenant) & (tasks.c.id == task_id))).scalar()
    return state in TERMINAL


def _find(connection: Connection, tenant: str, owner: str, task_id: str) -> TaskRow:
    match = (tasks.c.tenant == tenant) & (tasks.c.owner == owner) & (tasks.c.id == task_id)
    found = connection.execute(select(tasks).where(match)).first()
    if found is None:
        raise UnknownTask
    return row_of(found)


def row_of(found: "Row[Any]") -> TaskRow:
    return TaskRow(**{**found._mapping, "state": TaskState(found.state)})


def _first_of(events: tuple[TaskEvent, ...]) -> tuple[TaskEvent, ...]:
    """As many of the first events as have BATCH_SIZE characters together, at least one."""
    sizes = accumulate(len(event.body) for event in events)
    return events[: max(1, sum(1 for size in sizes if size <= BATCH_SIZE))]


def _events(connection: Connection, row: TaskRow, after: int, most: int | None = None) -> tuple[TaskEvent, ...]:
    """Up to where the row stands, and at most `most`: what is appended meanwhile belongs to a later look."""
    match = (task_events.c.tenant == row.tenant) & (task_events.c.task_id == row.id)
    among = task_events.c.seq.between(after + 1, row.last_seq)
    rows = connection.execute(select(task_events).where(match, among).order_by(task_events.c.seq).limit(most)).all()
    return tuple(TaskEvent(row.seq, row.at, row.kind, row.body) for row in rows)
