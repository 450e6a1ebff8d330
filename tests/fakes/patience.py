"""A bound on the processor's time, for claims that something does not take for ever; the load of the machine does not count."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def cpu_seconds(limit: float) -> Iterator[None]:
    """Raises AssertionError inside the block once this process has computed for `limit` seconds. Main thread only."""

    def over(*_: Any) -> None:
        raise AssertionError(f"still at it after {limit} s of the processor's time")

    before = signal.signal(signal.SIGVTALRM, over)
    signal.setitimer(signal.ITIMER_VIRTUAL, limit)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
