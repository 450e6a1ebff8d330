"""Listens on the gateway's behalf for list changes of servers while clients are subscribed: one stream for each server."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager

import structlog

from adapters.contract import UpstreamFault
from adapters.upstream.targets import EgressRefused
from gateway.concurrency.background import run_in_background
from gateway.ingress.mcp_server.subscriptions.relist import Relister, ServerKey
from registry.cards.card import Registration, RegistrationStatus
from registry.store import Registry, UnknownName

WATCHED_MAX = 500  # servers; the periodic check covers the others
INTERNED_MAX = 100
RETRY_SECONDS, RETRY_MAX_SECONDS = 1.0, 60.0  # between two attempts to listen to a server
WatchServers = Callable[[Iterable[Registration]], None]
ListenToServer = Callable[[Registration, Callable[[], None]], Awaitable[None]]
log = structlog.get_logger()


class UpstreamWatcher:
    """Watches servers.

    `listen` calls its function when a server begins to report list changes, since earlier ones may have been missed, and for each change.
    It returns when the server does not report them, or stops to.
    """

    def __init__(self, registry: Registry, listen: ListenToServer, relister: Relister) -> None:
        self._registry = registry
        self._listen = listen
        self._relister = relister
        self._watch_counts: Counter[ServerKey] = Counter()
        self._interned: dict[frozenset[ServerKey], frozenset[ServerKey]] = {}  # most subscribers watch the same servers
        self._watch_tasks: dict[ServerKey, tuple[str, asyncio.Task[None]]] = {}

    @contextmanager
    def watch_servers(self) -> Iterator[WatchServers]:
        """Within this context, the servers that were passed last are watched."""
        mine: frozenset[ServerKey] = frozenset()

        def follow(entries: Iterable[Registration]) -> None:
            nonlocal mine
            before, mine = mine, self._intern(frozenset((entry.tenant, entry.name) for entry in entries))
            if mine is not before:
                self._watch_counts.update(mine - before)
                self._release(before - mine)
                self.update_streams()

        try:
            yield follow
        finally:
            self._release(mine)
            self.update_streams()

    async def close(self) -> None:
        ending = [task for _, task in self._watch_tasks.values()]
        self._watch_counts.clear()
        self.update_streams()
        await asyncio.gather(*ending, return_exceptions=True)

    def update_streams(self) -> None:
        """Starts and stops streams after registrations have changed. A server with a new URL gets a new stream."""
        places = {key: entry.url for key in sorted(self._watch_counts)[:WATCHED_MAX] if (entry := self._find_active(key)) is not None}
        for key in [key for key, (url, _) in self._watch_tasks.items() if places.get(key) != url]:
            self._watch_tasks.pop(key)[1].cancel()
        for key in places.keys() - self._watch_tasks.keys():
            self._watch_tasks[key] = (
                places[key],
                run_in_background(self._watch_server(key), "mcp_list_watch_failed", server=key[1], tenant=key[0]),
            )

    def _intern(self, keys: frozenset[ServerKey]) -> frozenset[ServerKey]:
        if len(self._interned) >= INTERNED_MAX:
            self._interned.clear()
        return self._interned.setdefault(keys, keys)

    def _release(self, keys: frozenset[ServerKey]) -> None:
        for key in keys & self._watch_counts.keys():
            self._watch_counts[key] -= 1
            if self._watch_counts[key] <= 0:
                del self._watch_counts[key]

    def _find_active(self, key: ServerKey) -> Registration | None:
        try:
            entry = self._registry.find(*key)
        except UnknownName:
            return None
        return entry if entry.status is RegistrationStatus.ACTIVE else None

    async def _watch_server(self, key: ServerKey) -> None:
        patience = RETRY_SECONDS
        while (entry := self._find_active(key)) is not None:
            began = asyncio.get_running_loop().time()
            try:
                await self._listen(entry, lambda: self._relister.relist_soon(*key))
                return  # the server reports no list changes
            except (UpstreamFault, EgressRefused) as error:
                log.info("mcp_list_watch_failed", server=key[1], tenant=key[0], error=type(error).__name__)
            lasted = asyncio.get_running_loop().time() - began
            patience = RETRY_SECONDS if lasted > RETRY_MAX_SECONDS else min(RETRY_MAX_SECONDS, 2 * patience)
            await asyncio.sleep(patience)
