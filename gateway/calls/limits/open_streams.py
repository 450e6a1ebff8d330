"""Bounds the open streams of one user, over all servers and agents, and of all users together."""

import asyncio
import weakref
from collections.abc import Callable
from typing import Any, TypeVar

from gateway.calls.limits.open_files import STREAMS_MAX
from gateway.concurrency.fair_shares import Capacity
from gateway.tasks.turns.in_flight import ShuttingDown

S = TypeVar("S")
PER_PERSON_MAX = 2_500


class TooManyStreams(Exception):
    """The user has as many open streams as the bound or the fair share allows."""


class StreamSlot:
    """Counts one open stream. The slot is freed with its last reference, so a stream that never started frees it too."""

    __slots__ = ("__weakref__", "_release")

    def __init__(self, release: Callable[[], None]) -> None:
        self._release = release

    def __del__(self) -> None:
        self._release()

    def hold_during(self, stream: S) -> S:
        """Keeps the slot until `stream` is garbage-collected, and returns `stream`."""
        weakref.finalize(stream, _keep_until_finalized, self).atexit = False
        return stream


class OpenStreams:
    """Counts open streams by owner key, whichever agent acts. `total_max` bounds all streams, in fair shares."""

    def __init__(self, per_person_max: int = PER_PERSON_MAX, total_max: int = STREAMS_MAX) -> None:
        self._per_person_max = per_person_max
        self._capacity = Capacity(total_max)
        self._endless = weakref.WeakSet[asyncio.Task[Any]]()  # the requests whose answers are streams without an end of their own
        self.is_closed = False

    def acquire(self, owner: str) -> StreamSlot:
        """Takes a slot before the stream starts. Raises TooManyStreams."""
        portion = self._capacity.portion_of(owner)
        if portion.person.count >= self._per_person_max or portion.exhausted_share() is not None:
            raise TooManyStreams
        portion.take()
        return StreamSlot(portion.free)

    def acquire_endless(self, owner: str) -> StreamSlot:
        """Takes a slot for a stream without an end of its own, which is the answer of the current asyncio task.

        Raises TooManyStreams, and ShuttingDown after `close_endless`.
        """
        if self.is_closed:
            raise ShuttingDown
        slot, request = self.acquire(owner), asyncio.current_task()
        if request is None:
            raise RuntimeError("a stream is the answer of a request, which runs in a task")
        self._endless.add(request)
        return slot

    def close_endless(self) -> set[asyncio.Task[Any]]:
        """Refuses further streams without an end of their own, and returns the requests that have one, for the drain to end."""
        self.is_closed = True
        return set(self._endless)

    async def sweep(self) -> None:
        """Deletes the counts of users without an open stream."""
        self._capacity.sweep()

    @property
    def total_count(self) -> int:
        """Returns the number of open streams of all users."""
        return self._capacity.whole.count


def _keep_until_finalized(_place: StreamSlot) -> None:
    """Holds the only reference to the slot until the stream's finalizer runs."""
