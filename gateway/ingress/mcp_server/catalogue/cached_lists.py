"""Caches encoded lists for each caller until the registry, the policies, the grants or the kills change."""

import asyncio
import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from weakref import WeakValueDictionary

from msgspec import Raw

from gateway.calls.limits.slices import Slices

LISTS_MAX = 2048  # lists; each holds references to definitions that all lists share
Generations = tuple[int, int, int]  # of the registry, of policies and grants, of kills
EncodedDefinitions = Sequence[Raw]
ListKey = tuple[str, str, str]  # kind, path and caller
MakeEntries = Callable[[], Iterable[Raw | None]]  # None for each candidate that the caller may not use


@dataclass(slots=True)
class _CachedList:
    generations: Generations | None
    definitions: EncodedDefinitions
    digest: str = ""  # empty until a listener needs it


class CachedLists:
    """Lists by kind, path and caller. `generations` changes whenever a list may change; None means that no cached list may be used."""

    def __init__(self, generations: Callable[[], Generations | None]) -> None:
        self._generations = generations
        self._lists: dict[ListKey, _CachedList] = {}
        self._locks: WeakValueDictionary[ListKey, asyncio.Lock] = WeakValueDictionary()

    async def find_or_make(self, key: ListKey, entries: MakeEntries) -> EncodedDefinitions:
        """Returns an encoded list, and makes it in slices when it is not cached."""
        return (self._find(key) or await self._make_once(key, entries)).definitions

    async def digest(self, key: ListKey, entries: MakeEntries) -> str:
        """Returns the SHA-256 of the list, which all listeners with the same view share."""
        found = self._find(key) or await self._make_once(key, entries)
        if not found.digest:
            async with self._lock(key):
                found.digest = found.digest or await _compute_digest(found.definitions)
        return found.digest

    def _find(self, key: ListKey) -> _CachedList | None:
        cached, generations = self._lists.get(key), self._generations()
        if cached is None or generations is None or cached.generations != generations:
            return None
        self._lists[key] = self._lists.pop(key)  # the least recently used list is first
        return cached

    async def _make_once(self, key: ListKey, entries: MakeEntries) -> _CachedList:
        """Makes the list, or waits until another request has made it."""
        async with self._lock(key):
            found = self._find(key)
            if found is not None:
                return found
            generations = self._generations()  # before the list is made: a change in the meantime makes it outdated
            made = _CachedList(generations, [entry async for entry in Slices(entries()) if entry is not None])
            self._lists.pop(key, None)
            if generations is not None:
                if len(self._lists) >= LISTS_MAX:
                    del self._lists[next(iter(self._lists))]
                self._lists[key] = made
            return made

    def _lock(self, key: ListKey) -> asyncio.Lock:
        return self._locks.setdefault(key, asyncio.Lock())


async def _compute_digest(definitions: EncodedDefinitions) -> str:
    digest = hashlib.sha256()
    async for definition in Slices(definitions):
        digest.update(definition)
    return digest.hexdigest()
