"""Laws of reservations, on both databases: no interleaving of calls takes more than a budget has, and no reservation is lost."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, select, update

from gateway.calls.costs.entries import CostEntry
from gateway.calls.costs.expiry import GRACE_US, ExpiredReservations
from gateway.calls.costs.reservations import CallPlace, Share, StoredEntry, charge_unreserved, settle, take_shares
from gateway.storage.database import Batch, Database, engine_for
from gateway.storage.tables import budgets, costs, reservations, run_budgets, tasks

DAY = "2026-11-23"
NARROW, WIDE, RUN, OUTER_RUN = "narrow", "wide", "run", "outer run"
MOST = {NARROW: 100, WIDE: 150, RUN: 60, OUTER_RUN: 90}
RUNS = {RUN: "t_inner", OUTER_RUN: "t_outer"}  # budgets of runs; the others are for a day
numbers = count()


def reserve(batch: Batch, tenant: str, call: str, amount: int, names: tuple[str, ...] = (NARROW,), task_id: str = "") -> bool:
    """Takes a call's reservation, as the commit of its grant does."""
    shares = [Share(name, amount, MOST[name], RUNS.get(name, "")) for name in names]
    if take_shares(batch, tenant, DAY, shares) is not None:
        return False
    entry = StoredEntry(CostEntry(tenant, "o", "", "sales", "", "", "x", None), task_id)
    texts = {"shares": msgspec.json.encode(shares).decode(), "entry": msgspec.json.encode(entry).decode()}
    row = {"tenant": tenant, "id": call, "task_id": task_id, "day": DAY, "amount": amount, "until": 1_000_000}
    batch.add(reservations, row | texts)
    return True


async def stored(database: Database, tenant: str) -> dict[str, tuple[int, int]]:
    """What is spent and reserved of each budget."""
    found: dict[str, tuple[int, int]] = {}
    for table in (budgets, run_budgets):
        query = select(table.c.name, table.c.cost, table.c.reserved).where(table.c.tenant == tenant)
        found |= {row.name: (row.cost, row.reserved) for row in await database.read(partial(_execute, query=query))}
    return found


def _execute(connection: Connection, query: Any) -> Any:
    return connection.execute(query).all()


def open_runs(batch: Batch, tenant: str) -> None:
    """Adds the tasks of the runs that have budgets."""
    for task_id in RUNS.values():
        empty = dict.fromkeys(("context_id", "agent", "parent_id", "txn", "decision_id", "grant_id", "runner", "vendor_ref"), "")
        row = {"tenant": tenant, "id": task_id, "owner": "o", "state": "TASK_STATE_WORKING", "last_seq": 0, "created": 0, "updated": 0}
        batch.add(tasks, {**empty, **row, "request_digest": "", "trace": ""})


@dataclass
class Model:
    """What budgets have to be like."""

    cost: dict[str, int] = field(default_factory=lambda: dict.fromkeys(MOST, 0))
    open_calls: dict[str, tuple[int, tuple[str, ...]]] = field(default_factory=dict)

    def reserved(self, name: str) -> int:
        return sum(amount for amount, names in self.open_calls.values() if name in names)

    def has_room(self, amount: int, names: tuple[str, ...]) -> bool:
        return all(self.cost[name] + self.reserved(name) + amount <= MOST[name] for name in names)

    def settle(self, call: str, cost: int | None) -> None:
        amount, names = self.open_calls.pop(call)
        for name in names:
            self.cost[name] += amount if cost is None else cost


NAMES = st.lists(st.sampled_from([*MOST]), min_size=1, unique=True).map(tuple)  # any budgets at once
RESERVE = st.tuples(st.just("reserve"), st.integers(1, 70), NAMES)
SETTLE = st.tuples(st.just("settle"), st.integers(0, 9), st.none() | st.integers(0, 70))
COMMITS = st.lists(st.tuples(st.integers(0, 1), st.lists(RESERVE | SETTLE, min_size=1, max_size=4)), min_size=1, max_size=12)


@pytest.fixture
async def stores(database: Database, database_url: str) -> AsyncIterator[tuple[Database, Database]]:
    """Those of two processes; of one on SQLite, which only one process uses."""
    if database.is_sqlite:
        yield database, database
        return
    other = Database(engine_for(database_url))
    other.start()
    yield database, other
    other.close()


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(COMMITS)
def test_no_interleaving_of_two_processes_exceeds_a_budget(database_url: str, commits: list[Any]) -> None:
    """Attack CST-01: each commit has calls that begin and end in either process."""
    asyncio.run(_compare_with_model(database_url, commits))


async def _compare_with_model(database_url: str, commits: list[Any]) -> None:
    opened = [Database(engine_for(database_url)) for _ in range(1 if database_url.startswith("sqlite") else 2)]
    for each in opened:
        each.start()
    try:
        tenant, model = f"t{next(numbers)}", Model()
        await opened[0].write(partial(open_runs, tenant=tenant))
        for process, calls in commits:
            await opened[process % len(opened)].write(partial(_run, tenant=tenant, model=model, calls=calls))
            found = await stored(opened[0], tenant)
            assert found == {name: (model.cost[name], model.reserved(name)) for name in found}
            over = {name: cost + reserved - MOST[name] for name, (cost, reserved) in found.items()}
            assert all(excess <= 0 for excess in over.values())
    finally:
        for each in opened:
            each.close()


def _run(batch: Batch, tenant: str, model: Model, calls: list[Any]) -> None:
    for kind, number, given_value in calls:
        if kind == "reserve":
            call, expected = f"d{next(numbers)}", model.has_room(number, given_value)
            assert reserve(batch, tenant, call, number, given_value) is expected
            if expected:
                model.open_calls[call] = (number, given_value)
        elif model.open_calls:
            call = sorted(model.open_calls)[number % len(model.open_calls)]
            amount = model.open_calls[call][0]
            cost = None if given_value is None else min(given_value, amount)
            assert settle(batch, CallPlace(tenant, call, ""), cost) == (amount if cost is None else cost)
            model.settle(call, cost)


async def test_of_fifty_parallel_calls_one_gets_the_last_cent(stores: tuple[Database, Database]) -> None:  # attack CST-01
    await stores[0].write(lambda batch: charge_unreserved(batch, "acme", DAY, [Share(NARROW, 0, MOST[NARROW])], 90))
    begun = await asyncio.gather(*(stores[at % 2].write(partial(reserve, tenant="acme", call=f"d{at}", amount=10)) for at in range(50)))
    assert begun.count(True) == 1
    assert await stored(stores[0], "acme") == {NARROW: (90, 10)}


async def test_two_processes_that_change_budgets_in_other_orders_do_not_block(stores: tuple[Database, Database]) -> None:
    async def work(process: int, names: tuple[str, str]) -> None:
        def begin(batch: Batch, number: int) -> None:
            for name in names:
                assert reserve(batch, "acme", f"d{process}-{number}-{name}", 1, (name,))

        for number in range(10):
            await stores[process].write(partial(begin, number=number))

    await asyncio.gather(work(0, (NARROW, WIDE)), work(1, (WIDE, NARROW)))
    assert await stored(stores[0], "acme") == {NARROW: (0, 20), WIDE: (0, 20)}


async def test_a_call_that_one_budget_refuses_takes_nothing_of_another(database: Database) -> None:
    assert await database.write(lambda batch: reserve(batch, "acme", "d1", 100, (NARROW,)))
    assert not await database.write(lambda batch: reserve(batch, "acme", "d2", 1, (NARROW, WIDE)))
    assert await stored(database, "acme") == {NARROW: (0, 100)} | ({WIDE: (0, 0)} if WIDE in await stored(database, "acme") else {})


async def test_fifty_calls_with_three_budgets_take_what_the_tightest_has(stores: tuple[Database, Database]) -> None:  # attack CST-01
    """A budget for a day and those of two runs, one within the other, raced by both processes."""
    await stores[0].write(partial(open_runs, tenant="acme"))
    names = (NARROW, OUTER_RUN, RUN)
    take = partial(reserve, tenant="acme", amount=10, names=names)
    begun = await asyncio.gather(*(stores[at % 2].write(partial(take, call=f"d{at}")) for at in range(50)))
    assert begun.count(True) == 6
    assert await stored(stores[0], "acme") == {NARROW: (0, 60), RUN: (0, 60), OUTER_RUN: (0, 60)}
    taken = [f"d{at}" for at, is_taken in enumerate(begun) if is_taken]
    settled = [stores[at % 2].write(partial(settle, place=CallPlace("acme", call, ""), cost=4)) for at, call in enumerate(taken)]
    assert await asyncio.gather(*settled) == [4] * 6
    assert await stored(stores[0], "acme") == {NARROW: (24, 0), RUN: (24, 0), OUTER_RUN: (24, 0)}


async def test_what_a_run_that_is_gone_costs_is_settled(database: Database) -> None:
    """The tasks of runs have a retention, and a call may end after it."""
    await database.write(partial(open_runs, tenant="acme"))
    await database.write(lambda batch: reserve(batch, "acme", "d1", 10, (NARROW, RUN)))
    await database.write(lambda batch: batch.run("DELETE FROM tasks WHERE tenant = ?", ("acme",)))
    assert await database.write(lambda batch: settle(batch, CallPlace("acme", "d1", ""), 4)) == 4
    unreserved = [Share(NARROW, 0, MOST[NARROW]), Share(RUN, 0, MOST[RUN], RUNS[RUN])]
    await database.write(lambda batch: charge_unreserved(batch, "acme", DAY, unreserved, 5))
    assert await stored(database, "acme") == {NARROW: (9, 0)}


async def test_a_call_that_costs_more_than_it_reserved_is_charged_all_of_it(database: Database) -> None:
    await database.write(lambda batch: reserve(batch, "acme", "d1", 60))
    assert await database.write(lambda batch: settle(batch, CallPlace("acme", "d1", ""), 120)) == 120
    assert await stored(database, "acme") == {NARROW: (120, 0)}
    assert not await database.write(lambda batch: reserve(batch, "acme", "d2", 1))


async def test_a_reservation_is_settled_once(database: Database) -> None:
    await database.write(lambda batch: reserve(batch, "acme", "d1", 60))
    charged = [await database.write(lambda batch: settle(batch, CallPlace("acme", "d1", ""), 50)) for _ in range(2)]
    assert charged == [50, None]
    assert await stored(database, "acme") == {NARROW: (50, 0)}


class TestExpiry:
    """Calls of processes that were killed."""

    @staticmethod
    def sweeper(database: Database, now: int) -> ExpiredReservations:
        return ExpiredReservations(database, lambda: now)

    async def test_two_lost_turns_of_a_task_are_charged_and_shown_as_one(self, database: Database) -> None:
        for call in ("d1", "d2"):
            await database.write(lambda batch, call=call: reserve(batch, "acme", call, 20, task_id="t_gone"))
        assert [await self.sweeper(database, 1_000_001).run_once() for _ in range(2)] == [2, 0]
        assert await stored(database, "acme") == {NARROW: (40, 0)}
        entries = await database.read(partial(_execute, query=select(costs.c.id, costs.c.charged)))
        assert [tuple(each) for each in entries] == [("t_gone", 40)]

    async def test_a_reservation_that_expires_is_charged_and_shown(self, database: Database) -> None:
        await database.write(lambda batch: reserve(batch, "acme", "d1", 60))
        assert await self.sweeper(database, 999_999).run_once() == 0
        assert [await self.sweeper(database, 1_000_001).run_once() for _ in range(2)] == [1, 0]
        assert await stored(database, "acme") == {NARROW: (60, 0)}
        (row,) = await database.read(lambda connection: connection.execute(select(costs)).all())
        assert (row.id, row.amount, row.charged, row.quarantined) == ("d1", None, 60, "expired")

    async def test_a_call_that_ends_late_is_charged_its_real_cost(self, database: Database) -> None:
        await database.write(lambda batch: reserve(batch, "acme", "d1", 60))
        await self.sweeper(database, 1_000_001).run_once()
        assert await database.write(lambda batch: settle(batch, CallPlace("acme", "d1", ""), 20)) == 20
        assert await stored(database, "acme") == {NARROW: (20, 0)}
        assert await database.read(lambda connection: connection.execute(select(costs)).all()) == []

    async def test_the_turn_of_a_task_that_is_gone_expires_at_once(self, database: Database) -> None:
        await database.write(lambda batch: reserve(batch, "acme", "d1", 60, task_id="task_1"))
        assert await self.sweeper(database, -GRACE_US).run_once() == 1

    async def test_what_expired_is_forgotten_after_a_day(self, database: Database) -> None:
        await database.write(lambda batch: reserve(batch, "acme", "d1", 60))
        await self.sweeper(database, 1_000_001).run_once()
        await database.write(lambda batch: reserve(batch, "acme", "d2", 10))
        await self.sweeper(database, 2 * 86_400_000_000).run_once()
        rows = await database.read(lambda connection: connection.execute(select(reservations.c.id)).scalars().all())
        assert rows == ["d2"]

    @pytest.mark.parametrize("column", ["shares", "entry"])
    async def test_a_reservation_that_cannot_be_read_stops_no_other(self, database: Database, column: str) -> None:
        for call in ("d1", "d2", "d3"):
            await database.write(lambda batch, call=call: reserve(batch, "acme", call, 20))
        spoil = update(reservations).where(reservations.c.id == "d2").values({column: '["shortened'})
        await database.write(lambda batch: batch.connection.execute(spoil))
        assert [await self.sweeper(database, 1_000_001).run_once() for _ in range(2)] == [3, 0]
        entries = await database.read(partial(_execute, query=select(costs.c.id).order_by(costs.c.id)))
        known = {"shares": (["d1", "d2", "d3"], (40, 20)), "entry": (["d1", "d3"], (60, 0))}
        assert ([each.id for each in entries], (await stored(database, "acme"))[NARROW]) == known[column]

    async def test_a_call_ends_although_its_reservation_cannot_be_read(self, database: Database) -> None:
        await database.write(lambda batch: reserve(batch, "acme", "d1", 20))
        await database.write(lambda batch: batch.connection.execute(update(reservations).values(shares="x")))
        assert await database.write(lambda batch: settle(batch, CallPlace("acme", "d1", ""), 5)) == 5

    async def test_two_processes_charge_an_expired_call_once(self, stores: tuple[Database, Database]) -> None:
        await stores[0].write(lambda batch: reserve(batch, "acme", "d1", 60))
        charged = await asyncio.gather(*(self.sweeper(store, 1_000_001).run_once() for store in stores))
        assert sum(charged) == 1
        assert await stored(stores[0], "acme") == {NARROW: (60, 0)}
