"""Writes a turn's events while the turn runs, one commit at a time; each commit takes what came during the one before."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Generic, TypeVar

T = TypeVar("T")


class ProgressWriter(Generic[T]):
    """Writes the progress of one turn.

    `write_pending` writes all pending events and returns None, or the new state if the task was moved otherwise. Such a state is stored
    in `superseding`, and the turn, which runs in the constructing task, is cancelled. `pause_seconds` returns the seconds between two
    commits.
    """

    def __init__(self, write_pending: Callable[[], Awaitable[T | None]], pause_seconds: Callable[[], float] = lambda: 0.0) -> None:
        self.superseding: T | None = None
        self._write_pending = write_pending
        self._pause_seconds = pause_seconds
        self._has_pending = False  # whether events were added since the last commit began
        self._writing: asyncio.Task[None] | None = None
        self._turn_task = asyncio.current_task()
        self._turn_ended = asyncio.Event()

    def write(self) -> None:
        """Writes the pending events, now or after the commit that is running."""
        self._has_pending = True
        if self._writing is None:
            self._writing = asyncio.create_task(self._write_until_caught_up())

    async def flush(self) -> T | None:
        """Waits for the running commit. Returns the superseding state, or None."""
        self._turn_task, self._has_pending = None, False
        self._turn_ended.set()
        if self._writing is not None:
            await self._writing
        return self.superseding

    def was_superseded(self) -> bool:
        """Returns whether this writer caused a CancelledError, and if so, revokes the cancellation."""
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
        """Waits `seconds`, or until the turn ends."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._turn_ended.wait()
