"""Decides which failures of an outage are logged: the first, then one line per minute with a count, and the end."""

import threading
import time
from collections.abc import Callable

LOG_SECONDS = 60.0


class Outage:
    """Counts failures of one resource, from any thread. `now` returns seconds."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._failing_since: float | None = None
        self._logged_at = 0.0
        self._unlogged = 0

    def record_failure(self) -> int | None:
        """Returns None if this failure is not to be logged, else how many failures since the last line were not logged."""
        with self._lock:
            if self._failing_since is not None and self._now() - self._logged_at < LOG_SECONDS:
                self._unlogged += 1
                return None
            self._logged_at = self._now()
            self._failing_since = self._logged_at if self._failing_since is None else self._failing_since
            left_out, self._unlogged = self._unlogged, 0
            return left_out

    def record_success(self) -> float | None:
        """Returns the seconds that an outage lasted if this success ends one, else None."""
        if self._failing_since is None:
            return None
        with self._lock:
            began, self._failing_since, self._unlogged = self._failing_since, None, 0
            return None if began is None else self._now() - began
