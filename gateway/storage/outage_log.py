"""An outage in the log: its first failure, a count now and then, and its end, however often something is tried meanwhile."""

import threading
import time
from collections.abc import Callable

AGAIN_SECONDS = 60.0


class Outage:
    """Counts failures of one thing, from any thread. `now` counts seconds."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._began: float | None = None
        self._told = 0.0
        self._left_out = 0

    def failed(self) -> int | None:
        """How many failures were left out since the last line, where this one is to be logged; else None."""
        with self._lock:
            if self._began is not None and self._now() - self._told < AGAIN_SECONDS:
                self._left_out += 1
                return None
            self._told = self._now()
            self._began = self._told if self._began is None else self._began
            left_out, self._left_out = self._left_out, 0
            return left_out

    def ended(self) -> float | None:
        """Called after each success: for how many seconds it had failed, where it had; else None."""
        if self._began is None:
            return None
        with self._lock:
            began, self._began, self._left_out = self._began, None, 0
            return None if began is None else self._now() - began
