"""How much of what a session says is kept: so that nobody fills the database by what they ask for."""

from collections.abc import Callable

from msgspec import Struct

from gateway.ingress.mcp_server.protocol.sessions import Session
from policies.cache import BoundedCache

SESSION_ROWS, SESSION_BYTES = 4096, 16 << 20
HOLDER_ROWS, HOLDER_BYTES = 16_384, 64 << 20  # of a person, or of an agent that acts for one, in all sessions
SHARES_KEPT = 20_000


class _Share(Struct):
    rows: int = 0
    size: int = 0

    def has_room(self, size: int, rows_max: int, size_max: int) -> bool:
        return self.rows < rows_max and self.size + size <= size_max

    def add(self, size: int) -> None:
        self.rows += 1
        self.size += size


class Allowance:
    """What this process kept in the last `seconds`, at most twice the limits by the change from one such time to the next."""

    def __init__(self, seconds: float, clock: Callable[[], float]) -> None:
        self._seconds = seconds
        self._shares: BoundedCache[str, _Share] = BoundedCache(SHARES_KEPT, clock)

    def take(self, session: Session, size: int) -> bool:
        """Whether there is room for one row of so many bytes, which is then taken."""
        mine, whole = self._share(session.id), self._share(session.holder)
        if not (mine.has_room(size, SESSION_ROWS, SESSION_BYTES) and whole.has_room(size, HOLDER_ROWS, HOLDER_BYTES)):
            return False
        mine.add(size)
        whole.add(size)
        return True

    def _share(self, key: str) -> _Share:
        share = self._shares.get(key)
        if share is None:
            share = _Share()
            self._shares.put(key, share, self._seconds)
        return share
