"""Keeps what a turn comes to while it goes on: one commit at a time, each with all that came during the one before."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Generic, TypeVar

T = TypeVar("T")


class Showing(Generic[T]):
    """Keeps one turn. `keep` keeps all that waits, as far as it can now; it returns what somebody else made of the task, else None.

    In that case the turn, which runs in the task that constructed this, is cancelled, and `over` is what `keep` returned. `rest` says for
    how many seconds to wait between two commits.
    """

    def __init__(self, keep: Callable[[], Awaitable[T | None]], rest: Callable[[], float] = lambda: 0.0) -> None:
        self.over: T | None = None
        self._keep = keep
        self._rest = rest
        self._waiting = False  # whether anything came since the last commit began
        self._keeping: asyncio.Task[None] | None = None
        self._turn = asyncio.current_task()
        self._settling = asyncio.Event()

    def show(self) -> None:
        """Keeps what waits, at once or after what is being kept."""
        self._waiting = True
        if self._keeping is None:
            self._keeping = asyncio.create_task(self._catch_up())

    async def settled(self) -> T | None:
        """Waits until nothing is being kept any more; returns what somebody else made of the task, where somebody did."""
        self._turn, self._waiting = None, False
        self._settling.set()
        if self._keeping is not None:
            await self._keeping
        return self.over

    def overtaken(self) -> bool:
        """Whether a CancelledError came from here; if so, it is dealt with."""
        if self.over is None or self._turn is None:
            return False
        self._turn.uncancel()
        return True

    async def _catch_up(self) -> None:
        try:
            while self._waiting:
                self._waiting = False
                self.over = await self._keep()
                if self.over is not None:
                    if self._turn is not None:
                        self._turn.cancel()
                    return
                if (seconds := self._rest()) > 0:
                    await self._rested(seconds)
        finally:
            self._keeping = None

    async def _rested(self, seconds: float) -> None:
        """Waits so long, or until the turn ends."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._settling.wait()
