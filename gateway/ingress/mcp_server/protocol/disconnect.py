"""Cancels requests whose clients disconnect, as 2026-07-28 demands (Streamable HTTP, Cancellation)."""

import asyncio
from typing import Any

from gateway.concurrency.background import run_in_background
from gateway.ingress.http.asgi import Receive, wait_for_disconnect

POLL_SECONDS = 0.25  # between two polls; a request that ends before the second poll is not watched


class ClientDisconnected(Exception):
    """The client no longer waits for the answer."""


class DisconnectWatcher:
    """Cancels tasks whose clients disconnect. A quick request costs one dictionary entry only."""

    def __init__(self) -> None:
        self._in_flight: dict[asyncio.Task[Any], Receive] = {}
        self._in_flight_at_last_poll: set[asyncio.Task[Any]] = set()
        self._watch_tasks: dict[asyncio.Task[Any], asyncio.Task[None]] = {}
        self._disconnected: set[asyncio.Task[Any]] = set()
        self._is_polling = False

    def watch(self, task: asyncio.Task[Any], receive: Receive) -> None:
        self._in_flight[task] = receive
        if not self._is_polling:
            self._is_polling = True
            asyncio.get_running_loop().call_later(POLL_SECONDS, self._poll)

    def unwatch(self, task: asyncio.Task[Any]) -> None:
        del self._in_flight[task]
        if self._watch_tasks and (watching := self._watch_tasks.pop(task, None)) is not None:
            watching.cancel()

    def has_disconnected(self, task: asyncio.Task[Any] | None) -> bool:
        """Returns on CancelledError whether the client's disconnect caused it, and clears that cancellation."""
        if task is None or task not in self._disconnected:
            return False
        self._disconnected.discard(task)
        return not task.uncancel()

    def _poll(self) -> None:
        for task in self._in_flight_at_last_poll & self._in_flight.keys() - self._watch_tasks.keys():
            self._watch_tasks[task] = run_in_background(self._cancel_on_disconnect(task, self._in_flight[task]), "client_not_watched")
        self._in_flight_at_last_poll = set(self._in_flight)
        self._is_polling = bool(self._in_flight_at_last_poll)
        if self._is_polling:
            asyncio.get_running_loop().call_later(POLL_SECONDS, self._poll)

    async def _cancel_on_disconnect(self, task: asyncio.Task[Any], receive: Receive) -> None:
        await wait_for_disconnect(receive)
        self._disconnected.add(task)
        task.cancel()
