"""Adds up the costs of hours and days that are over, so that a report of a month does not add up each call of it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from sqlalchemy import Connection, func, select

from gateway.calls.costs.reports.levels import BY_DAY, BY_HOUR, HOUR_US, HOURS, SUMMED, Period, SumLevel
from gateway.storage.batch import Batch
from gateway.storage.database import Database
from gateway.storage.tables import cost_days, costs, tasks

GRACE_US: Final = HOUR_US  # after the end of an hour or day, in which calls that ended in it are still being written
LEASE_US: Final = 600_000_000  # for which other processes leave an hour or day to the one that adds it up
DAYS_BACK: Final = 400  # a report goes no further back
SPANS_AT_ONCE: Final = 10  # of one tenant and length in one run
ROWS_AT_ONCE: Final = 500  # written in one commit, so that no call waits for long
FIGURES: Final = ("amount", "priced", "unpriced", "quarantined", "input_tokens", "output_tokens", "charged")
SumKey = tuple[str, str, str]  # dimension, owner, name
ReadSums = Callable[[Connection, str, Period], Mapping[SumKey, Sequence[int]]]


@dataclass(frozen=True, slots=True)
class _Span:
    """An hour or a day: its number since 1970."""

    level: SumLevel
    number: int

    @property
    def period(self) -> Period:
        return self.number * self.level.length_us, (self.number + 1) * self.level.length_us


class StoredSums:
    """Adds up the hours and days that are over. Each process does it, and each span is taken by one of them.

    `now` is in microseconds since 1970. `read_sums` adds up the costs of a tenant and a period.
    """

    def __init__(self, database: Database, tenants: Callable[[], Sequence[str]], read_sums: ReadSums, now: Callable[[], int]) -> None:
        self._database = database
        self._tenants = tenants
        self._read_sums = read_sums
        self._now = now

    async def run_once(self) -> int:
        """Adds up the newest spans that were not, and returns how many. Raises ReadFailed and WriteFailed; the next run tries again.

        Deletes the sums of the oldest day that no report goes back to, one day in each run.
        """
        count = 0
        for tenant in self._tenants():
            await self._forget_old(tenant)
            for span in await self._database.read(partial(_read_open_spans, tenant=tenant, now=self._now())):
                count += await self._add_up(tenant, span)
        return count

    async def _forget_old(self, tenant: str) -> None:
        oldest = await self._database.read(partial(_read_oldest_day, tenant=tenant))
        if oldest is not None and oldest < _last_over(BY_DAY, self._now()) - DAYS_BACK:
            await self._database.write(lambda batch: batch.run(BY_DAY.forget_between, (tenant, oldest, oldest + 1)))

    async def _add_up(self, tenant: str, span: _Span) -> int:
        """Returns 0 where another process has the span, or a cost of it changed."""
        begun, level = self._now(), span.level
        if not await self._database.write(lambda batch: batch.run(level.take, (tenant, span.number, begun, begun - LEASE_US))):
            return 0
        held = (tenant, span.number, begun)
        sums = await self._database.read(lambda connection: self._read_sums(connection, tenant, span.period))
        if not await self._database.write(partial(_begin, level=level, held=held)):
            return 0
        rows = [{"tenant": tenant, level.unit: span.number, **_row(key, figures)} for key, figures in sums.items()]
        for at in range(0, len(rows), ROWS_AT_ONCE):
            if not await self._database.write(partial(_add_rows, level=level, held=held, rows=rows[at : at + ROWS_AT_ONCE])):
                return 0
        return await self._database.write(partial(_finish, span=span, held=held))


def _row(key: SumKey, figures: Sequence[int]) -> dict[str, Any]:
    return {**dict(zip(("dimension", "owner", "name"), key, strict=True)), **dict(zip(FIGURES, figures, strict=True))}


def _begin(batch: Batch, level: SumLevel, held: tuple[str, int, int]) -> bool:
    """Deletes the sums that a process left which did not finish. Returns False where another process has the span by now."""
    if not batch.run(level.hold, held):
        return False
    batch.run(level.forget_sums, held[:2])
    return True


def _add_rows(batch: Batch, level: SumLevel, held: tuple[str, int, int], rows: Sequence[dict[str, Any]]) -> bool:
    """Returns False where the span was forgotten, since a cost of it changed."""
    if not batch.run(level.hold, held):
        return False
    for row in rows:
        batch.add(level.sums, row)
    batch.flush()  # before another write of this commit can forget the span
    return True


def _finish(batch: Batch, span: _Span, held: tuple[str, int, int]) -> int:
    """Returns 0 where the span was forgotten. The sums of a day take the place of those of its hours."""
    count = batch.run(span.level.finish, held)
    if count and span.level is BY_DAY:
        batch.run(BY_HOUR.forget_between, (held[0], span.number * len(HOURS), (span.number + 1) * len(HOURS)))
    return count


def _last_over(level: SumLevel, now: int) -> int:
    """Returns the last span that is over, with all that is written of it."""
    return (now - GRACE_US) // level.length_us - 1


def _read_oldest_day(connection: Connection, tenant: str) -> int | None:
    """Returns the oldest day that was taken to be added up."""
    found: int | None = connection.execute(select(func.min(cost_days.c.day)).where(cost_days.c.tenant == tenant)).scalar()
    return found


def _read_open_spans(connection: Connection, tenant: str, now: int) -> list[_Span]:
    """Returns the newest days that are over, and the hours after them, that have something to add up and that no process has."""
    begins = [
        connection.execute(select(func.min(column)).where(table.c.tenant == tenant)).scalar()
        for table, column in ((costs, costs.c.at), (tasks, tasks.c.updated))
    ]
    known = [begin for begin in begins if begin is not None]
    if not known:
        return []
    last_day, begin = _last_over(BY_DAY, now), min(known)
    first_day = max(begin // BY_DAY.length_us, last_day - DAYS_BACK)
    first_hour = max(begin // HOUR_US, (last_day + 1) * len(HOURS))
    days = _untaken(connection, tenant, BY_DAY, range(last_day, first_day - 1, -1), now)
    hours = _untaken(connection, tenant, BY_HOUR, range(_last_over(BY_HOUR, now), first_hour - 1, -1), now)
    return [*hours, *days]


def _untaken(connection: Connection, tenant: str, level: SumLevel, numbers: range, now: int) -> Iterator[_Span]:
    """Yields spans of these numbers that no process has added up or is adding up, at most SPANS_AT_ONCE."""
    columns = level.spans.c
    is_taken = (columns.summed >= SUMMED) | (columns.begun >= now - LEASE_US)
    taken = set(connection.execute(select(columns[level.unit]).where(columns.tenant == tenant, is_taken)).scalars())
    open_numbers = (number for number in numbers if number not in taken)
    for number, _ in zip(open_numbers, range(SPANS_AT_ONCE), strict=False):
        yield _Span(level, number)
