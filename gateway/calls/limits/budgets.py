"""Stores daily budgets of calls in the database, so that a restart does not reset them, and writes refusals by limits to the audit.

What calls cost is reserved and charged by the commits of the calls (gateway/calls/costs/reservations.py), and only read here.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog
from sqlalchemy import Connection, select

from gateway.calls.limits.meters import CallLimits, Meter, RefusalReport
from gateway.storage.database import Batch, Database, ReadFailed, WriteFailed
from gateway.storage.tables import budgets
from policies.audit.log import AuditLog

ROUND_SECONDS = 1.0  # seconds between two runs
REPORT_ROUNDS = 10  # runs for which refusals are counted before they are written
DAYS_KEPT = 31
BUDGETS_LOCK = 4_242_002  # a lock of the database: two batches that change rows of budgets in different orders would block each other
_ADD_SPENT = (
    "INSERT INTO budgets (tenant, day, name, calls, cost) VALUES (?, ?, ?, ?, 0) "
    "ON CONFLICT (tenant, day, name) DO UPDATE SET calls = budgets.calls + excluded.calls"
)
log = structlog.get_logger()


class Budgets:
    """Writes and reads the budgets of one process. `now` returns microseconds since 1970."""

    def __init__(self, database: Database, audit: AuditLog, limits: CallLimits, now: Callable[[], int]) -> None:
        self._database = database
        self._audit = audit
        self._limits = limits
        self._now = now
        self._day = ""
        self._rounds = 0

    async def run_once(self) -> None:
        """Writes new spending and reads what all processes have spent.

        Raises WriteFailed and ReadFailed; the next run tries again.
        """
        self._rounds += 1
        if self._limits.refusals and self._rounds % REPORT_ROUNDS == 0:
            await self.write_refusals()
        if self._limits.has_budget:
            await self._write_spending()

    async def write_refusals(self) -> None:
        """Writes one audit record with a count for all refusals of one caller by one limit. Raises WriteFailed and keeps the counts."""
        refusals = self._limits.take_refusals()
        records = [self._refusal_record(report, count) for report, count in refusals.items()]
        for record in records:
            log.warning("limited", reason=record["reason"], limit=record["limit"], count=record["count"], tenant=record["tenant"])
        try:
            await self._database.write(lambda batch: self._record_all(batch, records))
        except WriteFailed:
            self._limits.refusals.update(refusals)
            raise

    async def close(self) -> None:
        """Writes spending and refusals since the last run. Logs `budgets_not_written` if the database does not accept them."""
        for left, keep in ((self._limits.has_budget, self._write_spending), (self._limits.refusals, self.write_refusals)):
            try:
                if left:
                    await keep()
            except (WriteFailed, ReadFailed):
                log.warning("budgets_not_written")

    async def _write_spending(self) -> None:
        day = datetime.fromtimestamp(self._now() / 1e6, UTC).date()
        previous_day, today = self._day, day.isoformat()
        spent = [(meter, meter.unwritten_calls) for meter in self._limits.unwritten_meters()]
        if spent:
            rows = sorted((meter.tenant, previous_day or today, meter.name, calls) for meter, calls in spent)
            await self._database.write(lambda batch: _add_spent(batch, rows))
            for meter, calls in spent:
                _mark_written(meter, calls)
        if today != previous_day:
            old = (day - timedelta(days=DAYS_KEPT)).isoformat()
            await self._database.write(lambda batch: batch.run("DELETE FROM budgets WHERE day < ?", (old,)))
        if today != previous_day or not self._database.is_sqlite:
            self._limits.restore_spent(await self._database.read(lambda connection: _read_spent(connection, today)))
            self._day = today

    def _record_all(self, batch: Batch, records: list[dict[str, Any]]) -> None:
        for record in records:
            self._audit.record(batch, record)

    def _refusal_record(self, report: RefusalReport, count: int) -> dict[str, Any]:
        _, issuer, subject = report.owner.split("|", 2)
        members: Mapping[str, Any] = {"kind": "limited", "tenant": report.tenant, "decision_id": "", "txn": "", "agent": report.actor}
        return {
            **members,
            "principal": {"issuer": issuer, "subject": subject},
            "reason": report.reason,
            "limit": report.limit,
            "count": count,
        }


def _add_spent(batch: Batch, rows: Sequence[tuple[str, str, str, int]]) -> None:
    batch.lock(BUDGETS_LOCK)
    for row in rows:
        batch.run(_ADD_SPENT, row)


def _mark_written(meter: Meter, calls: int) -> None:
    meter.unwritten_calls -= calls
    meter.calls += calls


def _read_spent(connection: Connection, day: str) -> dict[tuple[str, str], tuple[int, int]]:
    rows = connection.execute(select(budgets).where(budgets.c.day == day)).all()
    return {(row.tenant, row.name): (row.calls, row.cost) for row in rows}
