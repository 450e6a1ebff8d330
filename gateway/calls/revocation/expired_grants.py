"""Deletes grants that expired a month ago, in small batches."""

from collections.abc import Callable

from sqlalchemy import Connection, select

from gateway.storage.database import Batch, Database
from gateway.storage.tables import ENDED_STATES, tasks
from policies.tables import grants

GRANT_KEPT_SECONDS = 30 * 86_400.0  # after a grant's own end
BATCH_SIZE = 500
BATCHES_MAX = 20  # batches of one sweep, so that a sweep ends
SWEEP_SECONDS = 3600.0


class ExpiredGrants:
    """Deletes expired grants; the audit keeps their decisions. A grant stays while its task waits, because the task's row refers to it."""

    def __init__(self, database: Database, now: Callable[[], int]) -> None:
        """`now` counts microseconds since 1970."""
        self._database = database
        self._now = now

    async def sweep(self) -> int:
        """Deletes expired grants and returns how many. The search runs on a read connection, so that no writer waits for it."""
        cutoff, gone = self._now() - int(GRANT_KEPT_SECONDS * 1e6), 0
        for _ in range(BATCHES_MAX):
            found = await self._database.read(lambda connection: _read_expired(connection, cutoff))
            if found:
                await self._database.write(lambda batch, found=found: _delete_grants(batch, found))  # type: ignore[misc]  # bound now
            gone += len(found)
            if len(found) < BATCH_SIZE:
                break
        return gone


def _read_expired(connection: Connection, ended_before_us: int) -> list[tuple[str, str]]:
    same = (tasks.c.tenant == grants.c.tenant) & (tasks.c.id == grants.c.task_id)
    waits = select(tasks.c.id).where(same, tasks.c.state.not_in(ENDED_STATES)).exists()
    query = select(grants.c.tenant, grants.c.id).where(grants.c.not_after < ended_before_us, ~waits).limit(BATCH_SIZE)
    return [(row.tenant, row.id) for row in connection.execute(query).all()]


def _delete_grants(batch: Batch, found: list[tuple[str, str]]) -> None:
    for key in found:
        batch.run("DELETE FROM grants WHERE tenant = ? AND id = ?", key)
