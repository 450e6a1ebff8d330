"""Stored sums of costs by hour and by day: their tables, and which of them cover a period."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, Table, select

from gateway.storage.batch import Batch
from gateway.storage.tables import cost_days, cost_hour_sums, cost_hours, cost_sums

HOUR_US: Final = 3_600_000_000
DAY_US: Final = 24 * HOUR_US
HOURS: Final = range(24)  # of a day
OPEN, SUMMED, FINAL = range(3)  # of `summed`: the sums are being made; they are stored; and they stay, since costs may be gone
_FORGET_DAYS: Final = (
    "DELETE FROM cost_days WHERE tenant = ? AND summed < 2 AND (day IN (SELECT at / 86400000000 FROM costs WHERE tenant = ? AND id = ?) "
    "OR day IN (SELECT updated / 86400000000 FROM tasks WHERE tenant = ? AND id = ?))"
)
_FORGET_HOURS: Final = (
    "DELETE FROM cost_hours WHERE tenant = ? AND (hour IN (SELECT at / 3600000000 FROM costs WHERE tenant = ? AND id = ?) "
    "OR hour IN (SELECT updated / 3600000000 FROM tasks WHERE tenant = ? AND id = ?))"
)
_CLOSE_DAYS: Final = "UPDATE cost_days SET summed = 2 WHERE summed = 1 AND day < ?"
Period = tuple[int, int]  # from the first to before the second microsecond since 1970


@dataclass(frozen=True, slots=True)
class SumLevel:
    """Sums of one length: `spans` has a row for each hour or day that is summed or being summed, `sums` the figures of it."""

    unit: str  # the column with the number of the hour or day since 1970
    length_us: int
    spans: Table
    sums: Table

    @property
    def take(self) -> str:
        """SQL by which one process gets a span whose sums are not stored, unless another one got it lately."""
        return (
            f"INSERT INTO {self.spans.name} (tenant, {self.unit}, summed, begun) VALUES (?, ?, 0, ?) "  # noqa: S608  names of this file
            f"ON CONFLICT (tenant, {self.unit}) DO UPDATE SET begun = excluded.begun "
            f"WHERE {self.spans.name}.summed = 0 AND {self.spans.name}.begun < ?"
        )

    @property
    def finish(self) -> str:
        """SQL that says that all sums of a span are stored, unless the span was forgotten, or taken by another process."""
        return f"UPDATE {self.spans.name} SET summed = 1 WHERE {self._is_held}"  # noqa: S608  names of this file

    @property
    def hold(self) -> str:
        """SQL that changes no value of a span. Until the commit, no other process forgets or takes it."""
        return f"UPDATE {self.spans.name} SET begun = begun WHERE {self._is_held}"  # noqa: S608  names of this file

    @property
    def forget_sums(self) -> str:
        """SQL that deletes the sums that a process left which did not finish."""
        return f"DELETE FROM {self.sums.name} WHERE tenant = ? AND {self.unit} = ?"  # noqa: S608  names of this file

    @property
    def forget_between(self) -> str:
        """SQL that deletes the spans from one number to before another, with their sums."""
        return f"DELETE FROM {self.spans.name} WHERE tenant = ? AND {self.unit} >= ? AND {self.unit} < ?"  # noqa: S608  names of this file

    @property
    def _is_held(self) -> str:
        return f"tenant = ? AND {self.unit} = ? AND summed = 0 AND begun = ?"

    def read_summed(self, connection: Connection, tenant: str, first: int, last: int) -> list[int]:
        """Returns the numbers of the spans whose sums are stored, from the first to the last one."""
        number = self.spans.c[self.unit]
        query = select(number).where(self.spans.c.tenant == tenant, number.between(first, last), self.spans.c.summed >= SUMMED)
        return sorted(connection.execute(query).scalars())


BY_HOUR: Final = SumLevel("hour", HOUR_US, cost_hours, cost_hour_sums)
BY_DAY: Final = SumLevel("day", DAY_US, cost_days, cost_sums)


@dataclass(frozen=True, slots=True)
class CostPeriod:
    """The days of a report: those and the hours whose sums are stored, and what lies between, where each call is added up."""

    days: Sequence[int]
    hours: Sequence[int]
    live: Sequence[Period]

    def stored(self) -> Sequence[tuple[SumLevel, Sequence[int]]]:
        """Returns the numbers of the days and hours whose sums are stored."""
        return (BY_DAY, self.days), (BY_HOUR, self.hours)

    def without_sums(self) -> "CostPeriod":
        """Returns the same days as if no sums were stored."""
        numbers = [*self.days, *(hour // len(HOURS) for hour in self.hours)]
        numbers += [day for begin, end in self.live for day in range(begin // DAY_US, -(-end // DAY_US))]
        return CostPeriod.of(min(numbers), max(numbers))

    @classmethod
    def of(cls, first: int, last: int, days: Sequence[int] = (), hours: Sequence[int] = ()) -> "CostPeriod":
        """Returns the days from the first to the last one since 1970. `days` and `hours` are those whose sums are stored."""
        known_days, known_hours = set(days), set(hours)
        open_hours = [day * len(HOURS) + hour for day in range(first, last + 1) if day not in known_days for hour in HOURS]
        live = list[Period]()
        for hour in open_hours:
            if hour in known_hours:
                continue
            begin = hour * HOUR_US
            if live and live[-1][1] == begin:
                begin = live.pop()[0]
            live.append((begin, (hour + 1) * HOUR_US))
        return cls(sorted(known_days), [hour for hour in open_hours if hour in known_hours], live)


def read_period(connection: Connection, tenant: str, first: int, last: int) -> CostPeriod:
    """Returns the days from the first to the last one since 1970, and of which of their days and hours sums are stored."""
    days = BY_DAY.read_summed(connection, tenant, first, last)
    hours = BY_HOUR.read_summed(connection, tenant, first * len(HOURS), (last + 1) * len(HOURS) - 1)
    return CostPeriod.of(first, last, days, hours)


def forget_sums_of(batch: Batch, tenant: str, cost_id: str) -> None:
    """Forgets the sums of the days and hours of a cost that is about to change, and of the end of its task. They are added up again later.

    The sums of days whose costs may be deleted already stay as they are.
    """
    for statement in (_FORGET_DAYS, _FORGET_HOURS):
        batch.run(statement, (tenant, tenant, cost_id, tenant, cost_id))


def close_days(batch: Batch, before: int) -> None:
    """Makes the sums of the days that begin before a moment final, in microseconds since 1970: their costs may be deleted from now on."""
    batch.run(_CLOSE_DAYS, (-(-before // DAY_US),))
