"""Sessions that ended before their access tokens expire. Each process has them in memory; an epoch announces changes."""

from collections.abc import Callable
from typing import Final

from sqlalchemy import select

from gateway.ingress.oauth.sign_in.tables import sign_in_sessions as table
from gateway.storage.database import Database

SPARE_SECONDS: Final = 120.0  # beyond the lifetime of a token: the skew of clocks


class EndedSessions:
    """The ids of the sessions that ended within the lifetime of a token. `now` counts microseconds since 1970."""

    def __init__(self, database: Database, token_life: float, now: Callable[[], int]) -> None:
        self._database = database
        self._kept_us = int((token_life + SPARE_SECONDS) * 1e6)
        self._now = now
        self._ids: frozenset[str] = frozenset()

    def has(self, session_id: str) -> bool:
        return session_id in self._ids

    async def reload(self) -> None:
        """Reads the ended sessions. Raises ReadFailed."""
        wanted = select(table.c.id).where(table.c.ended > self._now() - self._kept_us)
        self._ids = frozenset(await self._database.read(lambda connection: connection.execute(wanted).scalars().all()))
