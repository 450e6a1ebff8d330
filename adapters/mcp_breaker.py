"""A breaker per server: who can't be reached is left alone for a while, then tried by one call before all others."""

from collections.abc import Callable, Hashable
from typing import Final

from adapters.contract import UpstreamFault

FAULTS_MAX: Final = 5  # in a row
PAUSE_SECONDS: Final = 5.0
PAUSE_MAX_SECONDS: Final = 60.0
SERVERS_KEPT: Final = 4096
OPEN: Final = "The server could not be reached several times; it is tried again soon"


class _Trouble:
    __slots__ = ("faults", "pause", "trying", "until")

    def __init__(self) -> None:
        self.faults = 0
        self.until = 0.0  # on the clock; nobody is let through before
        self.pause = PAUSE_SECONDS
        self.trying = False


class Breaker:
    """Knows only servers that had faults since they last answered: for all others `troubled` is empty, and nothing need be asked."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.troubled: dict[Hashable, _Trouble] = {}

    def enter(self, server: Hashable) -> None:
        """Raises UpstreamFault where the server is left alone. Whoever enters calls `well`, `fault` or `undecided` afterwards."""
        trouble = self.troubled.get(server)
        if trouble is None or trouble.faults < FAULTS_MAX:
            return
        if trouble.trying or self._clock() < trouble.until:
            raise UpstreamFault(OPEN, f"{trouble.faults} faults in a row")
        trouble.trying = True

    def well(self, server: Hashable) -> None:
        """It answered, whatever it said."""
        self.troubled.pop(server, None)

    def fault(self, server: Hashable) -> None:
        """It could not be reached, or its answer broke off."""
        if server not in self.troubled and len(self.troubled) >= SERVERS_KEPT:
            self.troubled.clear()
        trouble = self.troubled.setdefault(server, _Trouble())
        trouble.faults += 1
        if trouble.trying:
            trouble.pause = min(PAUSE_MAX_SECONDS, 2 * trouble.pause)
        if trouble.faults >= FAULTS_MAX:
            trouble.until = self._clock() + trouble.pause
        trouble.trying = False

    def undecided(self, server: Hashable) -> None:
        """The call ended for another reason, such as that its client went away."""
        trouble = self.troubled.get(server)
        if trouble is not None:
            trouble.trying = False
