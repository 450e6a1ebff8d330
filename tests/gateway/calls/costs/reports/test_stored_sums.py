"""Sums of hours and days: a report says the same with and without them, and a late change of a cost is never lost."""

from datetime import date, timedelta
from itertools import product
from typing import Any

import pytest
from sqlalchemy import Connection, Table, delete, insert, select, update

from gateway.calls.costs.expiry import OldCosts
from gateway.calls.costs.reports.groups import CostGroup
from gateway.calls.costs.reports.levels import BY_DAY, BY_HOUR, DAY_US, HOUR_US, SUMMED, Period, forget_sums_of
from gateway.calls.costs.reports.report import CostFilter, CostPage, read_costs, read_sums
from gateway.calls.costs.reports.stored_sums import DAYS_BACK, FIGURES, StoredSums, SumKey
from gateway.storage.database import Database
from gateway.storage.tables import cost_days, cost_hour_sums, cost_hours, cost_sums, costs, tasks

FIRST = 20_000  # a day since 1970
DAYS = 5
NOW = (FIRST + DAYS) * DAY_US + DAY_US // 2  # of the day after the last one
HOURS = 11  # of that day, of which everything is written
PERIOD = (date(1970, 1, 1) + timedelta(days=FIRST - 3), date(1970, 1, 1) + timedelta(days=FIRST + DAYS))
PEOPLE = ("t|i|alice", "t|i|bob")


def _cost(number: int) -> dict[str, Any]:
    """Several people, agents, tools and workflows on each day; every fourth amount is unknown."""
    texts = dict.fromkeys(("actor", "model", "txn"), "")
    of_tool = {"tool": "look" if number % 3 == 0 else "", "target": f"agent{number % 4}", "workflow": "pay" if number % 5 == 0 else ""}
    place = {"tenant": "t", "id": f"c{number}", "seq": 1, "task_id": f"t{number}", "at": FIRST * DAY_US + number * DAY_US // 9}
    figures = {"amount": None if number % 4 == 0 else number * 7, "input_tokens": number, "output_tokens": None, "charged": number}
    return {**texts, **of_tool, **place, **figures, "owner": PEOPLE[number % 2], "quarantined": "expired" if number % 6 == 0 else ""}


def _task(number: int) -> dict[str, Any]:
    """A task that ended without any cost."""
    texts = dict.fromkeys(("context_id", "parent_id", "txn", "decision_id", "grant_id", "runner", "vendor_ref", "request_digest"), "")
    at = FIRST * DAY_US + number * DAY_US // 4
    named = {"tenant": "t", "id": f"u{number}", "owner": PEOPLE[number % 2], "agent": f"agent{number % 3}", "state": "TASK_STATE_COMPLETED"}
    return {**texts, **named, "last_seq": 1, "created": at, "updated": at}


@pytest.fixture
def filled(database: Database) -> Database:
    with database.engine.begin() as connection:
        connection.execute(insert(costs), [_cost(number) for number in range(9 * DAYS + 4)])
        connection.execute(insert(tasks), [_task(number) for number in range(4 * DAYS + 2)])
    return database


def sums_of(database: Database, now: int = NOW) -> StoredSums:
    return StoredSums(database, lambda: ["t"], read_sums, lambda: now)


async def add_up(database: Database, now: int = NOW) -> int:
    """Runs until nothing is left to add up, and returns how many hours and days there were."""
    count = 0
    while more := await sums_of(database, now).run_once():
        count += more
    return count


async def numbers_of(database: Database, table: Table) -> set[int]:
    """Returns the hours or days since 1970 of which a table has rows."""
    unit = table.c.day if "day" in table.c else table.c.hour
    return await database.read(lambda connection: set(connection.execute(select(unit)).scalars()))


async def report(database: Database, owner: str, group: CostGroup, limit: int = 50, cursor: str = "") -> Any:
    wanted = CostFilter(*PERIOD, owner)
    return await database.read(lambda connection: read_costs(connection, "t", wanted, CostPage(group, cursor, limit), "USD"))


async def every_report(database: Database) -> dict[Any, Any]:
    return {(owner, group): await report(database, owner, group) for owner, group in product(("", *PEOPLE), CostGroup)}


async def test_reports_are_equal_with_and_without_sums_of_days(filled: Database) -> None:
    before = await every_report(filled)
    assert await add_up(filled) == DAYS + HOURS
    assert await every_report(filled) == before


@pytest.mark.parametrize("table", [cost_sums, cost_hour_sums], ids=["days", "hours"])
async def test_a_report_reads_the_sums_that_are_stored(filled: Database, table: Table) -> None:
    await add_up(filled)
    before = await report(filled, "", CostGroup.AGENT)
    with filled.engine.begin() as connection:
        connection.execute(update(table).values(amount=table.c.amount + 1))
    assert await report(filled, "", CostGroup.AGENT) != before


@pytest.mark.parametrize("group", [CostGroup.AGENT, CostGroup.PERSON, CostGroup.TOOL])
async def test_pages_of_a_report_say_together_what_one_page_says(filled: Database, group: CostGroup) -> None:
    whole = await report(filled, "", group)
    await add_up(filled)
    items, cursor = [], ""
    while cursor is not None:
        page = await report(filled, "", group, limit=1, cursor=cursor)
        items, cursor = items + page["items"], page["next"]
        assert page["total"] == whole["total"]
    assert items == whole["items"]


async def test_a_late_change_makes_its_day_be_added_up_again(filled: Database) -> None:
    await add_up(filled)

    def change(batch: Any) -> None:
        forget_sums_of(batch, "t", "c3")
        batch.run("UPDATE costs SET amount = 1000000 WHERE tenant = ? AND id = ?", ("t", "c3"))

    await filled.write(change)
    live = await report(filled, "", CostGroup.DAY)
    assert live["items"][0]["amount"].startswith("1.")
    assert await sums_of(filled).run_once() == 1
    assert await report(filled, "", CostGroup.DAY) == live


async def test_a_day_is_not_added_up_before_its_last_calls_are_written(filled: Database) -> None:
    just_after = (FIRST + 1) * DAY_US + 60_000_000
    await add_up(filled, just_after)
    assert (await numbers_of(filled, cost_days), len(await numbers_of(filled, cost_hours))) == (set(), 23)
    await add_up(filled, just_after + HOUR_US)
    assert (await numbers_of(filled, cost_days), await numbers_of(filled, cost_hours)) == ({FIRST}, set())


async def test_an_hour_and_a_day_is_added_up_once(filled: Database) -> None:
    assert [await add_up(filled) for _ in range(2)] == [DAYS + HOURS, 0]


@pytest.mark.parametrize("late", [(FIRST, DAY_US, "c3"), ((FIRST + DAYS) * 24, HOUR_US, f"c{9 * DAYS}")], ids=["day", "hour"])
async def test_a_cost_that_changes_while_it_is_added_up_is_added_up_again(filled: Database, late: tuple[int, int, str]) -> None:
    number, length_us, cost_id = late
    count = await add_up(filled)
    await filled.write(lambda batch: forget_sums_of(batch, "t", cost_id))
    before = await every_report(filled)

    def read_and_forget(connection: Connection, tenant: str, period: Period) -> dict[SumKey, list[int]]:
        found = read_sums(connection, tenant, period)
        if period[0] == number * length_us:
            with filled.engine.begin() as other:
                other.execute(delete(cost_days))
                other.execute(delete(cost_hours))
        return found

    disturbed = StoredSums(filled, lambda: ["t"], read_and_forget, lambda: NOW)
    assert await disturbed.run_once() < count, "the span that was forgotten counts as not added up"
    assert await every_report(filled) == before
    await add_up(filled)
    assert await every_report(filled) == before


async def test_a_process_that_lost_its_hour_deletes_no_sums_of_the_one_that_took_it(filled: Database) -> None:
    before = await every_report(filled)

    def read_late(connection: Connection, tenant: str, period: Period) -> dict[SumKey, list[int]]:
        """While this process stands still, another one takes the span, adds it up and finishes it."""
        found = read_sums(connection, tenant, period)
        level = BY_DAY if period[1] - period[0] == DAY_US else BY_HOUR
        key = {"tenant": "t", level.unit: period[0] // level.length_us}
        rows = [{**key, **dict(zip(("dimension", "owner", "name", *FIGURES), (*name, *sums), strict=True))} for name, sums in found.items()]
        with filled.engine.begin() as other:
            other.execute(update(level.spans).where(level.spans.c[level.unit] == key[level.unit]).values(begun=NOW + 1, summed=SUMMED))
            if rows:
                other.execute(insert(level.sums), rows)
        return found

    late = StoredSums(filled, lambda: ["t"], read_late, lambda: NOW)
    assert await late.run_once() == 0
    assert await every_report(filled) == before


async def test_sums_stay_when_a_cost_of_their_day_changes_that_may_be_deleted(filled: Database) -> None:
    await add_up(filled)
    before = await report(filled, "", CostGroup.DAY)
    assert await OldCosts(filled, lambda: NOW, 3).prune()
    await filled.write(lambda batch: forget_sums_of(batch, "t", f"c{9 * 2 + 8}"))  # of the day of which half is deleted
    await add_up(filled)
    assert await report(filled, "", CostGroup.DAY) == before


async def test_the_sums_of_days_that_no_report_goes_back_to_are_deleted(filled: Database) -> None:
    await add_up(filled)
    later = sums_of(filled, NOW + (DAYS_BACK - DAYS + 2) * DAY_US)
    for _ in range(4):  # more rounds than there are days to delete
        await later.run_once()
    for table in (cost_days, cost_sums):
        assert min(await numbers_of(filled, table)) == FIRST + 1, "one day is too long ago"
