"""Tails: the latest events of tasks that run or are followed here, handed on as they are kept, without a question to the database."""

import asyncio
from collections.abc import Iterator, Sequence
from typing import Generic, Protocol, TypeVar
from weakref import WeakValueDictionary

EVENTS_MAX = 64  # of one task; whoever is further behind asks the database
SIZE_MAX = 1 << 20  # characters of their bodies


class Entry(Protocol):
    """An entry of a task's log."""

    @property
    def seq(self) -> int: ...
    @property
    def body(self) -> str: ...


class Standing(Protocol):
    """Where a task stands."""

    @property
    def tenant(self) -> str: ...
    @property
    def id(self) -> str: ...
    @property
    def last_seq(self) -> int: ...


R = TypeVar("R", bound=Standing)
E = TypeVar("E", bound=Entry)


class Tail(Generic[R, E]):
    """What this process knows of one task: where it stands (None: unknown), and without a gap the events that led there."""

    __slots__ = ("__weakref__", "_events", "_row", "_waiting")

    def __init__(self) -> None:
        self._row: R | None = None
        self._events: tuple[E, ...] = ()
        self._waiting: set[asyncio.Future[None]] = set()

    def after(self, seq: int) -> tuple[R, tuple[E, ...]] | None:
        """Where the task stands, and its events after number `seq`; None when that has to be asked for."""
        if self._row is None or seq < self._row.last_seq - len(self._events):
            return None
        count = self._row.last_seq - seq
        return self._row, self._events[len(self._events) - count :] if count > 0 else ()

    def learn(self, row: R, events: Sequence[E]) -> None:
        """What was kept or read: where the task stands, and the events up to there, from whichever number on."""
        known = self._row.last_seq if self._row is not None else 0
        if row.last_seq < known or (row.last_seq == known and self._row is not None):
            return
        fresh = tuple(event for event in events if event.seq > known)
        joined = self._events + fresh if self._row is not None and len(fresh) == row.last_seq - known else fresh
        self._row, self._events = row, _bounded(joined)
        self._wake()

    def forget(self) -> None:
        """The task moved, and nobody said how."""
        self._row, self._events = None, ()
        self._wake()

    async def wait(self) -> None:
        """Until more is known than at the moment of the call."""
        signal = asyncio.get_running_loop().create_future()
        self._waiting.add(signal)
        try:
            await signal
        finally:
            self._waiting.discard(signal)

    @property
    def awaited(self) -> R | None:
        """Where those who wait believe that the task stands."""
        return self._row if self._waiting else None

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._waiting)

    def rests_at(self, seq: int) -> bool:
        """Whether nothing is known to come after number `seq`."""
        return self._row is not None and self._row.last_seq <= seq

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, set()
        for signal in waiting:
            if not signal.done():
                signal.set_result(None)


class Tails(Generic[R, E]):
    """The tails of one process; each lives as long as somebody holds it."""

    def __init__(self) -> None:
        self._tails: WeakValueDictionary[tuple[str, str], Tail[R, E]] = WeakValueDictionary()

    def of(self, row: R) -> Tail[R, E]:
        """To be held by whoever runs or follows the task: from now on nothing of it is missed."""
        key = (row.tenant, row.id)
        tail = self._tails.get(key)
        if tail is None:
            tail = self._tails[key] = Tail()
        return tail

    def find(self, tenant: str, task_id: str) -> Tail[R, E] | None:
        """The tail of a task that somebody holds."""
        return self._tails.get((tenant, task_id))

    def awaited(self) -> Iterator[R]:
        """The tasks that somebody waits for, where they are believed to stand."""
        for tail in list(self._tails.values()):
            if (row := tail.awaited) is not None:
                yield row

    def __len__(self) -> int:
        return len(self._tails)


def _bounded(events: tuple[E, ...]) -> tuple[E, ...]:
    """The last of them that may be held."""
    events = events[-EVENTS_MAX:]
    size = sum(len(event.body) for event in events)
    first = 0
    while size > SIZE_MAX:
        size -= len(events[first].body)
        first += 1
    return events[first:]
