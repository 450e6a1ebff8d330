"""Time limits of tasks, which run while a process works on them."""

import asyncio
from contextvars import ContextVar
from typing import Final


class TimeLimit:
    """The time limit of a task. It runs from the first effect that the journal lacks: what is replayed had its time before."""

    def __init__(self, timer: asyncio.Timeout, due: int) -> None:
        """`due`: microseconds since 1970."""
        self.due = due
        self._timer = timer
        self._is_armed = False

    def arm(self, now: int) -> None:
        if not self._is_armed:
            self._is_armed = True
            self._timer.reschedule(asyncio.get_running_loop().time() + max(0, self.due - now) / 1_000_000)


LIMITS: Final[ContextVar[tuple[TimeLimit, ...]]] = ContextVar("limits", default=())


async def arm_limits(now: int) -> None:
    """Has the time limits around an effect run. Never returns when one of them is over: its end cancels this effect."""
    limits = LIMITS.get()
    for limit in limits:
        limit.arm(now)
    if any(limit.due <= now for limit in limits):
        await asyncio.Event().wait()
