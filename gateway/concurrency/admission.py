"""Admission: how many requests one process starts, by the time that its own work takes.

While an iteration of the event loop is short, every request starts at once. While iterations are long, or the database's writer is far
behind, only some requests start in each iteration, and the others wait in a bounded fair queue. A request that would wait too long is
refused at once. What agents and servers take does not count: the event loop is idle while it waits for them.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from gateway.concurrency.admission_queue import AdmissibleRequest, AdmissionQueue

STARTS_MIN, STARTS_MAX = 4, 64  # requests that start in one iteration, if so many wait
RESERVE_SECONDS: Final = 0.02  # one request of the reserve starts in each such period, however long iterations are
RESERVED_MAX: Final = 64  # requests of the reserve that may wait
WAITING_MIN: Final = 100  # requests that may wait, however slow the process is
QUEUE_SECONDS: Final = 0.25  # the queue is as long as what starts in that time
RATE_SECONDS: Final = 0.25  # over which it is measured how many start
WAIT_SECONDS: Final = 1.5  # a request that has waited for so long is refused
WRITER_SECONDS: Final = 1.0  # nothing starts while a write has waited for so long
HELD_SECONDS: Final = 0.005  # between two looks at the writer while nothing starts
EXPIRY_SECONDS: Final = 0.05  # between two looks for requests that have waited too long
SWEEP_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class AdmissionLimits:
    """`iteration_seconds`: how long an iteration of the event loop may take. `waiting_max`: how many requests may wait."""

    iteration_seconds: float = 0.01
    waiting_max: int = 500


class Timers(Protocol):
    """Calls functions on the event loop: in its next iteration, or later."""

    def soon(self, act: Callable[[], None]) -> object: ...

    def later(self, seconds: float, act: Callable[[], None]) -> object: ...


class LoopTimers:
    """Timers of the running event loop."""

    def soon(self, act: Callable[[], None]) -> object:
        return asyncio.get_running_loop().call_soon(act)

    def later(self, seconds: float, act: Callable[[], None]) -> object:
        return asyncio.get_running_loop().call_later(seconds, act)


class Admission:
    """Decides for each request whether it starts now, waits, or is refused.

    A caller first asks `try_start`. If that returns False, `wait` takes the request into the queue or returns False, and the caller refuses
    it. The reserve is for probes of operators and administration: it has a queue of its own, from which a request starts every
    RESERVE_SECONDS in any case.
    """

    def __init__(
        self,
        limits: AdmissionLimits | None = None,
        writer_wait: Callable[[], float] = lambda: 0.0,
        clock: Callable[[], float] = time.monotonic,
        timers: Timers | None = None,
    ) -> None:
        """`writer_wait` returns for how many seconds the oldest write has waited."""
        self.limits = limits or AdmissionLimits()
        self._writer_wait = writer_wait
        self._clock = clock
        self._timers = timers or LoopTimers()
        self._queue = AdmissionQueue(self.limits.waiting_max)
        self._reserve = AdmissionQueue(RESERVED_MAX)
        self._left = STARTS_MAX  # requests that may still start in this iteration
        self._starts_max = STARTS_MAX  # requests that may start in one iteration
        self._started = 0  # in this iteration
        self._busy_seconds = 0.0  # since the length of the queue was set, while requests waited
        self._busy_starts = 0  # in that time
        self._is_measuring = False
        self._is_held = False  # the writer is behind
        self._measured_at = 0.0
        self._reserve_started_at = 0.0
        self._expired_at = self._swept_at = 0.0
        self.iteration_seconds = 0.0  # what the last measured iteration took

    def try_start(self) -> bool:
        """Returns whether a request may start now."""
        if self._left <= 0:
            return False
        self._left -= 1
        self._started += 1
        if not self._is_measuring:
            self._measure()
        return True

    def can_start(self) -> bool:
        """Returns whether the next request would start now."""
        return self._left > 0

    def has_room(self, owner: str, *, is_reserved: bool = False) -> bool:
        """Returns whether a request of `owner` may wait."""
        if not self._is_measuring:
            self._measure()
        return (self._reserve if is_reserved else self._queue).has_room(owner)

    def wait(self, owner: str, request: AdmissibleRequest, *, is_reserved: bool = False) -> bool:
        """Adds a request to the queue, or to the reserve's. Returns False if the request must be refused."""
        if not self._is_measuring:
            self._measure()
        return (self._reserve if is_reserved else self._queue).add(owner, request, self._clock())

    @property
    def waiting_count(self) -> int:
        """The number of requests that wait."""
        return len(self._queue) + len(self._reserve)

    def _measure(self) -> None:
        self._is_measuring = True
        self._measured_at = self._clock()
        self._timers.soon(self._end_iteration)

    def _end_iteration(self) -> None:
        """Measures the iteration that ends, and starts requests in the next one. Goes on while the process is busy."""
        now = self._clock()
        took, self._measured_at = now - self._measured_at, now
        self.iteration_seconds = took
        if not self._is_held:
            self._adjust(took)
        self._started = 0
        self._is_held = self._writer_wait() > WRITER_SECONDS
        self._left = 0 if self._is_held else self._starts_max
        try:
            self._start_reserved(now)
            self._start_waiting()
            self._expire(now)
        finally:  # a request that fails to start stops no other
            self._plan_next(took)

    def _plan_next(self, took: float) -> None:
        """Measures the next iteration too, unless the process is idle again."""
        if self._is_held:
            self._timers.later(HELD_SECONDS, self._end_iteration)
        elif self.waiting_count or took > self.limits.iteration_seconds / 4:
            self._timers.soon(self._end_iteration)
        else:
            self._is_measuring = False
            self._left = self._starts_max = STARTS_MAX

    def _adjust(self, took: float) -> None:
        """Sets how many requests start in an iteration, so that one takes about `iteration_seconds`, and how many may wait."""
        target = self.limits.iteration_seconds
        if took > target:
            self._starts_max = max(STARTS_MIN, int(min(self._starts_max, max(1, self._started)) * target / took))
        elif self._starts_max < STARTS_MAX:
            self._starts_max = min(STARTS_MAX, self._starts_max + 1 + (self._starts_max // 4 if took < target / 2 else 0))
        if self._queue:
            self._busy_seconds += took
            self._busy_starts += self._started
            if self._busy_seconds >= RATE_SECONDS:
                self._resize_queue()

    def _resize_queue(self) -> None:
        """Makes the queue as long as what started in the last RATE_SECONDS in which requests waited."""
        length = int(QUEUE_SECONDS * self._busy_starts / self._busy_seconds)
        self._queue.resize(min(self.limits.waiting_max, max(WAITING_MIN, length)))
        self._busy_seconds = self._busy_starts = 0

    def _start_reserved(self, now: float) -> None:
        if self._reserve and (self._left > 0 or now - self._reserve_started_at >= RESERVE_SECONDS):
            self._reserve_started_at = now
            self._start_from(self._reserve, max(1, self._left))

    def _start_waiting(self) -> None:
        if self._left > 0:
            self._start_from(self._queue, self._left)
        if self._queue:
            self._left = 0  # requests that arrive now wait behind those that waited before

    def _start_from(self, queue: AdmissionQueue, most: int) -> None:
        """Starts requests of `queue`, but not those of clients that have gone."""
        started = 0
        while started < most and (request := queue.pop()) is not None:
            started += request.start()
        self._left -= started
        self._started += started

    def _expire(self, now: float) -> None:
        if now - self._expired_at < EXPIRY_SECONDS:
            return
        self._expired_at = now
        for queue in (self._queue, self._reserve):
            for request in queue.pop_older(now - WAIT_SECONDS):
                request.refuse()
        if now - self._swept_at >= SWEEP_SECONDS:
            self._swept_at = now
            self._queue.sweep()
            self._reserve.sweep()
