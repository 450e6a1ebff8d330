"""Periodic work on the board: deletes what has expired, and old history."""

from functools import partial
from typing import Any, Final

import msgspec
import structlog
from sqlalchemy import Connection, func, select

from gateway.state.board.counters import lock_counters
from gateway.state.board.store import BoardStore
from gateway.state.board.writes import KeyRef, expire_value, find_value
from gateway.state.tables import state_changes, state_held, state_values
from gateway.storage.batch import Batch

EXPIRED_MAX: Final = 500  # values that one round deletes
PRUNED_MAX: Final = 5000  # changes that one round deletes
DAY_US: Final = 86_400 * 1_000_000
log = structlog.get_logger()
_MARK_PRUNED: Final = "UPDATE state_counters SET pruned = ? WHERE tenant = ? AND pruned < ?"
_RAISE_FLOOR: Final = (
    "UPDATE state_counters SET floor = old.version FROM (SELECT MAX(version) AS version FROM state_changes WHERE tenant = ? AND seq <= ? "
    "AND at < ? AND kind <> 'set') AS old WHERE tenant = ? AND old.version > floor"
)
_PRUNE: Final = "DELETE FROM state_changes WHERE tenant = ? AND seq <= ? AND at < ?"
_EXPIRE_HELD: Final = "UPDATE state_held SET state = 'expired', decided = ? WHERE state = 'pending' AND expires <= ?"
_PRUNE_HELD: Final = "DELETE FROM state_held WHERE at < ?"


class BoardPruning:
    """Deletes expired values, and changes that are older than `history_days`. The newest change of a value that exists may go too."""

    def __init__(self, store: BoardStore, history_days: int) -> None:
        self._store = store
        self._kept_us = history_days * DAY_US

    async def run_once(self) -> int:
        """Returns how many values expired. A round without work reads and writes nothing else."""
        now, database = self._store.now(), self._store.database
        due = await database.read(lambda connection: _read_due(connection, now))
        for ref in due:
            try:
                await database.write(partial(_expire, ref=ref, now=now))
            except msgspec.MsgspecError as error:
                log.error("value_unreadable", tenant=ref.tenant, key=ref.key, error=str(error))
        if await database.read(lambda connection: connection.execute(_overdue_held(now)).first()):
            await database.write_alone("held-values", lambda batch: batch.run(_EXPIRE_HELD, (now, now)))
        await self._prune(now - self._kept_us)
        return len(due)

    async def _prune(self, before: int) -> None:
        database = self._store.database
        for tenant, seq in await database.read(lambda connection: _read_old(connection, before)):
            await database.write(partial(_prune, tenant=tenant, seq=seq, before=before))
        if await database.read(lambda connection: connection.execute(select(state_held.c.id).where(state_held.c.at < before)).first()):
            await database.write_alone("held-values", lambda batch: batch.run(_PRUNE_HELD, (before,)))


def _overdue_held(now: int) -> Any:
    """Values about which people were asked, and whose time to answer is over."""
    return select(state_held.c.id).where(state_held.c.state == "pending", state_held.c.expires <= now).limit(1)


def _read_due(connection: Connection, now: int) -> list[KeyRef]:
    columns = state_values.c
    query = select(columns.tenant, columns.key).where(columns.expires.is_not(None), columns.expires <= now).limit(EXPIRED_MAX)
    return [KeyRef(row.tenant, row.key) for row in connection.execute(query)]


def _expire(batch: Batch, ref: KeyRef, now: int) -> None:
    counters, current = lock_counters(batch, ref.tenant), find_value(batch.connection, ref)
    if current is not None and current.is_expired(now):
        expire_value(batch, counters, current, now)


def _read_old(connection: Connection, before: int) -> list[tuple[str, int]]:
    """The tenants with old changes, each with the number up to which this round deletes them."""
    columns = state_changes.c
    old = select(columns.tenant, columns.seq).where(columns.at < before).order_by(columns.at).limit(PRUNED_MAX).subquery()
    query = select(old.c.tenant, func.max(old.c.seq)).group_by(old.c.tenant)
    return [(tenant, seq) for tenant, seq in connection.execute(query)]


def _prune(batch: Batch, tenant: str, seq: int, before: int) -> None:
    """Deletes old changes of a tenant. The floor rises above the last versions of the keys that have no value."""
    lock_counters(batch, tenant)
    batch.run(_RAISE_FLOOR, (tenant, seq, before, tenant))
    batch.run(_PRUNE, (tenant, seq, before))
    batch.run(_MARK_PRUNED, (seq, tenant, seq))
