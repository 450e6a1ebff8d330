"""An outage in the log: its first failure, a count now and then, and its end, however often something is tried meanwhile."""

import threading
import time
from collections.abc import Callable

LOG_SECONDS = 60.0


class Outage:
    """Counts failures of one thing, from any thread. `now` counts seconds."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._failing_since: float | None = None
        self._logged_at = 0.0
        self._unlogged = 0

    def record_failure(self) -> int | None:
        """How many failures were left out since the last line, where this one is to be logged; else None."""
        with self._lock:
            if self._failing_since is not None and self._now() - self._logged_at < LOG_SECONDS:
                self._unlogged += 1
                return None
            self._logged_at = self._now()
            self._failing_since = self._logged_at if self._failing_since is None else self._failing_since
            left_out, self._unlogged = self._unlogged, 0
            return left_out

    def record_success(self) -> float | None:
        """Called after each success: for how many seconds it had failed, where it had; else None."""
        if self._failing_since is None:
            return None
        with self._lock:
            began, self._failing_since, self._unlogged = self._failing_since, None, 0
            return None if began is None else self._now() - began
