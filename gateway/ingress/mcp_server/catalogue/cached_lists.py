"""Caches encoded lists for all callers with equal rights until the registry, the policies, the grants or the kills change."""

import asyncio
import hashlib
import sys
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from weakref import WeakValueDictionary

from msgspec import Raw

from gateway.calls.limits.slices import Slices

LISTS_MAX = 2048  # lists; each holds references to definitions that all lists share
Generations = tuple[int, int, int]  # of the registry, of policies and grants, of kills
EncodedDefinitions = Sequence[Raw]
ListKey = tuple[str, str, Hashable]  # kind, path, and the rights of callers
MakeEntries = Callable[[], Iterable[Raw | None]]  # None for each candidate that the caller may not use


@dataclass(slots=True)
class CachedList:
    """The beginning of a list, or all of it. The rest is made when a page needs it."""

    generations: Generations | None
    definitions: list[Raw]
    rest: Slices[Raw | None] | None  # None: `definitions` is the whole list
    digest: str = ""  # empty until a listener needs it

    def has(self, length: int | None) -> bool:
        """Returns whether so many definitions are there, or all of them; None: whether all are."""
        return self.rest is None or (length is not None and len(self.definitions) >= length)

    async def extend(self, length: int | None) -> None:
        """Makes more of the list, until `has` is true."""
        while self.rest is not None and not self.has(length):
            taken = await self.rest.next_slice(sys.maxsize if length is None else length - len(self.definitions))
            if not taken:
                self.rest = None
            self.definitions += [definition for definition in taken if definition is not None]


class CachedLists:
    """Lists by kind, path and rights. `generations` changes whenever a list may change; None means that no cached list may be used."""

    def __init__(self, generations: Callable[[], Generations | None]) -> None:
        self._generations = generations
        self._lists: dict[ListKey, CachedList] = {}
        self._locks: WeakValueDictionary[ListKey, asyncio.Lock] = WeakValueDictionary()

    async def find_or_make(self, key: ListKey, entries: MakeEntries, length: int | None = None) -> EncodedDefinitions:
        """Returns an encoded list with its first `length` definitions at least, or as a whole. Makes what is not cached in slices."""
        found = self._find(key)
        if found is None or not found.has(length):
            found = await self._make_once(key, entries, length)
        return found.definitions

    async def digest(self, key: ListKey, entries: MakeEntries) -> str:
        """Returns the SHA-256 of the list, which all listeners with the same view share."""
        found = self._find(key)
        if found is None or not found.has(None):
            found = await self._make_once(key, entries, None)
        if not found.digest:
            async with self._lock(key):
                found.digest = found.digest or await _compute_digest(found.definitions)
        return found.digest

    def _find(self, key: ListKey) -> CachedList | None:
        cached, generations = self._lists.get(key), self._generations()
        if cached is None or generations is None or cached.generations != generations:
            return None
        self._lists[key] = self._lists.pop(key)  # the least recently used list is first
        return cached

    async def _make_once(self, key: ListKey, entries: MakeEntries, length: int | None) -> CachedList:
        """Makes the list as far as it is needed, or waits until another request has made it."""
        async with self._lock(key):
            made = self._find(key)
            if made is None:
                generations = self._generations()  # before the list is made: a change in the meantime makes it outdated
                made = CachedList(generations, [], Slices(entries()))
            self._lists.pop(key, None)  # a list that fails half-way is made anew
            await made.extend(length)
            if made.generations is not None:
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
