"""A circuit breaker per server or agent: after failures it blocks calls for a while, then lets a single probe through."""

from collections.abc import Callable, Hashable
from typing import Final

from adapters.contract import Failure, UpstreamFault

FAILURES_MAX: Final = 5  # in a row
PAUSE_SECONDS: Final = 2.5
PAUSE_MAX_SECONDS: Final = 10.0  # the maximum delay before an upstream that recovered is called again
SERVERS_MAX: Final = 4096
OPEN_TEXT: Final = "The server was unreachable several times; retry later"


class CircuitOpen(UpstreamFault):
    """The server was unreachable several times, so no calls are sent for a while."""

    retryable = True
    is_unsent = True
    failure = Failure.UNREACHABLE
    had_no_effect = True

    def __init__(self, public: str, detail: str, retry_after: float) -> None:
        super().__init__(public, detail)
        self.retry_after = retry_after


class BreakerState:
    """The state for a server with faults since its last response. Times are on the breaker's clock."""

    __slots__ = ("failures", "is_probing", "open_until", "opened_at", "pause_seconds")

    def __init__(self) -> None:
        self.failures = 0
        self.opened_at = 0.0  # when it first opened
        self.open_until = 0.0  # no call before
        self.pause_seconds = PAUSE_SECONDS
        self.is_probing = False

    @property
    def is_open(self) -> bool:
        return self.failures >= FAILURES_MAX


class Breaker:
    """Circuit breakers. Only servers with faults since their last response are in `states`; without any, no check is needed."""

    def __init__(self, clock: Callable[[], float], open_text: str = OPEN_TEXT) -> None:
        self._clock = clock
        self._open_text = open_text
        self.states: dict[Hashable, BreakerState] = {}

    def is_blocking(self, server: Hashable) -> bool:
        """Whether calls to the server are blocked now."""
        trouble = self.states.get(server)
        return trouble is not None and trouble.is_open and (trouble.is_probing or self._clock() < trouble.open_until)

    def acquire(self, server: Hashable) -> None:
        """Lets a call through, or raises CircuitOpen. The caller then calls `record_success`, `record_failure` or `release`."""
        trouble = self.states.get(server)
        if trouble is None or not trouble.is_open:
            return
        if self.is_blocking(server):
            raise CircuitOpen(self._open_text, f"{trouble.failures} faults in a row", max(1.0, trouble.open_until - self._clock()))
        trouble.is_probing = True

    def record_success(self, server: Hashable) -> None:
        """Closes the breaker: the server responded, with whatever status."""
        self.states.pop(server, None)

    def record_failure(self, server: Hashable) -> None:
        """Counts a failure: the server was unreachable, or its response was cut off."""
        if server not in self.states and len(self.states) >= SERVERS_MAX:
            self.states.clear()
        trouble = self.states.setdefault(server, BreakerState())
        trouble.failures += 1
        if trouble.is_probing:
            trouble.pause_seconds = min(PAUSE_MAX_SECONDS, 2 * trouble.pause_seconds)
        if trouble.is_open:
            trouble.opened_at = trouble.opened_at or self._clock()
            trouble.open_until = self._clock() + trouble.pause_seconds
        trouble.is_probing = False

    def release(self, server: Hashable) -> None:
        """Ends a call without a result, for example because its client disconnected."""
        trouble = self.states.get(server)
        if trouble is not None:
            trouble.is_probing = False
