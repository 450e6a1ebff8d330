"""Work on a subject that is not done twice: a repetition joins the task, or is refused with who does it."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.house import CallbackAgent, House
from tests.gateway.behaviour.state.test_conflict_rules import MAIL, declare, open_scene

REFUND = {"*": {"subject": "order:{arguments.order}", "effect": "refund", "purpose": "pay back", "once": True}}


@pytest.fixture
async def home(tmp_path: Path, database_url: str) -> AsyncIterator[House]:
    async with open_scene(tmp_path, database_url) as built:
        yield built


class SlowAgent(CallbackAgent):
    """An agent that works until the test lets it end."""

    def __init__(self, name: str) -> None:
        super().__init__(name, self._work)
        self.begun, self.may_end = asyncio.Event(), asyncio.Event()

    async def _work(self, token: str, text: str) -> str:
        self.begun.set()
        await self.may_end.wait()
        return "paid back"


async def ask(home: House, user: str, order: int) -> Any:
    return await home.send(home.token(user), "payments", "", parts=[{"text": "refund"}, {"data": {"order": order}}])


async def test_the_same_request_of_the_same_person_joins_the_task(home: House) -> None:
    agent = SlowAgent("payments")
    await home.agent(agent)
    await declare(home, "payments", REFUND)
    first = asyncio.create_task(ask(home, "alice", 7))
    await agent.begun.wait()
    second = asyncio.create_task(ask(home, "alice", 7))
    other = [await ask(home, "bob", 7) for _ in range(5)][-1]  # by then the second request has joined
    agent.may_end.set()
    answers = [(await each)["result"]["task"] for each in (first, second)]
    assert answers[0]["id"] == answers[1]["id"] and len(agent.requests) == 1
    assert answers[1]["status"]["state"] == "TASK_STATE_COMPLETED"
    assert "refund is being done to order:7 since" in other["error"]["message"] and "another person" in other["error"]["message"]
    assert "pay back" in other["error"]["message"] and "alice" not in other["error"]["message"]


async def test_after_the_end_the_same_can_be_done_again(home: House) -> None:
    agent = CallbackAgent("payments")
    await home.agent(agent)
    await declare(home, "payments", REFUND)
    ids = [(await ask(home, user, 7))["result"]["task"]["id"] for user in ("alice", "bob", "alice")]
    assert len(set(ids)) == 3 and len(agent.requests) == 3


async def test_two_requests_at_the_same_moment_start_one_task(home: House) -> None:
    agent = SlowAgent("payments")
    await home.agent(agent)
    await declare(home, "payments", REFUND)
    requests = [asyncio.create_task(ask(home, "alice", 7)) for _ in range(4)]
    await agent.begun.wait()
    agent.may_end.set()
    ids = {(await each)["result"]["task"]["id"] for each in requests}
    assert len(agent.requests) == len(ids)


async def test_a_tool_call_under_way_is_refused_with_who_makes_it(home: House) -> None:
    await declare(home, "mail", {"send": {**MAIL["send"], "once": True}})
    home.gateway.authorizer.effects.end_later = lambda *_given: None  # type: ignore[method-assign]  # a call that lasts
    token = home.token("admin")
    assert "result" in (await home.call(token, "/mcp/mail", "send", {"customer_id": 42})).json()
    error = (await home.call(token, "/mcp/mail", "send", {"customer_id": 42})).json()["error"]
    assert error["data"]["reason_id"] == "under-way" and "by admin (tell the customer)" in error["message"]
    assert "result" in (await home.call(token, "/mcp/mail", "send", {"customer_id": 43})).json()
