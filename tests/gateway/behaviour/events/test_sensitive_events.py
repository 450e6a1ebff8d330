"""An event that a run emits is as sensitive as what the run has read, and so is all that follows from it. Attack INJ-07."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from gateway.storage.tables import tasks
from policies.tables import transaction_history
from tests.fakes.event_house import dead_letters, event_house, send_event, stored
from tests.fakes.house import CallbackAgent, House
from tests.fakes.waiting import until
from tests.fakes.workflows import Workflows

OPEN = {"name": "open", "type": "shop.*", "run_as": "nightly", "workflow": "note", "input": {"order": "{data.order}"}}
TOLD = {"name": "told", "type": "shop.*", "run_as": "nightly", "agent": "public", "message": "Order {data.order}"}
NOTE = "do:\n- note: {set: '${ {noted: .order} }'}\n"
LOOK = """do:
- look: {call: gateway.tool, with: {tool: crm.find, arguments: {id: '7'}}, output: {as: '{order: 7}'}}
- tell: {emit: {event: {with: {type: shop.seen, data: {order: '${ .order }'}}}}}
"""
WAIT = "do:\n- wait: {listen: {to: {one: {with: {type: shop.seen}}}}}\n"
BY_EVENT = """document: {dsl: 1.0.3, namespace: tests, name: follower, version: 1.0.0, metadata: {gateway: {runAs: nightly}}}
schedule: {on: {one: {with: {type: shop.seen}}}}
do:
- done: {set: {done: true}}
"""


@pytest.fixture
async def home(tmp_path: Path, database_url: str) -> AsyncIterator[House]:
    async with event_house(tmp_path, database_url, triggers=[OPEN, TOLD]) as built:
        await built.agent(CallbackAgent("public"))
        await built.server("crm", "find")
        await label(built, "public", clearance=1)
        yield built


async def label(home: House, name: str, **labels: int) -> None:
    registry = home.gateway.registry
    await registry.update(replace(registry.find("default", name), **labels))  # type: ignore[arg-type]  # labels of a registration
    await home.gateway.database.refresh_epochs()


async def taint_of(home: House, agent: str) -> int:
    """The sensitivity of the transaction of an agent's only task."""
    history = transaction_history.c
    query = (
        select(history.taint).join(tasks, (tasks.c.tenant == history.tenant) & (tasks.c.txn == history.txn)).where(tasks.c.agent == agent)
    )
    found = await home.gateway.database.read(lambda connection: connection.execute(query).scalars().all())
    return max(found, default=0)


async def has_ended(home: House, agent: str) -> None:
    async def is_over() -> bool:
        await home.gateway.workflows.wake_once()
        query = select(tasks.c.state).where(tasks.c.agent == agent)
        return "TASK_STATE_COMPLETED" in await home.gateway.database.read(lambda connection: connection.execute(query).scalars().all())

    await until(is_over)


async def test_what_follows_from_an_emitted_event_is_as_sensitive_as_its_run(home: House) -> None:
    await label(home, "crm", sensitivity=2)
    workflows = Workflows(home)
    for name, body in (("note", NOTE), ("look", LOOK), ("waits", WAIT)):
        await workflows.add(name, body)
    assert (await workflows.desk.ask("POST", "/api/workflows", "admin", {"document": BY_EVENT})).status_code == 201
    await home.gateway.database.refresh_epochs()
    waiting = await workflows.start("waits", user="admin")
    await workflows.reached(waiting, "SUSPENDED", user="admin")
    await workflows.ended(await workflows.start("look", user="admin"), "admin")
    for agent in ("note", "waits", "follower"):
        await has_ended(home, agent)
        assert await taint_of(home, agent) == 2, agent
    assert [event.get("interlocksensitivity") for event in await stored(home)] == [2]
    await until_dead(home)
    (letter,) = await dead_letters(home)
    assert letter["target"] == "told" and "taint-exceeds-clearance" in await why(home)


async def until_dead(home: House) -> None:
    async def is_dead() -> bool:
        await home.gateway.workflows.wake_once()
        return bool(await dead_letters(home))

    await until(is_dead)


async def why(home: House) -> str:
    """The reason of the last refusal."""
    decisions: Any = await home.http.get("/api/audit?limit=200", headers={"authorization": f"Bearer {home.token('admin')}"})
    return str(decisions.text)


async def test_a_document_may_declare_that_its_event_is_less_sensitive(home: House) -> None:
    await label(home, "crm", sensitivity=2)
    workflows = Workflows(home)
    for most in (0, 1, 2):
        await workflows.add(
            f"look-{most}", LOOK.replace("}}}}\n", "}}}, metadata: {gateway: {sensitivity: MOST}}}\n").replace("MOST", str(most))
        )
        await workflows.ended(await workflows.start(f"look-{most}", user="admin"), "admin")
    marks = [event.get("interlocksensitivity") for event in await stored(home)]
    assert sorted(marks, key=lambda mark: mark or 0) == [None, 1, 2]


async def test_an_event_of_a_run_that_read_nothing_sensitive_has_no_mark(home: House) -> None:
    workflows = Workflows(home)
    await workflows.add("look", LOOK)
    await workflows.ended(await workflows.start("look", user="admin"), "admin")
    assert [event.get("interlocksensitivity") for event in await stored(home)] == [None]
    forged = await send_event(home, 2, interlocksensitivity=0)
    assert (forged.status_code, forged.json()["reason_id"]) == (422, "bad-event")
