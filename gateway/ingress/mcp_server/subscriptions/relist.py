"""Looks at what servers offer when they say that it changed: soon, not too often, and one look at a time for each."""

import asyncio
import time
from collections.abc import Awaitable, Callable

import structlog

from policies.cache import BoundedCache

SETTLE_SECONDS = 0.3  # several changes at once are looked at as one
AGAIN_SECONDS = 2.0  # between two looks at a server that goes on saying so; twice as long each time
AGAIN_MAX = 60.0  # by then it is looked at anyway
AT_ONCE = 8  # looks of one process
KEPT = 10_000
Key = tuple[str, str]  # tenant, name
log = structlog.get_logger()


class Relisting:
    """`look` looks at one server, and writes down what is found. `clock` counts seconds."""

    def __init__(self, look: Callable[[Key], Awaitable[None]], clock: Callable[[], float] = time.monotonic) -> None:
        self._look = look
        self._said: set[Key] = set()
        self._following: dict[Key, asyncio.Task[None]] = {}
        self._looking: dict[Key, asyncio.Task[None]] = {}
        self._looked: BoundedCache[Key, bool] = BoundedCache(KEPT, clock)
        self._places = asyncio.Semaphore(AT_ONCE)

    def soon(self, tenant: str, name: str) -> None:
        """A server said that what it offers has changed."""
        key = (tenant, name)
        self._said.add(key)
        if key not in self._following:
            task = self._following[key] = asyncio.create_task(self._follow(key))
            task.add_done_callback(lambda _: self._following.pop(key, None))

    async def now(self, tenant: str, name: str) -> None:
        """Looks, together with whoever else waits for it, unless somebody looked just now."""
        key = (tenant, name)
        if key in self._looking or not self._looked.get(key):
            await asyncio.shield(self._begun(key))

    async def close(self) -> None:
        tasks = [*self._following.values(), *self._looking.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _follow(self, key: Key) -> None:
        pause = SETTLE_SECONDS
        while True:
            await asyncio.sleep(pause)
            if key not in self._said:
                return
            self._said.discard(key)
            await self._begun(key)
            pause = max(AGAIN_SECONDS, min(2 * pause, AGAIN_MAX))

    def _begun(self, key: Key) -> "asyncio.Task[None]":
        task = self._looking.get(key)
        if task is None:
            task = self._looking[key] = asyncio.create_task(self._one(key))
            task.add_done_callback(lambda _: self._looking.pop(key, None))
        return task

    async def _one(self, key: Key) -> None:
        async with self._places:
            try:
                await self._look(key)
            except Exception as error:  # noqa: BLE001 (a task's root: a look every minute makes up for it)
                log.warning("server_not_looked_at", server=key[1], tenant=key[0], error=type(error).__name__)
        self._looked.put(key, True, AGAIN_SECONDS)
