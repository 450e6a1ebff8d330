"""How many streams one person may have open at a time, through all servers and agents, and how many all may have together."""

import weakref
from collections.abc import Callable
from typing import TypeVar

from gateway.calls.limits.open_files import STREAMS_MAX
from gateway.fair_shares import Capacity

S = TypeVar("S")
PER_PERSON_MAX = 2_500


class TooManyStreams(Exception):
    """The person has as many streams open as one may, or as their share allows."""


class StreamSlot:
    """One stream's: free again when nobody holds it any more, so that none is lost with a stream that never began."""

    __slots__ = ("__weakref__", "_release")

    def __init__(self, release: Callable[[], None]) -> None:
        self._release = release

    def __del__(self) -> None:
        self._release()

    def hold_during(self, stream: S) -> S:
        """Holds the place as long as `stream` is there."""
        weakref.finalize(stream, _keep_until_finalized, self).atexit = False
        return stream


class OpenStreams:
    """Counted by the owner key of the person, whoever acts for them. `most` is per person, `all` of everybody, in fair shares."""

    def __init__(self, per_person_max: int = PER_PERSON_MAX, total_max: int = STREAMS_MAX) -> None:
        self._per_person_max = per_person_max
        self._capacity = Capacity(total_max)

    def acquire(self, owner: str) -> StreamSlot:
        """Before anything is begun that is to be watched. Raises TooManyStreams."""
        portion = self._capacity.portion_of(owner)
        if portion.person.count >= self._per_person_max or portion.exhausted_share() is not None:
            raise TooManyStreams
        portion.take()
        return StreamSlot(portion.free)

    def count_of(self, owner: str) -> int:
        return self._capacity.portion_of(owner).person.count

    async def sweep(self) -> None:
        """Forgets people without a stream."""
        self._capacity.sweep()

    @property
    def total_count(self) -> int:
        """Of everybody."""
        return self._capacity.whole.count


def _keep_until_finalized(_place: StreamSlot) -> None:
    """The place goes with its last holder."""
