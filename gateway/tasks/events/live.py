"""Tails: the latest events of tasks that run or are followed here, handed on as they are kept, without a question to the database."""

import asyncio
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Generic, Protocol, TypeVar
from weakref import WeakValueDictionary

EVENTS_MAX = 64  # of one task, beside those of the last commit; a follower that is further behind asks the database
BODIES_SIZE_MAX = 1 << 20  # characters of their bodies


class LogEntry(Protocol):
    """An entry of a task's log."""

    @property
    def seq(self) -> int: ...
    @property
    def body(self) -> str: ...


class TaskPosition(Protocol):
    """Where a task stands."""

    @property
    def tenant(self) -> str: ...
    @property
    def id(self) -> str: ...
    @property
    def last_seq(self) -> int: ...


R = TypeVar("R", bound=TaskPosition)
E = TypeVar("E", bound=LogEntry)


class LiveEvents(Generic[R, E]):
    """What this process knows of one task: where it stands (None: unknown), and without a gap the events that led there."""

    __slots__ = ("__weakref__", "_events", "_row", "_size", "_waiters", "has_agent_task")

    def __init__(self) -> None:
        self._row: R | None = None
        self._events: deque[E] = deque()
        self._size = 0  # characters of their bodies
        self._waiters: set[asyncio.Future[None]] = set()
        self.has_agent_task = False  # whether the agent is known to have begun a task of its own for this one

    def events_after(self, seq: int) -> tuple[R, tuple[E, ...]] | None:
        """Where the task stands, and its events after number `seq`; None when that has to be asked for."""
        if self._row is None or seq < self._row.last_seq - len(self._events):
            return None
        count = max(0, self._row.last_seq - seq)
        return self._row, tuple(reversed(tuple(islice(reversed(self._events), count))))

    def update(self, row: R, events: Sequence[E]) -> None:
        """What was kept or read: where the task stands, and the events up to there, from whichever number on."""
        known = self._row.last_seq if self._row is not None else 0
        if row.last_seq < known or (row.last_seq == known and self._row is not None):
            return
        fresh = [event for event in events if event.seq > known]
        if self._row is None or len(fresh) != row.last_seq - known:
            self._clear()
        self._events += fresh
        self._size += sum(len(event.body) for event in fresh)
        self._row = row
        self._trim(max(EVENTS_MAX, len(fresh)))
        self._wake()

    def invalidate(self) -> None:
        """The task moved, and nobody said how."""
        self._row = None
        self._clear()
        self._wake()

    def note_agent_task(self) -> None:
        """The agent has begun a task of its own, so its answer is no Message alone."""
        self.has_agent_task = True
        self._wake()

    async def wait(self) -> None:
        """Until more is known than at the moment of the call."""
        signal = asyncio.get_running_loop().create_future()
        self._waiters.add(signal)
        try:
            await signal
        finally:
            self._waiters.discard(signal)

    @property
    def awaited_row(self) -> R | None:
        """Where those who wait believe that the task stands."""
        return self._row if self._waiters else None

    @property
    def waiter_count(self) -> int:
        """How many wait."""
        return len(self._waiters)

    def is_up_to(self, seq: int) -> bool:
        """Whether nothing is known to come after number `seq`."""
        return self._row is not None and self._row.last_seq <= seq

    def _clear(self) -> None:
        self._events.clear()
        self._size = 0

    def _trim(self, count: int) -> None:
        """Drops the oldest events, so that at most `count` are held, and SIZE_MAX characters."""
        while len(self._events) > count or self._size > BODIES_SIZE_MAX:
            self._size -= len(self._events.popleft().body)

    def _wake(self) -> None:
        waiting, self._waiters = self._waiters, set()
        for signal in waiting:
            if not signal.done():
                signal.set_result(None)


class LiveEventsByTask(Generic[R, E]):
    """The tails of one process; each lives as long as somebody holds it."""

    def __init__(self) -> None:
        self._by_task: WeakValueDictionary[tuple[str, str], LiveEvents[R, E]] = WeakValueDictionary()

    def live_events_of(self, row: R) -> LiveEvents[R, E]:
        """To be held by whoever runs or follows the task: from now on nothing of it is missed."""
        key = (row.tenant, row.id)
        tail = self._by_task.get(key)
        if tail is None:
            tail = self._by_task[key] = LiveEvents()
        return tail

    def find(self, tenant: str, task_id: str) -> LiveEvents[R, E] | None:
        """The tail of a task that somebody holds."""
        return self._by_task.get((tenant, task_id))

    def awaited_rows(self) -> Iterator[R]:
        """The tasks that somebody waits for, where they are believed to stand."""
        for tail in list(self._by_task.values()):
            if (row := tail.awaited_row) is not None:
                yield row

    def __len__(self) -> int:
        return len(self._by_task)
