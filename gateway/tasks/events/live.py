"""Live events: the latest events of running and followed tasks, delivered in this process without a database query."""

import asyncio
from collections.abc import Iterator, Sequence
from weakref import WeakValueDictionary

from gateway.tasks.events.entries import TaskEvent, TaskRow, text_length

EVENTS_MAX = 64  # of one task, beside those of the last commit; slower followers read from the database
BODIES_SIZE_MAX = 1 << 20  # characters of their bodies


class TaskLeft(Exception):
    """This process drains and no turn of it works on the task: a stream of its events goes on in another process."""


class LiveEvents:
    """What this process knows of one task: its row (None: unknown), and its last events without a gap."""

    __slots__ = ("__weakref__", "_events", "_row", "_size", "_waiters", "has_agent_task")

    def __init__(self) -> None:
        self._row: TaskRow | None = None
        self._events: list[TaskEvent] = []  # no deque, since an empty one takes 700 bytes
        self._size = 0  # characters of their bodies
        self._waiters: list[asyncio.Future[None]] = []
        self.has_agent_task = False  # whether the agent has begun a task of its own for this task

    def events_after(self, seq: int) -> tuple[TaskRow, tuple[TaskEvent, ...]] | None:
        """Returns the row and its events after number `seq`, or None if these must be read from the database."""
        if self._row is None or seq < self._row.last_seq - len(self._events):
            return None
        count = max(0, self._row.last_seq - seq)
        return self._row, tuple(self._events[len(self._events) - count :])

    def update(self, row: TaskRow, events: Sequence[TaskEvent]) -> None:
        """Stores a row that was committed or read, with consecutive events up to it, and wakes the waiters."""
        known = self._row.last_seq if self._row is not None else 0
        if row.last_seq < known or (row.last_seq == known and self._row is not None):
            return
        fresh = [event for event in events if event.seq > known]
        if self._row is None or len(fresh) != row.last_seq - known:
            self._clear()
        self._events += fresh
        self._size += sum(map(text_length, fresh))
        self._row = row
        self._trim(max(EVENTS_MAX, len(fresh)))
        self.wake()

    def invalidate(self) -> None:
        """Forgets the row, because another process has moved the task, and wakes the waiters."""
        self._row = None
        self._clear()
        self.wake()

    def note_agent_task(self) -> None:
        """Records that the agent has begun a task of its own, so that its answer is more than a Message."""
        self.has_agent_task = True
        self.wake()

    async def wait(self) -> None:
        """Waits for the next change."""
        signal = asyncio.get_running_loop().create_future()
        self._waiters.append(signal)
        try:
            await signal
        finally:
            if signal in self._waiters:  # it was canceled
                self._waiters.remove(signal)

    def wake(self) -> None:
        """Has the waiters look again."""
        waiting, self._waiters = self._waiters, []
        for signal in waiting:
            if not signal.done():
                signal.set_result(None)

    @property
    def awaited_row(self) -> TaskRow | None:
        """Returns the row as the waiters know it, or None without waiters."""
        return self._row if self._waiters else None

    def is_up_to(self, seq: int) -> bool:
        """Returns whether no event after number `seq` is known."""
        return self._row is not None and self._row.last_seq <= seq

    def _clear(self) -> None:
        self._events.clear()
        self._size = 0

    def _trim(self, count: int) -> None:
        """Drops the oldest events until at most `count` events and BODIES_SIZE_MAX characters are left."""
        dropped = 0
        while len(self._events) - dropped > count or self._size > BODIES_SIZE_MAX:
            self._size -= text_length(self._events[dropped])
            dropped += 1
        del self._events[:dropped]


class LiveEventsByTask:
    """The live events of one process, each kept as long as a runner or follower refers to them."""

    def __init__(self) -> None:
        self._by_task: WeakValueDictionary[tuple[str, str], LiveEvents] = WeakValueDictionary()

    def live_events_of(self, row: TaskRow) -> LiveEvents:
        """Returns the live events of a task, which its runner or follower holds so that no event is missed."""
        key = (row.tenant, row.id)
        tail = self._by_task.get(key)
        if tail is None:
            tail = self._by_task[key] = LiveEvents()
        return tail

    def find(self, tenant: str, task_id: str) -> LiveEvents | None:
        """Returns the live events of a task that has a runner or follower here, else None."""
        return self._by_task.get((tenant, task_id))

    def wake_all(self) -> None:
        """Wakes the followers of all tasks, without a change."""
        for tail in list(self._by_task.values()):
            tail.wake()

    def awaited_rows(self) -> Iterator[TaskRow]:
        """Yields the rows, as known here, of tasks with waiters."""
        for tail in list(self._by_task.values()):
            if (row := tail.awaited_row) is not None:
                yield row

    def __len__(self) -> int:
        return len(self._by_task)
