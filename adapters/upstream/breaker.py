"""A breaker per server or agent: who can't be reached is left alone for a while, then tried by one call before all others."""

from collections.abc import Callable, Hashable
from typing import Final

from adapters.contract import Failure, UpstreamFault

FAULTS_MAX: Final = 5  # in a row
PAUSE_SECONDS: Final = 2.5
PAUSE_MAX_SECONDS: Final = 10.0  # what is back again is called again after as long at most
SERVERS_KEPT: Final = 4096
OPEN: Final = "The server could not be reached several times; it is tried again soon"


class LeftAlone(UpstreamFault):
    """The server could not be reached several times, so nothing is sent to it for a while."""

    retryable = True
    unsent = True
    failure = Failure.UNREACHABLE
    undone = True

    def __init__(self, public: str, detail: str, retry_after: float) -> None:
        super().__init__(public, detail)
        self.retry_after = retry_after


class Trouble:
    """Of one that had faults since it last answered. Times are on the breaker's clock."""

    __slots__ = ("faults", "pause", "since", "trying", "until")

    def __init__(self) -> None:
        self.faults = 0
        self.since = 0.0  # when it was first left alone
        self.until = 0.0  # nobody is let through before
        self.pause = PAUSE_SECONDS
        self.trying = False

    @property
    def open(self) -> bool:
        return self.faults >= FAULTS_MAX


class Breaker:
    """Knows only servers that had faults since they last answered: for all others `troubled` is empty, and nothing need be asked."""

    def __init__(self, clock: Callable[[], float], says: str = OPEN) -> None:
        self._clock = clock
        self._says = says
        self.troubled: dict[Hashable, Trouble] = {}

    def shuts_out(self, server: Hashable) -> bool:
        """Whether nobody is let through to it now."""
        trouble = self.troubled.get(server)
        return trouble is not None and trouble.open and (trouble.trying or self._clock() < trouble.until)

    def enter(self, server: Hashable) -> None:
        """Raises LeftAlone where the server is left alone. Whoever enters calls `well`, `fault` or `undecided` afterwards."""
        trouble = self.troubled.get(server)
        if trouble is None or not trouble.open:
            return
        if self.shuts_out(server):
            raise LeftAlone(self._says, f"{trouble.faults} faults in a row", max(1.0, trouble.until - self._clock()))
        trouble.trying = True

    def well(self, server: Hashable) -> None:
        """It answered, whatever it said."""
        self.troubled.pop(server, None)

    def fault(self, server: Hashable) -> None:
        """It could not be reached, or its answer broke off."""
        if server not in self.troubled and len(self.troubled) >= SERVERS_KEPT:
            self.troubled.clear()
        trouble = self.troubled.setdefault(server, Trouble())
        trouble.faults += 1
        if trouble.trying:
            trouble.pause = min(PAUSE_MAX_SECONDS, 2 * trouble.pause)
        if trouble.open:
            trouble.since = trouble.since or self._clock()
            trouble.until = self._clock() + trouble.pause
        trouble.trying = False

    def undecided(self, server: Hashable) -> None:
        """The call ended for another reason, such as that its client went away."""
        trouble = self.troubled.get(server)
        if trouble is not None:
            trouble.trying = False
