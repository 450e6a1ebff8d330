"""The reservation of a turn whose process is gone: the process that goes on with it settles it, once."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from adapters.contract import Call, Done, Event, Progress, Turn, token_usage_metadata
from gateway.calls.costs.expiry import ExpiredReservations
from gateway.storage.tables import budgets, costs
from gateway.telemetry.spans import TraceContext
from policies.ids import now_us
from tests.fakes.processes import Process, process, sending
from tests.fakes.waiting import until
from tests.gateway.behaviour.delegated_tasks.test_takeover import Lasting, at_work, ended, gone

LIMITS = {"per": [{"who": "user:*", "cost_per_day": 0.05}]}
RESERVED, COST = 10_000, 7500


@pytest.fixture
async def here(tmp_path: Path, database_url: str) -> AsyncIterator[Process]:
    agents = Lasting()
    agents.answer = (Done(metadata=token_usage_metadata("gpt-4o", 1000, 500)),)
    async with process(tmp_path / "here", database_url, agents, limits=LIMITS) as built:
        yield await built.registered()


@pytest.fixture
async def there(here: Process, tmp_path: Path, database_url: str) -> AsyncIterator[Process]:
    async with process(tmp_path / "there", database_url, here.agents, limits=LIMITS) as built:
        yield built


async def read(at: Process, *columns: Any) -> list[Any]:
    return [tuple(row) for row in await at.gateway.database.read(lambda found: found.execute(select(*columns)).all())]


async def test_a_turn_that_is_taken_over_is_settled_with_its_cost(here: Process, there: Process) -> None:  # attack CST-01
    (task_id,) = await at_work(here)
    await gone(here)
    assert await there.takeover.run_once() == 1
    assert await read(there, budgets.c.cost, budgets.c.reserved) == [(0, RESERVED)]
    here.agents.gate.set()
    await ended(there, task_id)
    assert await read(there, budgets.c.cost, budgets.c.reserved) == [(COST, 0)]
    assert await read(there, costs.c.amount, costs.c.charged) == [(COST, COST)]


async def test_a_turn_that_nobody_can_finish_is_charged_by_its_reservation(here: Process, there: Process) -> None:  # attack CST-01
    (task_id,) = await at_work(here)
    await gone(here)
    here.agents.offers_it = False  # type: ignore[attr-defined]  # of a Lasting
    assert await there.takeover.run_once() == 1
    await ended(there, task_id)
    gateway = there.gateway
    soon = ExpiredReservations(gateway.database, lambda: now_us() + 60_000_000)
    await soon.run_once()
    assert await read(there, budgets.c.cost, budgets.c.reserved) == [(RESERVED, 0)]
    assert [(amount, charged) for amount, charged in await read(there, costs.c.amount, costs.c.charged) if charged] == [(None, RESERVED)]


async def test_a_turn_that_another_process_canceled_has_its_cost(here: Process, there: Process) -> None:
    async def answer_late(turn: Turn, call: Call) -> AsyncIterator[Event]:
        yield Progress()
        await here.agents.gate.wait()
        yield here.agents.answer[0]  # type: ignore[attr-defined]  # of a Lasting

    here.agents.script = answer_late
    await there.gateway.registry.reload()
    opened = await here.calls.agents.start(await here.caller(), sending("hi"))
    await until(lambda: len(here.agents.calls) == 1)
    await there.calls.agents.cancel(await there.caller(), "sales", opened.row.id, TraceContext())
    here.agents.gate.set()

    async def is_settled() -> bool:
        return await read(there, budgets.c.cost, budgets.c.reserved) == [(COST, 0)]

    await until(is_settled)
    assert await read(there, costs.c.amount, costs.c.charged) == [(COST, COST)]


async def test_parallel_turns_of_two_processes_reserve_no_more_than_is_left(here: Process, there: Process) -> None:  # attack CST-01
    await there.gateway.registry.reload()
    callers = [(each, await each.caller()) for each in (here, there)]

    async def start(at: int) -> object:
        process_of_call, caller = callers[at % 2]
        return await process_of_call.calls.agents.start(caller, sending(str(at)))

    begun = await asyncio.gather(*(start(at) for at in range(50)), return_exceptions=True)
    assert len([each for each in begun if not isinstance(each, Exception)]) == 5
    assert await read(here, budgets.c.cost, budgets.c.reserved) == [(0, 5 * RESERVED)]
    await until(lambda: len(here.agents.calls) == 5)
