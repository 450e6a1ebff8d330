"""Notices when the event loop does not turn, and says what held it up: a request that blocks it blocks everybody's."""

import asyncio
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Final

import structlog

INTERVAL_SECONDS: Final = 0.05  # between two looks
BLOCKED_SECONDS: Final = 0.2
STUCK_SECONDS: Final = 5.0  # after which the log hears of it while it lasts
BLOCKED_BUCKETS: Final = (BLOCKED_SECONDS, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)  # seconds, of the metric
FRAMES_MAX: Final = 8

log = structlog.get_logger()


class Watchdog:
    """A thread that asks the loop for a sign of life again and again. `observe` is told how many seconds each late one took."""

    def __init__(self, observe: Callable[[float], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._observe = observe
        self._clock = clock
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    async def start(self) -> None:
        """Watches the loop that this runs in."""
        watched = (asyncio.get_running_loop(), threading.get_ident())
        self._thread = threading.Thread(target=self._watch, args=watched, name="watchdog", daemon=True)
        self._thread.start()

    async def stop(self) -> None:
        """Returns when the thread has ended."""
        self._stopping.set()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)

    def _watch(self, loop: asyncio.AbstractEventLoop, thread: int) -> None:
        while not self._stopping.wait(INTERVAL_SECONDS):
            turned = threading.Event()
            asked = self._clock()
            try:
                loop.call_soon_threadsafe(turned.set)
            except RuntimeError:  # the loop is closed
                return
            if not turned.wait(BLOCKED_SECONDS):
                self._report(asked, turned, describe_stack(sys._current_frames().get(thread)))

    def _report(self, asked_at: float, has_turned: threading.Event, stack: str) -> None:
        """Waits until the loop turns again. A sample that was taken while it did not shows who holds it up."""
        if not has_turned.wait(STUCK_SECONDS - BLOCKED_SECONDS):
            log.error("event_loop_stuck", seconds=round(self._clock() - asked_at, 1), where=stack)
            while not has_turned.wait(STUCK_SECONDS):
                if self._stopping.is_set():
                    return
        seconds = self._clock() - asked_at
        log.warning("event_loop_blocked", seconds=round(seconds, 2), where=stack)
        self._observe(seconds)


def describe_stack(frame: FrameType | None) -> str:
    """The innermost calls of a stack, as `folder/file.py:line function`, the innermost first."""
    calls: list[str] = []
    while frame is not None and len(calls) < FRAMES_MAX:
        file = "/".join(Path(frame.f_code.co_filename).parts[-2:])
        calls.append(f"{file}:{frame.f_lineno} {frame.f_code.co_name}")
        frame = frame.f_back
    return " < ".join(calls)
