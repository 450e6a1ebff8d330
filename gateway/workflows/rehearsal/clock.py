"""Virtual time: whatever waits is woken in the order of its time, as soon as nothing else can go on."""

import asyncio
import heapq
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

TURNS: Final = 300  # of the event loop in which everything that can go on does: a run takes one for some hundred tasks


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

    @asynccontextmanager
    async def time_limit(self, milliseconds: int) -> AsyncIterator[None]:
        """As asyncio.timeout, in virtual time."""
        task, is_over = asyncio.current_task(), False
        assert task is not None
        cancelling = task.cancelling()

        def expire() -> None:
            nonlocal is_over
            is_over = True
            task.cancel()

        alarm = self.call_after(milliseconds, expire)
        try:
            yield
        except asyncio.CancelledError as error:
            if is_over and task.uncancel() <= cancelling:
                raise TimeoutError from error
            raise
        finally:
            alarm.is_canceled = True

    async def drive(self, work: "asyncio.Future[object]") -> None:
        """Lets time pass until the work is done. Raises Stalled when it waits for something that no time brings."""
        while not work.done():
            was_busy = self._is_busy()
            for _ in range(TURNS):
                await asyncio.sleep(0)
                was_busy = was_busy or self._is_busy()
            if was_busy:  # what has just ended has others go on first
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
