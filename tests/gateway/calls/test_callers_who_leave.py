"""Callers that leave while a commit is under way: what the commit took is given back, and what it recorded is sent."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from gateway.calls.costs.entries import CostEntry
from gateway.server.composition import capacity
from gateway.state.claims.tables import claims
from gateway.state.effects.tables import subject_effects
from gateway.storage.database import Batch, Database
from gateway.storage.tables import budgets, reservations
from policies.tables import audit_records
from registry.cards.effects import parse_effects
from tests.fakes.processes import Process, process, sending, tool_call
from tests.fakes.waiting import SECONDS, until
from tests.fakes.writers import held_writer

BUDGET = {"per": [{"who": "user:*", "cost_per_day": 0.05}]}
MARK = {"subject": "item:{arguments.sku}", "effect": "stock-check", "claim": True, "once": True}


async def leave(database: Database, working: "asyncio.Task[Any]", is_at_commit: Any) -> None:
    """Cancels a call whose commit the writer has not done yet; the writer then does it."""
    await until(lambda: working.done() or is_at_commit())
    working.cancel()
    with suppress(asyncio.CancelledError):
        await working


def waits_for_commit(here: Process) -> Any:
    """Whether a call has handed its commit to the writer."""
    before = here.shaky.begun

    def has_begun() -> bool:
        return here.shaky.begun > before

    return has_begun


@asynccontextmanager
async def priced(tmp_path: Path, database_url: str) -> AsyncIterator[Process]:
    async with process(tmp_path / "here", database_url, limits=BUDGET) as here:
        await here.registered()
        for name in ("sales", "inventory"):
            entry = here.gateway.registry.find("default", name)
            effects: dict[str, Any] = {"effects": parse_effects({"check": MARK})} if name == "inventory" else {}
            await here.gateway.registry.update(replace(entry, prices={"*": 20_000}, **effects))
        await here.gateway.database.refresh_epochs()
        yield here


async def read(here: Process, *columns: Any) -> list[Any]:
    return [tuple(row) for row in await here.gateway.database.read(lambda found: found.execute(select(*columns)).all())]


async def test_a_tool_call_whose_caller_leaves_gives_back_what_it_took(tmp_path: Path, database_url: str) -> None:
    """Reservation, claim and `once` entry are taken by the commit of the grant, which a cancellation does not stop."""
    async with priced(tmp_path, database_url) as here:
        caller = await here.caller()
        with held_writer(here.gateway.database):
            working = asyncio.create_task(here.calls.servers.call(caller, tool_call("SKU-7")))
            await leave(here.gateway.database, working, waits_for_commit(here))

        async def is_given_back() -> bool:
            return await read(here, reservations.c.id) == [] and await read(here, budgets.c.cost, budgets.c.reserved) == [(0, 0)]

        await until(is_given_back)
        assert here.tools.calls == []
        assert await read(here, subject_effects.c.state) == [("failed",)]
        assert await read(here, claims.c.state) == [("ended",)]
        outcomes = [json.loads(body) for (body,) in await read(here, audit_records.c.body) if '"outcome"' in body]
        assert [each["outcome"] for each in outcomes] == ["canceled"]
        await here.calls.servers.call(caller, tool_call("SKU-7"))  # nothing is under way
        assert len(here.tools.calls) == 1


async def test_a_cancellation_after_the_commit_gives_back_too(database: Database) -> None:
    """The writer has answered both in one round of the event loop, and the second caller is canceled before it runs."""
    given_back: list[str] = []
    second: list[asyncio.Task[str]] = []

    async def cancel_second() -> None:
        await database.write(lambda batch: None)
        second[0].cancel()

    with held_writer(database):
        first = asyncio.create_task(cancel_second())
        second.append(asyncio.create_task(database.write(lambda batch: "taken", given_back.append)))
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await second[0]
    await first
    assert given_back == ["taken"]


async def test_a_write_that_fails_gives_nothing_back(database: Database) -> None:
    given_back: list[object] = []

    def fail(_batch: Batch) -> None:
        raise ValueError

    with held_writer(database):
        work = asyncio.create_task(database.write(fail, given_back.append))
        await asyncio.sleep(0)
        work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    await database.write(lambda batch: None)
    assert given_back == []


async def test_a_recorded_message_is_sent_although_its_caller_left(tmp_path: Path) -> None:
    async with priced(tmp_path, f"sqlite:///{tmp_path / 'i.db'}") as here:
        caller = await here.caller()
        with held_writer(here.gateway.database):
            working = asyncio.create_task(here.calls.agents.send(caller, sending("hello")))
            await leave(here.gateway.database, working, waits_for_commit(here))

        async def is_settled() -> bool:
            return await read(here, budgets.c.cost, budgets.c.reserved) == [(20_000, 0)]

        await until(is_settled)
        assert [text for text, _ in here.agents.calls] == ["hello"]
        assert await read(here, func.count(reservations.c.id)) == [(0,)]


async def test_a_tool_call_whose_caller_leaves_while_it_is_priced_is_settled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    is_asked, gate = threading.Event(), threading.Event()

    def load_prices() -> Any:
        is_asked.set()
        gate.wait(SECONDS)
        return lambda usage: Decimal("0.003")

    monkeypatch.setattr(capacity, "_load_prices", load_prices)
    async with process(tmp_path / "here", f"sqlite:///{tmp_path / 'i.db'}", limits=BUDGET) as here:
        await here.registered()
        usage = {"model": "gpt-4o", "input_tokens": 1, "output_tokens": 1}
        here.tools.result = json.dumps({"content": [], "_meta": {"usage": usage}}).encode()
        entry = here.gateway.registry.find("default", "inventory")
        await here.gateway.database.write(partial(add_past_cost, target=entry.name))
        working = asyncio.create_task(here.calls.servers.call(await here.caller(), tool_call("SKU-7")))
        await until(is_asked.is_set)
        assert await read(here, budgets.c.cost, budgets.c.reserved) == [(0, 10_000)]
        working.cancel()
        with pytest.raises(asyncio.CancelledError):
            await working
        gate.set()

        async def is_settled() -> bool:
            return await read(here, budgets.c.cost, budgets.c.reserved) == [(3_000, 0)]

        await until(is_settled)


def add_past_cost(batch: Batch, target: str) -> None:
    """A past call, by which the next one reserves 0.01."""
    CostEntry("default", "o", "", target, "check", "", "x", 10_000).write(batch, ("d_past", 0), "", 1)
