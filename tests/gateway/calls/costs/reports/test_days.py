"""Sums of days: a report says the same with and without them, and a late change of a cost is never lost."""

from datetime import date, timedelta
from itertools import product
from typing import Any

import pytest
from sqlalchemy import insert, select, update

from gateway.calls.costs.reports.days import DAY_US, DAYS_BACK, CostDays, forget_day_of
from gateway.calls.costs.reports.groups import CostGroup
from gateway.calls.costs.reports.report import CostFilter, CostPage, read_costs, read_day_sums
from gateway.storage.database import Database
from gateway.storage.tables import cost_days, cost_sums, costs, tasks

FIRST = 20_000  # a day since 1970
DAYS = 5
NOW = (FIRST + DAYS) * DAY_US + DAY_US // 2  # of the day after the last one
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


def days_of(database: Database, now: int = NOW) -> CostDays:
    return CostDays(database, lambda: ["t"], read_day_sums, lambda: now)


async def report(database: Database, owner: str, group: CostGroup, limit: int = 50) -> Any:
    wanted = CostFilter(*PERIOD, owner)
    return await database.read(lambda connection: read_costs(connection, "t", wanted, CostPage(group, "", limit), "USD"))


async def every_report(database: Database) -> dict[Any, Any]:
    return {(owner, group): await report(database, owner, group) for owner, group in product(("", *PEOPLE), CostGroup)}


async def test_reports_are_equal_with_and_without_sums_of_days(filled: Database) -> None:
    before = await every_report(filled)
    assert await days_of(filled).run_once() == DAYS
    assert await filled.read(lambda connection: connection.execute(cost_sums.select().limit(1)).first()) is not None
    assert await every_report(filled) == before
    with filled.engine.begin() as connection:  # so that the sums are what was read
        connection.execute(update(cost_sums).values(amount=cost_sums.c.amount + 1))
    assert await report(filled, "", CostGroup.AGENT) != before["", CostGroup.AGENT]


async def test_a_page_of_a_report_has_the_total_of_all_pages(filled: Database) -> None:
    whole = (await report(filled, "", CostGroup.AGENT))["total"]
    await days_of(filled).run_once()
    assert (await report(filled, "", CostGroup.AGENT, limit=1))["total"] == whole


async def test_a_late_change_makes_its_day_be_added_up_again(filled: Database) -> None:
    await days_of(filled).run_once()

    def change(batch: Any) -> None:
        forget_day_of(batch, "t", "c3")
        batch.run("UPDATE costs SET amount = 1000000 WHERE tenant = ? AND id = ?", ("t", "c3"))

    await filled.write(change)
    live = await report(filled, "", CostGroup.DAY)
    assert live["items"][0]["amount"].startswith("1.")
    assert await days_of(filled).run_once() == 1
    assert await report(filled, "", CostGroup.DAY) == live


async def test_a_day_is_not_added_up_before_its_last_calls_are_written(filled: Database) -> None:
    just_after = (FIRST + 1) * DAY_US + 60_000_000
    assert await days_of(filled, just_after).run_once() == 0
    assert await days_of(filled, just_after + 3_600_000_000).run_once() == 1


async def test_each_day_is_added_up_once(filled: Database) -> None:
    assert [await days_of(filled).run_once() for _ in range(2)] == [DAYS, 0]


async def test_the_sums_of_days_that_no_report_goes_back_to_are_deleted(filled: Database) -> None:
    await days_of(filled).run_once()
    later = days_of(filled, NOW + (DAYS_BACK - DAYS + 2) * DAY_US)
    for _ in range(4):  # more rounds than there are days to delete
        await later.run_once()
    for table in (cost_days, cost_sums):
        days = await filled.read(lambda connection, table=table: set(connection.execute(select(table.c.day)).scalars()))
        assert min(days) == FIRST + 1, "one day is too long ago"
