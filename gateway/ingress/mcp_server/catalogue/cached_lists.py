"""Caches encoded lists for each caller until the registry or the policies change."""

import asyncio
from collections.abc import Callable, Iterable, Sequence

from msgspec import Raw

LISTS_MAX = 2048  # lists; each holds references to definitions that all lists share
SLICE = 100  # candidates checked before other requests may run, about 3 ms
Generations = tuple[int, int]
EncodedDefinitions = Sequence[Raw]


class CachedLists:
    """Lists by kind, path and caller."""

    def __init__(self) -> None:
        self._lists: dict[tuple[str, str, str], tuple[Generations, EncodedDefinitions]] = {}

    def find_or_make(
        self, key: tuple[str, str, str], generations: Generations | None, make: Callable[[], EncodedDefinitions]
    ) -> EncodedDefinitions:
        """Returns an encoded list, and makes it when it is not cached for these generations.

        Without generations the list is always made.
        """
        cached = self._lists.pop(key, None)
        if cached is None or cached[0] != generations:
            if len(self._lists) >= LISTS_MAX:
                del self._lists[next(iter(self._lists))]
            cached = (generations or (-1, -1), make())
        self._lists[key] = cached
        return cached[1]

    async def make_in_slices(self, key: tuple[str, str, str], stamp: Generations | None, entries: Iterable[Raw | None]) -> None:
        """Makes a list before `find_or_make` needs it, and lets other requests run after every SLICE of candidates.

        Does nothing for a current list. `entries` yields None for each candidate that the caller may not use.
        """
        cached = self._lists.get(key)
        if stamp is None or (cached is not None and cached[0] == stamp):
            return
        made: list[Raw] = []
        for number, entry in enumerate(entries, start=1):
            if entry is not None:
                made.append(entry)
            if number % SLICE == 0:
                await asyncio.sleep(0)
        self.find_or_make(key, stamp, lambda: made)
