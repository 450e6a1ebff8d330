"""Requests that are in flight for long. One timer serves them all, since a timer for each costs more than the rest of this."""

import asyncio
from collections.abc import Callable

EARLY_SECONDS = 0.001  # the event loop may call a timer early by less than this


class LongRequests:
    """Calls a function of each request that is still in flight after `seconds`."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._due_at: dict[Callable[[], None], float] = {}  # on the event loop's clock, the earliest first
        self._has_timer = False

    def add(self, act: Callable[[], None]) -> None:
        """Calls `act` after the seconds, unless it is removed before."""
        loop = asyncio.get_running_loop()
        self._due_at[act] = due_at = loop.time() + self._seconds
        if not self._has_timer:
            self._set_timer(loop, due_at)

    def remove(self, act: Callable[[], None]) -> None:
        """Does nothing for a function that was called, or never added."""
        self._due_at.pop(act, None)

    def _set_timer(self, loop: asyncio.AbstractEventLoop, when: float) -> None:
        self._has_timer = True
        loop.call_at(when, self._call_due, loop)

    def _call_due(self, loop: asyncio.AbstractEventLoop) -> None:
        self._has_timer = False
        now = loop.time() + EARLY_SECONDS
        for act, due_at in list(self._due_at.items()):
            if due_at > now:
                self._set_timer(loop, due_at)
                return
            del self._due_at[act]
            loop.call_soon(act)
