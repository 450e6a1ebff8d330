"""Hears from servers that their lists changed, while any client wants to know: one stream for each server, on the gateway's own behalf."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager

import structlog

from adapters.contract import UpstreamFault
from adapters.upstream.targets import EgressRefused
from gateway.background import let_go
from gateway.ingress.mcp_server.subscriptions.relist import Key, Relisting
from registry.cards.card import Registration, Status
from registry.store import Registry, UnknownName

WATCHED_MAX = 500  # servers; the others are looked at every minute like all
SAME_MAX = 100
PATIENCE_SECONDS, PATIENCE_MAX = 1.0, 60.0  # between two tries to listen to a server
Follow = Callable[[Iterable[Registration]], None]
Listen = Callable[[Registration, Callable[[], None]], Awaitable[None]]
log = structlog.get_logger()


class Watching:
    """`listen` listens to one server until it tells nothing of its lists any more, or never did."""

    def __init__(self, registry: Registry, listen: Listen, relisting: Relisting) -> None:
        self._registry = registry
        self._listen = listen
        self._relisting = relisting
        self._wanted: Counter[Key] = Counter()
        self._same: dict[frozenset[Key], frozenset[Key]] = {}  # most who listen follow the same servers
        self._watched: dict[Key, tuple[str, asyncio.Task[None]]] = {}

    @contextmanager
    def following(self) -> Iterator[Follow]:
        """Within it, those that are named last are listened to."""
        mine: frozenset[Key] = frozenset()

        def follow(entries: Iterable[Registration]) -> None:
            nonlocal mine
            before, mine = mine, self._shared(frozenset((entry.tenant, entry.name) for entry in entries))
            if mine is not before:
                self._wanted.update(mine - before)
                self._forget(before - mine)
                self.settle()

        try:
            yield follow
        finally:
            self._forget(mine)
            self.settle()

    async def close(self) -> None:
        ending = [task for _, task in self._watched.values()]
        self._wanted.clear()
        self.settle()
        await asyncio.gather(*ending, return_exceptions=True)

    def settle(self) -> None:
        """Begins and ends streams; a server that moved is another. To be called when any may have."""
        places = {key: entry.url for key in sorted(self._wanted)[:WATCHED_MAX] if (entry := self._entry(key)) is not None}
        for key in [key for key, (url, _) in self._watched.items() if places.get(key) != url]:
            self._watched.pop(key)[1].cancel()
        for key in places.keys() - self._watched.keys():
            self._watched[key] = (places[key], let_go(self._watch(key), "mcp_lists_not_watched", server=key[1], tenant=key[0]))

    def _shared(self, keys: frozenset[Key]) -> frozenset[Key]:
        if len(self._same) >= SAME_MAX:
            self._same.clear()
        return self._same.setdefault(keys, keys)

    def _forget(self, keys: frozenset[Key]) -> None:
        for key in keys & self._wanted.keys():
            self._wanted[key] -= 1
            if self._wanted[key] <= 0:
                del self._wanted[key]

    def _entry(self, key: Key) -> Registration | None:
        try:
            entry = self._registry.find(*key)
        except UnknownName:
            return None
        return entry if entry.status is Status.ACTIVE else None

    async def _watch(self, key: Key) -> None:
        patience = PATIENCE_SECONDS
        while (entry := self._entry(key)) is not None:
            began = asyncio.get_running_loop().time()
            try:
                await self._listen(entry, lambda: self._relisting.soon(*key))
                return  # it has nothing to tell
            except (UpstreamFault, EgressRefused) as error:
                log.info("mcp_lists_not_watched", server=key[1], tenant=key[0], error=type(error).__name__)
            lasted = asyncio.get_running_loop().time() - began
            patience = PATIENCE_SECONDS if lasted > PATIENCE_MAX else min(PATIENCE_MAX, 2 * patience)
            await asyncio.sleep(patience)
            self._relisting.soon(*key)  # what was said meanwhile is lost
