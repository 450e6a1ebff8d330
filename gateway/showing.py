"""What a turn has come to is kept while it goes on: one commit at a time, each with all that came during the one before."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Showing(Generic[T]):
    """Of one turn. `keep(kept, new)` returns `new` once it is kept, `kept` while nothing can be, or what somebody else made of it.

    In that last case the turn, which runs in the task that made this, is cancelled: `over` tells why.
    """

    def __init__(self, kept: T, keep: Callable[[T, T], Awaitable[T]]) -> None:
        self.kept = kept
        self.over: T | None = None
        self._keep = keep
        self._latest: T | None = kept
        self._keeping: asyncio.Task[None] | None = None
        self._turn = asyncio.current_task()

    def show(self, new: T) -> None:
        """Keeps `new`, at once or after what is being kept."""
        self._latest = new
        if self._keeping is None:
            self._keeping = asyncio.create_task(self._catch_up())

    async def settled(self) -> T:
        """What is kept, once nothing is being kept any more: what somebody else made of the task, where somebody did."""
        self._turn, self._latest = None, None
        if self._keeping is not None:
            await self._keeping
        return self.kept if self.over is None else self.over

    def overtaken(self) -> bool:
        """To be asked on CancelledError: whether it came from here, in which case it is dealt with."""
        if self.over is None or self._turn is None:
            return False
        self._turn.uncancel()
        return True

    async def _catch_up(self) -> None:
        try:
            while (new := self._latest) is not None and new is not self.kept:
                reached = await self._keep(self.kept, new)
                if reached is self.kept:
                    return  # goes along with the next
                if reached is not new:
                    self.over = reached
                    if self._turn is not None:
                        self._turn.cancel()
                    return
                self.kept = new
        finally:
            self._keeping = None
