"""Requests of legacy clients in flight, which their clients may cancel."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from gateway.concurrency.background import run_in_background

LIVE_SECONDS = 0.5  # a request in flight for that long is announced to other processes


class CancellableRequest:
    """The request that the current task serves. It has no task of its own, since most requests are never canceled."""

    __slots__ = ("_announcement", "_is_canceled", "_task", "_timer")

    def __init__(self) -> None:
        self._task: asyncio.Task[Any] = asyncio.current_task()  # type: ignore[assignment]  # a request runs in a task
        self._is_canceled = False
        self._timer: asyncio.TimerHandle | None = None
        self._announcement: asyncio.Task[None] | None = None

    def cancel(self) -> None:
        """Cancels the request in the name of its client."""
        if not self._is_canceled:
            self._is_canceled = True
            self._task.cancel()

    def take_cancellation(self) -> bool:
        """Returns whether the client alone has canceled the request, in which case its task goes on."""
        return self._is_canceled and self._task.uncancel() == 0

    def call_if_long(self, announce: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Runs `announce` in the background once the request was in flight for LIVE_SECONDS, since most requests end before."""
        self._timer = asyncio.get_running_loop().call_later(LIVE_SECONDS, self._announce, announce)

    def stop_announcement(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._announcement is not None:
            self._announcement.cancel()

    def _announce(self, announce: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._announcement = run_in_background(announce(), "mcp_cancellation_missed")
