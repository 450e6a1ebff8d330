"""Requests of legacy clients in flight, which their clients may cancel."""

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from gateway.concurrency.background import run_in_background
from gateway.ingress.mcp_server.legacy.long_requests import LongRequests

LIVE_SECONDS = 0.5  # a request in flight for that long is announced to other processes


class CancellableRequest:
    """The request that the current task serves. It has no task of its own, since most requests are never canceled."""

    __slots__ = ("_announcement", "_is_canceled", "_stop_waiting", "_task")

    def __init__(self) -> None:
        self._task: asyncio.Task[Any] = asyncio.current_task()  # type: ignore[assignment]  # a request runs in a task
        self._is_canceled = False
        self._stop_waiting: Callable[[], None] = _do_nothing  # until the announcement begins
        self._announcement: asyncio.Task[None] | None = None

    def cancel(self) -> None:
        """Cancels the request in the name of its client."""
        if not self._is_canceled:
            self._is_canceled = True
            self._task.cancel()

    def take_cancellation(self) -> bool:
        """Returns whether the client alone has canceled the request, in which case its task goes on."""
        return self._is_canceled and self._task.uncancel() == 0

    def announce_if_long(self, long_requests: LongRequests, announce: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Runs `announce` in the background once `long_requests` counts the request as long, since most requests end before."""

        def start() -> None:
            self._announcement = run_in_background(announce(), "mcp_cancellation_missed")

        long_requests.add(start)
        self._stop_waiting = partial(long_requests.remove, start)

    def stop_announcement(self) -> None:
        self._stop_waiting()
        if self._announcement is not None:
            self._announcement.cancel()


def _do_nothing() -> None:
    """Does nothing, since the request waits for no announcement."""
