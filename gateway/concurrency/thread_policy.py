"""How the operating system schedules a thread beside the event loop."""

import os
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

LONG_SECONDS: Final = 0.02  # of work, with the wait for its turn, after which a thread waits no longer
PREEMPTING_SECONDS: Final = 10.0  # for which it then interrupts others


class BatchScheduling:
    """The policy of a thread that wakes often and runs for microseconds.

    When it wakes, it waits until the thread that runs on its processor sleeps or has used up its turn (SCHED_BATCH of sched(7)). It
    would otherwise interrupt the event loop, only to wait for the interpreter's lock. Its share of the processor stays the same. While
    the event loop never sleeps, each wait takes milliseconds: then the thread interrupts it again.

    All methods are called in the thread. They do nothing where the system has no such policy, or forbids to change it.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._is_batch = False
        self._preempts_until = 0.0

    def begin(self) -> None:
        """Makes the calling thread wait for its turn when it wakes."""
        self._set_batch(True)

    def adapt(self, seconds: float) -> None:
        """Decides whether the thread waits from now on. `seconds` is how long its last work took, from the request to the end."""
        now = self._clock()
        if seconds > LONG_SECONDS:
            self._preempts_until = now + PREEMPTING_SECONDS
        if (is_batch := now >= self._preempts_until) is not self._is_batch:
            self._set_batch(is_batch)

    def _set_batch(self, is_batch: bool) -> None:
        self._is_batch = is_batch
        if hasattr(os, "SCHED_BATCH"):
            with suppress(OSError):
                os.sched_setscheduler(0, os.SCHED_BATCH if is_batch else os.SCHED_OTHER, os.sched_param(0))
