"""Keeps what a turn comes to while it goes on: one commit at a time, each with all that came during the one before."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Generic, TypeVar

T = TypeVar("T")


class ProgressWriter(Generic[T]):
    """Keeps one turn. `keep` keeps all that waits, as far as it can now; it returns what somebody else made of the task, else None.

    In that case the turn, which runs in the task that constructed this, is cancelled, and `over` is what `keep` returned. `rest` says for
    how many seconds to wait between two commits.
    """

    def __init__(self, write_pending: Callable[[], Awaitable[T | None]], pause_seconds: Callable[[], float] = lambda: 0.0) -> None:
        self.superseding: T | None = None
        self._write_pending = write_pending
        self._pause_seconds = pause_seconds
        self._has_pending = False  # whether anything came since the last commit began
        self._writing: asyncio.Task[None] | None = None
        self._turn_task = asyncio.current_task()
        self._turn_ended = asyncio.Event()

    def write(self) -> None:
        """Keeps what waits, at once or after what is being kept."""
        self._has_pending = True
        if self._writing is None:
            self._writing = asyncio.create_task(self._write_until_caught_up())

    async def flush(self) -> T | None:
        """Waits until nothing is being kept any more; returns what somebody else made of the task, where somebody did."""
        self._turn_task, self._has_pending = None, False
        self._turn_ended.set()
        if self._writing is not None:
            await self._writing
        return self.superseding

    def was_superseded(self) -> bool:
        """Whether a CancelledError came from here; if so, it is dealt with."""
        if self.superseding is None or self._turn_task is None:
            return False
        self._turn_task.uncancel()
        return True

    async def _write_until_caught_up(self) -> None:
        try:
            while self._has_pending:
                self._has_pending = False
                self.superseding = await self._write_pending()
                if self.superseding is not None:
                    if self._turn_task is not None:
                        self._turn_task.cancel()
                    return
                if (seconds := self._pause_seconds()) > 0:
                    await self._pause(seconds)
        finally:
            self._writing = None

    async def _pause(self, seconds: float) -> None:
        """Waits so long, or until the turn ends."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._turn_ended.wait()
