"""Clients that leave while they wait: with 2026-07-28 that cancels their request (Streamable HTTP, Cancellation)."""

import asyncio
from typing import Any

from gateway.background import let_go
from gateway.ingress.http.asgi import Receive, left

LOOK_SECONDS = 0.25  # between two looks at what is under way; a request that is answered before two of them is not watched at all


class ClientLeft(Exception):
    """Nobody waits for the answer any more."""


class Watch:
    """Cancels tasks whose clients leave. To enter and to leave costs a quick request no more than a place in a table."""

    def __init__(self) -> None:
        self._under_way: dict[asyncio.Task[Any], Receive] = {}
        self._seen: set[asyncio.Task[Any]] = set()
        self._watching: dict[asyncio.Task[Any], asyncio.Task[None]] = {}
        self._gone: set[asyncio.Task[Any]] = set()
        self._looking = False

    def enter(self, task: asyncio.Task[Any], receive: Receive) -> None:
        self._under_way[task] = receive
        if not self._looking:
            self._looking = True
            asyncio.get_running_loop().call_later(LOOK_SECONDS, self._look)

    def leave(self, task: asyncio.Task[Any]) -> None:
        del self._under_way[task]
        if self._watching and (watching := self._watching.pop(task, None)) is not None:
            watching.cancel()

    def has_left(self, task: asyncio.Task[Any] | None) -> bool:
        """On CancelledError: whether it is the client's doing. It is then dealt with."""
        if task is None or task not in self._gone:
            return False
        self._gone.discard(task)
        return not task.uncancel()

    def _look(self) -> None:
        for task in self._seen & self._under_way.keys() - self._watching.keys():
            self._watching[task] = let_go(self._watch(task, self._under_way[task]), "client_not_watched")
        self._seen = set(self._under_way)
        self._looking = bool(self._seen)
        if self._looking:
            asyncio.get_running_loop().call_later(LOOK_SECONDS, self._look)

    async def _watch(self, task: asyncio.Task[Any], receive: Receive) -> None:
        await left(receive)
        self._gone.add(task)
        task.cancel()
