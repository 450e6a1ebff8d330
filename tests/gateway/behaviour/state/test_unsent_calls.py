"""Calls with a declared effect that were never sent: no cool-down rests the subject, and nobody has contacted it."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from gateway.state.claims.tables import claims
from gateway.state.effects.tables import subject_effects
from tests.fakes.house import CallbackAgent, House
from tests.fakes.ports import nowhere
from tests.gateway.behaviour.state.test_conflict_rules import MAIL, declare, open_scene

REST: dict[str, Any] = {"claim": True, "cool_down": 3600}
VISIT = {"*": {"subject": "customer:{arguments.customer}", "effect": "visit", **REST}}
CLAIMING = {"send": {**MAIL["send"], **REST}}


@pytest.fixture
async def home(tmp_path: Path, database_url: str) -> AsyncIterator[House]:
    async with open_scene(tmp_path, database_url) as built:
        yield built


async def read_states(home: House) -> tuple[list[str], list[str]]:
    """The states of all effects, and of all claims."""
    both = (select(subject_effects.c.state).order_by(subject_effects.c.at), select(claims.c.state).order_by(claims.c.token))
    found = await home.gateway.database.read(lambda connection: [connection.execute(query).scalars().all() for query in both])
    return list(found[0]), list(found[1])


async def visit(home: House, user: str) -> Any:
    return await home.send(home.token(user), "field", "", parts=[{"text": "visit"}, {"data": {"customer": 42}}])


async def test_an_agent_that_was_not_reached_leaves_no_cool_down(home: House) -> None:
    await home.registered("field", nowhere())
    await declare(home, "field", VISIT)
    answer = await visit(home, "alice")
    assert answer["result"]["task"]["status"]["state"] == "TASK_STATE_FAILED"
    assert await read_states(home) == (["failed"], ["ended"])
    assert "result" in await visit(home, "bob")


async def test_an_agent_that_was_reached_leaves_its_cool_down(home: House) -> None:
    await home.agent(CallbackAgent("field"))
    await declare(home, "field", VISIT)
    assert (await visit(home, "alice"))["result"]["task"]["status"]["state"] == "TASK_STATE_COMPLETED"
    assert await read_states(home) == (["done"], ["cooling"])
    assert "error" in await visit(home, "bob")


async def test_a_call_that_breaks_before_it_is_sent_leaves_no_cool_down(home: House, monkeypatch: pytest.MonkeyPatch) -> None:
    await declare(home, "mail", CLAIMING)
    token = home.token("admin")

    def break_down(*_given: Any, **_more: Any) -> None:
        raise RuntimeError("no header can be made")

    with monkeypatch.context() as broken:
        broken.setattr(home.gateway.authorizer.call_builder, "build_call", break_down)
        assert (await home.call(token, "/mcp/mail", "send", {"customer_id": 42})).status_code == 500
    assert await read_states(home) == (["failed"], ["ended"])
    assert "result" in (await home.call(token, "/mcp/mail", "send", {"customer_id": 42})).json()
