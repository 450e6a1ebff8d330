"""Detects a blocked event loop and logs the stack that blocks it."""

import asyncio
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Final

import structlog

INTERVAL_SECONDS: Final = 0.05  # between two checks
BLOCKED_SECONDS: Final = 0.2
STUCK_SECONDS: Final = 5.0  # a block of that length is logged while it lasts
BLOCKED_BUCKETS: Final = (BLOCKED_SECONDS, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)  # seconds; buckets of the metric
LAG_BUCKETS: Final = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2)  # seconds
FRAMES_MAX: Final = 8

log = structlog.get_logger()


class Watchdog:
    """A thread that checks periodically whether the event loop runs.

    `observe` gets the duration of each block in seconds, `observe_lag` after each other check how long the loop took to respond.
    """

    def __init__(
        self,
        observe: Callable[[float], None],
        clock: Callable[[], float] = time.monotonic,
        observe_lag: Callable[[float], None] = lambda seconds: None,
    ) -> None:
        self._observe = observe
        self._observe_lag = observe_lag
        self._clock = clock
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    async def start(self) -> None:
        """Watches the event loop that this coroutine runs in."""
        watched = (asyncio.get_running_loop(), threading.get_ident())
        self._thread = threading.Thread(target=self._watch, args=watched, name="watchdog", daemon=True)
        self._thread.start()

    async def stop(self) -> None:
        """Stops the thread and waits until it has ended."""
        self._stopping.set()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)

    def _watch(self, loop: asyncio.AbstractEventLoop, thread: int) -> None:
        while not self._stopping.wait(INTERVAL_SECONDS):
            responded = threading.Event()
            asked_at = self._clock()
            try:
                loop.call_soon_threadsafe(responded.set)
            except RuntimeError:  # the loop is closed
                return
            if responded.wait(BLOCKED_SECONDS):
                self._observe_lag(self._clock() - asked_at)
            else:
                self._report(asked_at, responded, describe_stack(sys._current_frames().get(thread)))

    def _report(self, asked_at: float, has_turned: threading.Event, stack: str) -> None:
        """Logs a block when it has ended, and every longer one while it lasts. `stack` was sampled during the block."""
        if not has_turned.wait(STUCK_SECONDS - BLOCKED_SECONDS):
            log.error("event_loop_stuck", seconds=round(self._clock() - asked_at, 1), where=stack)
            while not has_turned.wait(STUCK_SECONDS):
                if self._stopping.is_set():
                    return
        seconds = self._clock() - asked_at
        log.warning("event_loop_blocked", seconds=round(seconds, 2), where=stack)
        self._observe(seconds)


def describe_stack(frame: FrameType | None) -> str:
    """Returns the innermost calls of a stack, as `folder/file.py:line function`, the innermost first."""
    calls: list[str] = []
    while frame is not None and len(calls) < FRAMES_MAX:
        file = "/".join(Path(frame.f_code.co_filename).parts[-2:])
        calls.append(f"{file}:{frame.f_lineno} {frame.f_code.co_name}")
        frame = frame.f_back
    return " < ".join(calls)
