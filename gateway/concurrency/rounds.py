"""Rounds of periodic work that callers ask for beside the clock."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from gateway.concurrency.background import run_in_background


class RequestedRounds:
    """Runs rounds of one kind of work in the background, one after the other. What is asked for during a round has a round after it."""

    def __init__(self, work: Callable[[], Awaitable[object]], event: str, *ignored: type[Exception]) -> None:
        """A failure is logged as `event`, unless it is one of `ignored`, which the next periodic round meets again."""
        self._work = work
        self._event = event
        self._ignored = ignored
        self._is_asked = False
        self._task: asyncio.Task[None] | None = None

    def ask(self) -> None:
        """Has a round begin after now. Returns at once."""
        self._is_asked = True
        if self._task is None or self._task.done():
            self._task = run_in_background(self._run(), self._event)

    async def _run(self) -> None:
        with suppress(*self._ignored):
            while self._is_asked:
                self._is_asked = False
                await self._work()
