"""Requests that are in flight for long. One timer serves them all, since a timer for each would cost more than all else here."""

import asyncio
from collections.abc import Callable

EARLY_SECONDS = 0.001  # the event loop may call a timer early by less than this


class LongRequests:
    """Calls a function of each request that is still in flight after `seconds`."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._due_at: dict[Callable[[], None], float] = {}  # on the event loop's clock, the earliest first
        self._has_timer = False

    def add(self, callback: Callable[[], None]) -> None:
        """Calls `callback` after the seconds, unless it is removed before."""
        loop = asyncio.get_running_loop()
        self._due_at[callback] = due_at = loop.time() + self._seconds
        if not self._has_timer:
            self._set_timer(loop, due_at)

    def remove(self, callback: Callable[[], None]) -> None:
        """Removes a function, or does nothing for one that was called or never added."""
        self._due_at.pop(callback, None)

    def _set_timer(self, loop: asyncio.AbstractEventLoop, when: float) -> None:
        self._has_timer = True
        loop.call_at(when, self._call_due, loop)

    def _call_due(self, loop: asyncio.AbstractEventLoop) -> None:
        self._has_timer = False
        now = loop.time() + EARLY_SECONDS
        for callback, due_at in list(self._due_at.items()):
            if due_at > now:
                self._set_timer(loop, due_at)
                return
            del self._due_at[callback]
            loop.call_soon(callback)  # by itself, so that its failure keeps no other from being called
