"""Virtual time: whatever waits is woken in the order of its time, as soon as nothing else can go on."""

import asyncio
import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final

TURNS: Final = 20  # of the event loop in which everything that can go on does


@dataclass(order=True, slots=True)
class _Alarm:
    due: int
    number: int
    ring: Callable[[], None] = field(compare=False)
    is_canceled: bool = field(default=False, compare=False)


class VirtualClock:
    """`now` in microseconds since 1970. `is_busy` says whether real work is under way, during which the time stands still."""

    def __init__(self, start: int, is_busy: Callable[[], bool]) -> None:
        self.now = start
        self._is_busy = is_busy
        self._alarms: list[_Alarm] = []
        self._count = 0

    def call_after(self, milliseconds: int, ring: Callable[[], None]) -> _Alarm:
        self._count += 1
        alarm = _Alarm(self.now + milliseconds * 1000, self._count, ring)
        heapq.heappush(self._alarms, alarm)
        return alarm

    async def sleep(self, milliseconds: int) -> None:
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        alarm = self.call_after(milliseconds, lambda: None if woken.done() else woken.set_result(None))
        try:
            await woken
        finally:
            alarm.is_canceled = True

    def time_limit(self, milliseconds: int) -> "TimeLimit":
        return TimeLimit(self, milliseconds)

    async def drive(self, work: "asyncio.Future[object]") -> None:
        """Lets time pass until the work is done. Raises Stalled when it waits for something that no time brings."""
        while not work.done():
            for _ in range(TURNS):
                await asyncio.sleep(0)
            if self._is_busy():
                await asyncio.sleep(0.001)
            elif not work.done() and not self._ring_next():
                raise Stalled

    def _ring_next(self) -> bool:
        while self._alarms:
            alarm = heapq.heappop(self._alarms)
            if not alarm.is_canceled:
                self.now = max(self.now, alarm.due)
                alarm.ring()
                return True
        return False


class Stalled(Exception):
    """The run waits for an event, an answer or a decision that the rehearsal does not give."""


class TimeLimit:
    """As asyncio.timeout, in virtual time."""

    def __init__(self, clock: VirtualClock, milliseconds: int) -> None:
        self._clock = clock
        self._milliseconds = milliseconds
        self._is_over = False

    async def __aenter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._cancelling = task.cancelling()
        self._alarm = self._clock.call_after(self._milliseconds, self._expire)

    def _expire(self) -> None:
        self._is_over = True
        self._task.cancel()

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._alarm.is_canceled = True
        if self._is_over and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error
