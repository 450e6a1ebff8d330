"""How many streams one person may have open at a time, through all servers and agents, and how many all may have together."""

import weakref
from collections.abc import Callable
from typing import TypeVar

from gateway.calls.limits.open_files import STREAMS_MAX
from gateway.fair_shares import Capacity

S = TypeVar("S")
PER_PERSON = 2_500


class TooManyStreams(Exception):
    """The person has as many streams open as one may, or as their share allows."""


class Place:
    """One stream's: free again when nobody holds it any more, so that none is lost with a stream that never began."""

    __slots__ = ("__weakref__", "_free")

    def __init__(self, free: Callable[[], None]) -> None:
        self._free = free

    def __del__(self) -> None:
        self._free()

    def during(self, stream: S) -> S:
        """Holds the place as long as `stream` is there."""
        weakref.finalize(stream, _nothing, self).atexit = False
        return stream


class Places:
    """Counted by the owner key of the person, whoever acts for them. `most` is per person, `all` of everybody, in fair shares."""

    def __init__(self, most: int = PER_PERSON, all: int = STREAMS_MAX) -> None:
        self._most = most
        self._capacity = Capacity(all)

    def take(self, owner: str) -> Place:
        """Before anything is begun that is to be watched. Raises TooManyStreams."""
        portion = self._capacity.portion(owner)
        if portion.person.count >= self._most or portion.binding() is not None:
            raise TooManyStreams
        portion.take()
        return Place(portion.free)

    def taken(self, owner: str) -> int:
        return self._capacity.portion(owner).person.count

    async def sweep(self) -> None:
        """Forgets people without a stream."""
        self._capacity.sweep()

    @property
    def open(self) -> int:
        """Of everybody."""
        return self._capacity.whole.count


def _nothing(_place: Place) -> None:
    """The place goes with its last holder."""
