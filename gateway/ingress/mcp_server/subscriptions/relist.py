"""Lists a server's offerings again after it reports a change: soon, at a limited rate, and once at a time for each server."""

import asyncio
import time
from collections.abc import Awaitable, Callable

import structlog

from policies.cache import BoundedCache

SETTLE_SECONDS = 0.3  # changes within this time cause one listing
RELIST_PAUSE_SECONDS = 2.0  # between two listings of a server that keeps reporting changes; doubles each time
RELIST_PAUSE_MAX = 60.0  # the periodic check lists the server by then anyway
CONCURRENT_MAX = 8  # listings at the same time in one process
RECENT_MAX = 10_000
ServerKey = tuple[str, str]  # tenant, name
log = structlog.get_logger()


class Relister:
    """Schedules listings. `relist` lists one server and stores the result. `clock` returns seconds."""

    def __init__(self, relist: Callable[[ServerKey], Awaitable[None]], clock: Callable[[], float] = time.monotonic) -> None:
        self._relist = relist
        self._changed: set[ServerKey] = set()
        self._follow_tasks: dict[ServerKey, asyncio.Task[None]] = {}
        self._relist_tasks: dict[ServerKey, asyncio.Task[None]] = {}
        self._recently_relisted: BoundedCache[ServerKey, bool] = BoundedCache(RECENT_MAX, clock)
        self._concurrency = asyncio.Semaphore(CONCURRENT_MAX)

    def relist_soon(self, tenant: str, name: str) -> None:
        """Schedules a listing after a server reported a change."""
        key = (tenant, name)
        self._changed.add(key)
        if key not in self._follow_tasks:
            task = self._follow_tasks[key] = asyncio.create_task(self._relist_while_changed(key))
            task.add_done_callback(lambda _: self._follow_tasks.pop(key, None))

    async def relist_now(self, tenant: str, name: str) -> None:
        """Lists the server, or waits for a listing in progress. Does nothing when the last one was less than RELIST_PAUSE_SECONDS ago."""
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
            except Exception as error:  # noqa: BLE001 (a task's root: the periodic check lists the server again)
                log.warning("server_relist_failed", server=key[1], tenant=key[0], error=type(error).__name__)
        self._recently_relisted.put(key, True, RELIST_PAUSE_SECONDS)
