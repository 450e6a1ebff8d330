"""Iterates long lists in slices, so that other requests run in between."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Protocol, TypeVar
from weakref import WeakKeyDictionary

T = TypeVar("T")
SLICE = 200  # items of all lists together in one iteration of the event loop, as far as SLICE_SECONDS allow
PAUSE_SECONDS = 0.001  # at most, while the database writer works: under many writes, lists still go on
SLICE_SECONDS = 0.00015  # after which an iteration begins no further item: a call beside it takes about ten iterations


class Slices(AsyncIterator[T]):
    """Iterates `items`. All requests together get SLICE items, or SLICE_SECONDS, for each iteration of the event loop, and take turns."""

    def __init__(self, items: Iterable[T]) -> None:
        self._items = iter(items)
        self._quota = _current_quota()

    async def __anext__(self) -> T:
        if not self._quota.take():
            await self._quota.wait()
        for item in self._items:
            return item
        raise StopAsyncIteration

    async def next_slice(self, length: int) -> list[T]:
        """Returns the next items, at most `length`, as many as this iteration of the event loop has time for; none after the last one.

        A long list costs less this way than item by item.
        """
        quota, taken = self._quota, list[T]()
        if not quota.take():
            await quota.wait()
        for item in self._items:
            taken.append(item)
            if len(taken) >= length or not quota.take():
                break
        return taken


class Commits(Protocol):
    """The database writer, as far as lists give way to it (gateway/storage/writer.py)."""

    def call_after_commit(self, callback: Callable[[], object]) -> bool:
        """Calls `callback` after the commit under way, when its callers were woken. Returns False, without a call, if there is none."""
        ...


def give_way_to(commits: Commits) -> None:
    """Lets the lists of the running event loop wait for each commit under way, for PAUSE_SECONDS at most.

    An event loop that never rests takes the core and the interpreter's lock from the writer's thread, which needs them several times
    for each commit.
    """
    _quotas[asyncio.get_running_loop()] = _IterationQuota(commits)


class _IterationQuota:
    """The items that are left in the current iteration of one event loop, and the lists that wait for a later one."""

    def __init__(self, commits: Commits | None = None) -> None:
        self._commits = commits
        self._pause: asyncio.TimerHandle | None = None  # ends the wait for a commit
        self._left = SLICE
        self._ends = 0.0  # when the iteration's time is over; set by its first item
        self._is_renewal_scheduled = False
        self._waiting: deque[asyncio.Future[None]] = deque()

    def take(self) -> bool:
        """Takes one item of this iteration. Returns False if the list has to wait for its turn."""
        if self._waiting or not self._left:
            return False
        now = time.perf_counter()
        if not self._is_renewal_scheduled:
            self._ends = now + SLICE_SECONDS
        elif now > self._ends:
            self._left = 0
            return False
        self._left -= 1
        self._schedule_renewal()
        return True

    async def wait(self) -> None:
        """Waits for a turn and takes one item."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        self._schedule_renewal()
        await turn
        self._left = max(0, self._left - 1)

    def _schedule_renewal(self) -> None:
        if not self._is_renewal_scheduled:
            self._is_renewal_scheduled = True
            asyncio.get_running_loop().call_soon(self._renew)

    def _renew(self) -> None:
        """Begins the next quota: now, or after the commit under way."""
        if self._waiting and self._commits is not None and self._commits.call_after_commit(self._end_pause):
            self._pause = asyncio.get_running_loop().call_later(PAUSE_SECONDS, self._end_pause)
        else:
            self._begin()

    def _end_pause(self) -> None:
        """Begins the next quota at the end of the commit or of PAUSE_SECONDS, whichever comes first."""
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
            self._begin()

    def _begin(self) -> None:
        """Begins a quota, and gives it to the list that has waited longest."""
        self._is_renewal_scheduled = False
        self._left, self._ends = SLICE, time.perf_counter() + SLICE_SECONDS
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():  # a canceled request no longer waits
                turn.set_result(None)
                self._schedule_renewal()
                return


_quotas: "WeakKeyDictionary[asyncio.AbstractEventLoop, _IterationQuota]" = WeakKeyDictionary()


def _current_quota() -> _IterationQuota:
    loop = asyncio.get_running_loop()
    quota = _quotas.get(loop)
    if quota is None:
        quota = _quotas[loop] = _IterationQuota()
    return quota
