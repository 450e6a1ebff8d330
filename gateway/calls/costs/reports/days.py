"""Sums of the costs of days that are over, so that a report of a month does not add up each call of it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from sqlalchemy import Connection, func, select

from gateway.storage.batch import Batch
from gateway.storage.database import Database
from gateway.storage.tables import cost_days, cost_sums, costs, tasks

DAY_US: Final = 86_400_000_000
GRACE_US: Final = 3_600_000_000  # after the end of a day, in which calls that ended on it are still being written
LEASE_US: Final = 600_000_000  # for which other processes leave a day to the one that adds it up
DAYS_BACK: Final = 400  # a report goes no further back
DAYS_AT_ONCE: Final = 10  # of one tenant in one run
ROWS_AT_ONCE: Final = 500  # written in one commit, so that no call waits for long
FIGURES: Final = ("amount", "priced", "unpriced", "quarantined", "input_tokens", "output_tokens", "charged")
_TAKE = (
    "INSERT INTO cost_days (tenant, day, summed, begun) VALUES (?, ?, 0, ?) "
    "ON CONFLICT (tenant, day) DO UPDATE SET begun = excluded.begun WHERE cost_days.summed = 0 AND cost_days.begun < ?"
)
_FINISH = "UPDATE cost_days SET summed = 1 WHERE tenant = ? AND day = ? AND summed = 0 AND begun = ?"
_FORGET_SUMS = "DELETE FROM cost_sums WHERE tenant = ? AND day = ?"
_FORGET_DAYS = (
    "DELETE FROM cost_days WHERE tenant = ? AND (day IN (SELECT at / 86400000000 FROM costs WHERE tenant = ? AND id = ?) "
    "OR day IN (SELECT updated / 86400000000 FROM tasks WHERE tenant = ? AND id = ?))"
)
_FORGET_OLD = "DELETE FROM cost_days WHERE tenant = ? AND day = ?"
Period = tuple[int, int]  # from the first to before the second microsecond since 1970
SumKey = tuple[str, str, str]  # dimension, owner, name
ReadDay = Callable[[Connection, str, int], Mapping[SumKey, Sequence[int]]]


@dataclass(frozen=True, slots=True)
class PeriodDays:
    """The days of a period: those whose sums are stored, and the periods of the others, in which each call is added up."""

    summed: Sequence[int]
    live: Sequence[Period]

    def without_sums(self) -> "PeriodDays":
        """Returns the same days as if no sums were stored."""
        days = [*self.summed, *(day for begin, end in self.live for day in range(begin // DAY_US, end // DAY_US))]
        return PeriodDays.of(min(days), max(days), ())

    @classmethod
    def of(cls, first: int, last: int, summed: Sequence[int]) -> "PeriodDays":
        """Returns the days from the first to the last one since 1970."""
        known, live = set(summed), list[Period]()
        for day in range(first, last + 1):
            if day in known:
                continue
            begin, end = day * DAY_US, (day + 1) * DAY_US
            if live and live[-1][1] == begin:
                begin = live.pop()[0]
            live.append((begin, end))
        return cls(sorted(known), live)


def read_summed_days(connection: Connection, tenant: str, first: int, last: int) -> list[int]:
    """Returns the days whose sums are stored."""
    columns = cost_days.c
    query = select(columns.day).where(columns.tenant == tenant, columns.day.between(first, last), columns.summed == 1)
    return list(connection.execute(query).scalars())


def forget_day_of(batch: Batch, tenant: str, cost_id: str) -> None:
    """Forgets the sums of the days of a cost that is about to change, and of the end of its task. They are added up again later."""
    batch.run(_FORGET_DAYS, (tenant, tenant, cost_id, tenant, cost_id))


class CostDays:
    """Adds up the days that are over. Each process does it, and each day is taken by one of them. `now` is in microseconds since 1970."""

    def __init__(self, database: Database, tenants: Callable[[], Sequence[str]], read_day: ReadDay, now: Callable[[], int]) -> None:
        self._database = database
        self._tenants = tenants
        self._read_day = read_day
        self._now = now

    async def run_once(self) -> int:
        """Adds up the newest days that were not, and returns how many. Raises ReadFailed and WriteFailed; the next run tries again.

        Deletes the sums of the oldest day that no report goes back to, one day in each run.
        """
        count = 0
        for tenant in self._tenants():
            await self._forget_old(tenant)
            for day in await self._database.read(partial(_read_open_days, tenant=tenant, now=self._now())):
                count += await self._add_up(tenant, day)
        return count

    async def _forget_old(self, tenant: str) -> None:
        oldest = await self._database.read(partial(_read_oldest_day, tenant=tenant))
        if oldest is not None and oldest < _last_day(self._now()) - DAYS_BACK:
            await self._database.write(lambda batch: batch.run(_FORGET_OLD, (tenant, oldest)))

    async def _add_up(self, tenant: str, day: int) -> int:
        """Returns 0 where another process has the day, or a cost of it changed meanwhile."""
        begun = self._now()
        if not await self._database.write(lambda batch: batch.run(_TAKE, (tenant, day, begun, begun - LEASE_US))):
            return 0
        sums = await self._database.read(lambda connection: self._read_day(connection, tenant, day))
        await self._database.write(lambda batch: batch.run(_FORGET_SUMS, (tenant, day)))
        rows = [{"tenant": tenant, "day": day, **_row(key, figures)} for key, figures in sums.items()]
        for at in range(0, len(rows), ROWS_AT_ONCE):
            await self._database.write(partial(_add_rows, rows=rows[at : at + ROWS_AT_ONCE]))
        return await self._database.write(lambda batch: batch.run(_FINISH, (tenant, day, begun)))


def _row(key: SumKey, figures: Sequence[int]) -> dict[str, Any]:
    return {**dict(zip(("dimension", "owner", "name"), key, strict=True)), **dict(zip(FIGURES, figures, strict=True))}


def _add_rows(batch: Batch, rows: Sequence[dict[str, Any]]) -> None:
    for row in rows:
        batch.add(cost_sums, row)


def _last_day(now: int) -> int:
    """Returns the last day that is over, with all that is written of it."""
    return (now - GRACE_US) // DAY_US - 1


def _read_oldest_day(connection: Connection, tenant: str) -> int | None:
    """Returns the oldest day that was taken to be added up."""
    found: int | None = connection.execute(select(func.min(cost_days.c.day)).where(cost_days.c.tenant == tenant)).scalar()
    return found


def _read_open_days(connection: Connection, tenant: str, now: int) -> list[int]:
    """Returns the newest days that are over, have something to add up, and that no process has added up or is adding up."""
    columns = cost_days.c
    begins = [
        connection.execute(select(func.min(column)).where(table.c.tenant == tenant)).scalar()
        for table, column in ((costs, costs.c.at), (tasks, tasks.c.updated))
    ]
    known = [begin // DAY_US for begin in begins if begin is not None]
    last = _last_day(now)
    if not known:
        return []
    is_taken = (columns.summed == 1) | (columns.begun >= now - LEASE_US)
    taken = set(connection.execute(select(columns.day).where(columns.tenant == tenant, is_taken)).scalars())
    return list(_newest(last, max(min(known), last - DAYS_BACK), taken))


def _newest(last: int, first: int, taken: set[int]) -> Iterator[int]:
    found = (day for day in range(last, first - 1, -1) if day not in taken)
    for day, _ in zip(found, range(DAYS_AT_ONCE), strict=False):
        yield day
