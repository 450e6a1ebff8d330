"""Looks at what servers offer when they say that it changed: soon, not too often, and one look at a time for each."""

import asyncio
import time
from collections.abc import Awaitable, Callable

import structlog

from policies.cache import BoundedCache

SETTLE_SECONDS = 0.3  # several changes at once are looked at as one
RELIST_PAUSE_SECONDS = 2.0  # between two looks at a server that goes on saying so; twice as long each time
RELIST_PAUSE_MAX = 60.0  # by then it is looked at anyway
CONCURRENT_MAX = 8  # looks of one process
RECENT_MAX = 10_000
ServerKey = tuple[str, str]  # tenant, name
log = structlog.get_logger()


class Relister:
    """`look` looks at one server, and writes down what is found. `clock` counts seconds."""

    def __init__(self, relist: Callable[[ServerKey], Awaitable[None]], clock: Callable[[], float] = time.monotonic) -> None:
        self._relist = relist
        self._changed: set[ServerKey] = set()
        self._follow_tasks: dict[ServerKey, asyncio.Task[None]] = {}
        self._relist_tasks: dict[ServerKey, asyncio.Task[None]] = {}
        self._recently_relisted: BoundedCache[ServerKey, bool] = BoundedCache(RECENT_MAX, clock)
        self._concurrency = asyncio.Semaphore(CONCURRENT_MAX)

    def relist_soon(self, tenant: str, name: str) -> None:
        """A server said that what it offers has changed."""
        key = (tenant, name)
        self._changed.add(key)
        if key not in self._follow_tasks:
            task = self._follow_tasks[key] = asyncio.create_task(self._relist_while_changed(key))
            task.add_done_callback(lambda _: self._follow_tasks.pop(key, None))

    async def relist_now(self, tenant: str, name: str) -> None:
        """Looks, together with whoever else waits for it, unless somebody looked just now."""
        key = (tenant, name)
        if key in self._relist_tasks or not self._recently_relisted.get(key):
            await asyncio.shield(self._start_relist(key))

    async def close(self) -> None:
        tasks = [*self._follow_tasks.values(), *self._relist_tasks.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _relist_while_changed(self, key: ServerKey) -> None:
        pause = SETTLE_SECONDS
        while True:
            await asyncio.sleep(pause)
            if key not in self._changed:
                return
            self._changed.discard(key)
            await self._start_relist(key)
            pause = max(RELIST_PAUSE_SECONDS, min(2 * pause, RELIST_PAUSE_MAX))

    def _start_relist(self, key: ServerKey) -> "asyncio.Task[None]":
        task = self._relist_tasks.get(key)
        if task is None:
            task = self._relist_tasks[key] = asyncio.create_task(self._relist_one(key))
            task.add_done_callback(lambda _: self._relist_tasks.pop(key, None))
        return task

    async def _relist_one(self, key: ServerKey) -> None:
        async with self._concurrency:
            try:
                await self._relist(key)
            except Exception as error:  # noqa: BLE001 (a task's root: a look every minute makes up for it)
                log.warning("server_not_looked_at", server=key[1], tenant=key[0], error=type(error).__name__)
        self._recently_relisted.put(key, True, RELIST_PAUSE_SECONDS)
