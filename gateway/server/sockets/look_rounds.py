"""Looks at each open connection now and then, by one timer for all."""

import asyncio
from functools import partial
from typing import Final, Protocol

PARTS: Final = 8  # of a round


class Watched(Protocol):
    """A connection that is looked at."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop: ...

    def look(self) -> None: ...


class LookRounds:
    """Looks at each connection once in a round, at a part of them at a time. A timer for each would take 1 kB."""

    def __init__(self, seconds: float) -> None:
        """`seconds`: how long a round takes."""
        self._pause = seconds / PARTS
        self._parts: list[set[Watched]] = [set() for _ in range(PARTS)]
        self._last = 0  # the part that was looked at last, so that its turn comes again in a whole round
        self._timer: asyncio.TimerHandle | None = None
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, connection: Watched) -> None:
        """Adds a new connection, which is looked at in a whole round for the first time."""
        self._parts[self._last].add(connection)
        self._count += 1
        if self._timer is None:
            self._plan_next(connection.loop)

    def discard(self, connection: Watched) -> None:
        """Removes a connection. Without any the timer ends."""
        for part in self._parts:
            if connection in part:
                part.discard(connection)
                self._count -= 1
        if not self._count and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _plan_next(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = loop.call_later(self._pause, partial(self._look_at_next, loop))

    def _look_at_next(self, loop: asyncio.AbstractEventLoop) -> None:
        self._plan_next(loop)
        self._last = (self._last + 1) % PARTS
        for connection in tuple(self._parts[self._last]):
            connection.look()
