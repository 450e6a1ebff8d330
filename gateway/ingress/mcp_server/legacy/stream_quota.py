"""Limits how many events of sessions are stored, so that one caller can't fill the database."""

from collections.abc import Callable

from msgspec import Struct

from gateway.ingress.mcp_server.protocol.sessions import McpSession
from policies.cache import BoundedCache

SESSION_ROWS_MAX, SESSION_BYTES_MAX = 4096, 16 << 20
HOLDER_ROWS_MAX, HOLDER_BYTES_MAX = 16_384, 64 << 20  # of a person, or of an agent that acts for a person, in all sessions
USAGES_MAX = 20_000


class _QuotaUsage(Struct):
    rows: int = 0
    bytes: int = 0

    def has_room(self, added_bytes: int, rows_max: int, bytes_max: int) -> bool:
        return self.rows < rows_max and self.bytes + added_bytes <= bytes_max

    def add(self, added_bytes: int) -> None:
        self.rows += 1
        self.bytes += added_bytes


class StreamQuota:
    """Counts what this process stored in windows of `window_seconds`. Across two windows up to twice the limits may be stored."""

    def __init__(self, window_seconds: float, clock: Callable[[], float]) -> None:
        self._window_seconds = window_seconds
        self._usages: BoundedCache[str, _QuotaUsage] = BoundedCache(USAGES_MAX, clock)

    def try_reserve(self, session: McpSession, added_bytes: int) -> bool:
        """Reserves room for one row of that many bytes; returns False where there is none."""
        session_usage, holder_usage = self._usage_of(session.id), self._usage_of(session.holder)
        if not (
            session_usage.has_room(added_bytes, SESSION_ROWS_MAX, SESSION_BYTES_MAX)
            and holder_usage.has_room(added_bytes, HOLDER_ROWS_MAX, HOLDER_BYTES_MAX)
        ):
            return False
        session_usage.add(added_bytes)
        holder_usage.add(added_bytes)
        return True

    def _usage_of(self, key: str) -> _QuotaUsage:
        share = self._usages.get(key)
        if share is None:
            share = _QuotaUsage()
            self._usages.put(key, share, self._window_seconds)
        return share
