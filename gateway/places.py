"""How many streams one person may have open at a time, through all doors and agents."""

import weakref
from collections import Counter
from collections.abc import Callable
from typing import TypeVar

S = TypeVar("S")
STREAMS_MAX = 2_500  # of one person


class TooManyStreams(Exception):
    """The person has as many streams open as anybody may."""


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
    """Counted by the owner key of the person, whoever acts for them."""

    def __init__(self, most: int = STREAMS_MAX) -> None:
        self._most = most
        self._taken: Counter[str] = Counter()

    def take(self, owner: str) -> Place:
        """Before anything is begun that is to be watched. Raises TooManyStreams."""
        if self._taken[owner] >= self._most:
            raise TooManyStreams
        self._taken[owner] += 1
        return Place(lambda: self._leave(owner))

    def taken(self, owner: str) -> int:
        return self._taken[owner]

    @property
    def open(self) -> int:
        """Of everybody."""
        return self._taken.total()

    def _leave(self, owner: str) -> None:
        self._taken[owner] -= 1
        if not self._taken[owner]:
            del self._taken[owner]


def _nothing(_place: Place) -> None:
    """The place goes with its last holder."""
