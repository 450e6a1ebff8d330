"""Ids that count once: whoever comes second with one is refused, in whichever process."""

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

T = TypeVar("T")
SKEW_US = 60_000_000  # an id is remembered this much longer than what carries it can be accepted


class ReplayGuardBatch(Protocol):
    """The writer's transaction (gateway/storage/writer.py)."""

    def run(self, statement: str, values: tuple[Any, ...]) -> int: ...


class ReplayGuardWriter(Protocol):
    """gateway/storage/database.py."""

    async def write(self, work: Callable[[Any], T]) -> T: ...


class ReplayGuard:
    """`now` counts microseconds since 1970."""

    def __init__(self, writer: ReplayGuardWriter, now: Callable[[], int]) -> None:
        self._writer = writer
        self._now = now

    async def consume(self, tenant: str, spent_id: str, not_after: float) -> bool:
        """Whether this is the first time; durable when it returns. `not_after`, in seconds since 1970, is when the id is of no use."""
        forget_after = int(not_after * 1_000_000) + SKEW_US

        def work(batch: ReplayGuardBatch) -> bool:
            batch.run("DELETE FROM spent WHERE tenant = ? AND not_after < ?", (tenant, self._now()))
            insert = "INSERT INTO spent (tenant, id, not_after) VALUES (?, ?, ?) ON CONFLICT DO NOTHING"
            return batch.run(insert, (tenant, spent_id, forget_after)) == 1

        return await self._writer.write(work)
