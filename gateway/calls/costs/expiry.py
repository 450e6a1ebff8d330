"""Settles reservations of calls that ended unseen: in a process that was killed, or with a task that another process ended.

Deletes the costs of long ago, too.
"""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

import msgspec
import structlog
from msgspec.structs import replace
from sqlalchemy import Connection, Row, or_, select

from gateway.calls.costs.causing_runs import read_causing_runs, with_run
from gateway.calls.costs.entries import EXPIRED
from gateway.calls.costs.reports.levels import DAY_US, HOUR_US, close_days, forget_sums_of
from gateway.calls.costs.reservations import StoredEntry, change_share, shares_of
from gateway.calls.limits.budgets import BUDGETS_LOCK
from gateway.storage.database import Batch, Database, WriteFailed
from gateway.storage.tables import reservations, tasks
from gateway.storage.transactions import is_database_away
from gateway.tasks.log import RUNNING_STATES

BATCH_SIZE: Final = 100
GRACE_US: Final = 30_000_000  # between the end of a task and the expiry of its turn's reservation: the turn may still tell its cost
LATE_US: Final = DAY_US  # for which a turn that ends after its reservation expired corrects the charge
RUNNING: Final = tuple(state.value for state in RUNNING_STATES)
_MARK = "UPDATE reservations SET charged_at = ? WHERE tenant = ? AND id = ? AND charged_at IS NULL"
_FORGET = "DELETE FROM reservations WHERE charged_at < ?"
_ADD_TO_ENTRY = "UPDATE costs SET charged = charged + ? WHERE tenant = ? AND id = ? AND seq = ?"
PRUNED_AT_ONCE: Final = 500  # costs that one commit deletes, so that calls wait for it shortly
CLOSED_US: Final = 2 * HOUR_US  # before the first cost of a day may be deleted, so that a sum that is being made again is there by then
COMMITS_MAX: Final = 1000  # of one round of pruning
_PRUNE_COSTS: Final = (
    "DELETE FROM costs WHERE (tenant, id, seq) IN (SELECT c.tenant, c.id, c.seq FROM costs c WHERE c.at < ? AND NOT EXISTS "
    "(SELECT 1 FROM tasks t WHERE t.tenant = c.tenant AND t.id IN (c.task_id, c.run_id) AND t.state NOT IN "
    "('TASK_STATE_COMPLETED', 'TASK_STATE_FAILED', 'TASK_STATE_CANCELED', 'TASK_STATE_REJECTED')) AND NOT EXISTS "
    "(SELECT 1 FROM legal_holds h WHERE h.tenant = c.tenant AND (h.kind = 'tenant' OR (h.kind = 'person' AND h.name = c.owner) "
    "OR (h.kind = 'task' AND c.txn = (SELECT k.txn FROM tasks k WHERE k.tenant = h.tenant AND k.id = h.name)))) ORDER BY c.at LIMIT ?)"
)
log = structlog.get_logger()


class ExpiredReservations:
    """Charges expired reservations. Any process may do it; one of them does. `now` returns microseconds since 1970."""

    def __init__(self, database: Database, now: Callable[[], int]) -> None:
        self._database = database
        self._now = now

    async def run_once(self) -> int:
        """Charges what has expired, and returns how many reservations. Raises ReadFailed and WriteFailed; the next run tries again."""
        now = self._now()
        found = await self._database.read(lambda connection: _read_expired(connection, now))
        charged = 0
        if found:
            charged = await self._charge_each(found, now)
            await self._database.write(lambda batch: batch.run(_FORGET, (now - LATE_US,)))
        if charged:
            log.warning("reservations_expired", count=charged)
        return charged

    async def _charge_each(self, found: "Sequence[Row[Any]]", now: int) -> int:
        """Charges each reservation by a job of its own, in one commit unless one of them fails. Returns how many were charged."""
        writes = (self._database.write(partial(_charge, row=row, now=now)) for row in found)
        charged = 0
        away: WriteFailed | None = None
        for row, outcome in zip(found, await asyncio.gather(*writes, return_exceptions=True), strict=True):
            if isinstance(outcome, int):
                charged += outcome
            elif isinstance(outcome, WriteFailed) and is_database_away(outcome):
                away = outcome
            else:
                log.error("reservation_not_charged", tenant=row.tenant, reservation=row.id, exc_info=outcome)
        if away is not None:
            raise away
        return charged


def _read_expired(connection: Connection, now: int) -> list["Row[Any]"]:
    """Reservations past their time, and those of turns whose task has not been at work for a while or does not exist."""
    columns, task = reservations.c, tasks.c
    of_task = (task.tenant == columns.tenant) & (task.id == columns.task_id)
    has_rested = task.state.not_in(RUNNING) & (task.updated < now - GRACE_US)
    is_lost = (columns.task_id != "") & or_(task.id.is_(None), has_rested)
    query = select(*columns, task.last_seq).select_from(reservations.outerjoin(tasks, of_task))
    query = query.where(columns.charged_at.is_(None), or_(columns.until < now, is_lost)).order_by(columns.until).limit(BATCH_SIZE)
    return [*connection.execute(query)]


def _charge(batch: Batch, row: "Row[Any]", now: int) -> int:
    """Charges what was reserved, and stores the entry of a call of unknown cost. Returns 0 where another process or the call was faster.

    Two turns of one task that were both lost have one entry, since neither has a last event of its own.
    """
    batch.lock(BUDGETS_LOCK)
    if not batch.run(_MARK, (now, row.tenant, row.id)):
        return 0
    for share in shares_of(row):
        change_share(batch, (row.tenant, row.day), share, -share.amount, share.amount)
    place = (row.task_id, row.last_seq or 0) if row.task_id else (row.id, 0)
    batch.flush()  # so that the update finds an entry that this commit adds
    forget_sums_of(batch, row.tenant, place[0])
    if batch.run(_ADD_TO_ENTRY, (row.amount, row.tenant, *place)):
        return 1
    try:
        stored = msgspec.json.decode(row.entry, type=StoredEntry)
    except (msgspec.MsgspecError, UnicodeError) as error:  # its budgets are charged; nobody can say for whom
        log.error("cost_entry_unreadable", tenant=row.tenant, reservation=row.id, error=str(error))
        return 1
    entry = stored.entry
    if entry.workflow:
        entry = with_run(entry, read_causing_runs(batch.connection, row.tenant, stored.task_id))
    replace(entry, charged=row.amount, quarantined=EXPIRED).write(batch, place, stored.task_id, now)
    return 1


class OldCosts:
    """Deletes costs after `kept_days`. Those of a task or run that has not ended stay, and what is held."""

    def __init__(self, database: Database, now: Callable[[], int], kept_days: int) -> None:
        self._database = database
        self._now = now
        self._kept_us = kept_days * DAY_US

    async def prune(self) -> int:
        """Returns how many costs it deleted. Raises WriteFailed; the next round goes on."""
        before = self._now() - self._kept_us
        await self._database.write(lambda batch: close_days(batch, before + CLOSED_US))
        values, deleted = (before, PRUNED_AT_ONCE), 0
        for _ in range(COMMITS_MAX):
            count = await self._database.write_alone("costs", lambda batch: batch.run(_PRUNE_COSTS, values)) or 0
            deleted += count
            if count < PRUNED_AT_ONCE:
                break
        return deleted
