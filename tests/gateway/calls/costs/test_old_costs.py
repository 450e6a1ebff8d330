"""Costs of long ago are deleted, and those that a run that has not ended still adds up are not."""

from collections.abc import Iterator

import pytest
from sqlalchemy import select, update

from gateway.calls.costs import expiry
from gateway.calls.costs.entries import CostEntry
from gateway.calls.costs.expiry import DAY_US, OldCosts
from gateway.storage.batch import Batch
from gateway.storage.database import Database
from gateway.storage.tables import costs, legal_holds, tasks
from tests.gateway.calls.costs.test_reservations import RUN, RUNS, open_runs

NOW = 900 * DAY_US


def add(batch: Batch, call: str, at: int, *, task_id: str = "t_gone", run_id: str = "") -> None:
    CostEntry("acme", "o", "", "sales", "", "", "x", 5, run_id=run_id).write(batch, (call, 0), task_id, at)


async def left(database: Database) -> list[str]:
    query = select(costs.c.id).order_by(costs.c.id)
    return list(await database.read(lambda connection: connection.execute(query).scalars().all()))


@pytest.fixture
def small_portions(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(expiry, "PRUNED_AT_ONCE", 2)
    yield


@pytest.mark.usefixtures("small_portions")
async def test_old_costs_are_deleted_in_small_portions(database: Database) -> None:
    for number in range(5):
        await database.write(lambda batch, number=number: add(batch, f"old{number}", NOW - 400 * DAY_US - 1 - number))
    await database.write(lambda batch: add(batch, "young", NOW - 400 * DAY_US))
    old = OldCosts(database, lambda: NOW, kept_days=400)
    assert [await old.prune() for _ in range(2)] == [5, 0]
    assert await left(database) == ["young"]


async def test_costs_of_tasks_and_runs_that_have_not_ended_stay(database: Database) -> None:
    await database.write(lambda batch: open_runs(batch, "acme"))
    await database.write(lambda batch: add(batch, "of_run", 1, run_id=RUNS[RUN]))
    await database.write(lambda batch: add(batch, "of_task", 1, task_id=RUNS[RUN]))
    old = OldCosts(database, lambda: NOW, kept_days=400)
    assert await old.prune() == 0
    await database.write(lambda batch: batch.connection.execute(update(tasks).values(state="TASK_STATE_CANCELED")))
    assert await old.prune() == 2
    assert await left(database) == []


async def test_costs_that_are_held_stay(database: Database) -> None:
    await database.write(lambda batch: add(batch, "old", 1))
    found = await database.query("SELECT tenant, owner FROM costs", (), lambda rows: rows[0])
    hold = {"tenant": found[0], "id": "h", "kind": "person", "name": found[1], "reason": "", "placed_by": "", "placed_at": 1}
    await database.write(lambda batch: batch.add(legal_holds, hold))
    old = OldCosts(database, lambda: NOW, kept_days=400)
    assert await old.prune() == 0
    await database.write(lambda batch: batch.run("DELETE FROM legal_holds", ()))
    assert await old.prune() == 1
