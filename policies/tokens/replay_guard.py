"""One-time ids: of several uses of an id, in any process, only the first is accepted."""

from collections.abc import Callable

from policies.tables import TransactionalDatabase, WriteBatch

SKEW_US = 60_000_000  # an id is remembered this much longer than it could be accepted


class ReplayGuard:
    """Records one-time ids in the database. `now` counts microseconds since 1970."""

    def __init__(self, writer: TransactionalDatabase, now: Callable[[], int]) -> None:
        self._writer = writer
        self._now = now

    async def consume(self, tenant: str, spent_id: str, not_after: float) -> bool:
        """Records the id durably and returns whether this is its first use. `not_after` (seconds since 1970) is when it expires."""
        return await self._writer.write(lambda batch: self.consume_in(batch, tenant, spent_id, not_after))

    def consume_in(self, batch: WriteBatch, tenant: str, spent_id: str, not_after: float) -> bool:
        """Records the id in the commit of `batch`, and returns whether this is its first use."""
        batch.run("DELETE FROM spent WHERE tenant = ? AND not_after < ?", (tenant, self._now()))
        insert = "INSERT INTO spent (tenant, id, not_after) VALUES (?, ?, ?) ON CONFLICT DO NOTHING"
        return batch.run(insert, (tenant, spent_id, int(not_after * 1_000_000) + SKEW_US)) == 1
