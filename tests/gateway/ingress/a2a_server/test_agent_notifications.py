"""Agents that push to us: what they ring for, and what they can't do with it."""

import asyncio
import json
from typing import Any

import pytest

from adapters.a2a_client import agent as a2a_agent
from tests.fakes.a2a_agents import serving
from tests.fakes.house import House
from tests.fakes.waiting import until


@pytest.fixture(autouse=True)
def _nobody_asks_by_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(a2a_agent, "_POLL_PUSHING_SECONDS", 3600.0)


class PushingAgent:
    """An A2A 1.0 agent without streaming: answers at once, works until `finish`, and rings where it was told to."""

    def __init__(self, home: House) -> None:
        self.home = home
        self.asked: list[str] = []
        self.notify = ""
        self.state = "TASK_STATE_WORKING"

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        request = json.loads((await receive())["body"])
        self.asked.append(request["method"])
        if request["method"] == "SendMessage":
            configuration = request["params"].get("configuration", {})
            self.notify = configuration.get("taskPushNotificationConfig", {}).get("url", "")
            assert configuration.get("returnImmediately", False) is bool(self.notify)
        result = self.task() if request["method"] == "GetTask" else {"task": self.task()}
        answer = json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": result}).encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
        await send({"type": "http.response.body", "body": answer})

    def task(self) -> dict[str, Any]:
        return {"id": "theirs", "contextId": "c", "status": {"state": self.state}}

    async def ring(self, body: bytes, url: str = "") -> int:
        return (await self.home.http.post(url or self.notify, content=body)).status_code


async def pushing(home: House, wanted: bool = True) -> PushingAgent:
    agent = PushingAgent(home)
    url = await home.stack.enter_async_context(serving(agent))
    await home.registered("pusher", url, upstream={"push": wanted}, capabilities={"pushNotifications": True})
    return agent


def update(task_id: str = "theirs") -> bytes:
    event = {"taskId": task_id, "contextId": "c", "status": {"state": "TASK_STATE_COMPLETED"}}
    return json.dumps({"statusUpdate": event}).encode()


async def test_a_ring_ends_a_turn_long_before_it_would_be_asked_for(home: House) -> None:
    agent = await pushing(home)
    sending = asyncio.create_task(home.send(home.token("alice"), "pusher", "go"))
    await until(lambda: agent.notify != "")
    assert await agent.ring(b"garbage") == 400
    assert await agent.ring(update(), agent.notify[:-1]) == 404
    assert await agent.ring(update(), agent.notify.replace("pusher", "other")) == 404
    assert (await home.http.get(agent.notify)).status_code == 405
    assert agent.asked == ["SendMessage"]
    agent.state = "TASK_STATE_COMPLETED"
    assert await agent.ring(update()) == 202
    answer = await asyncio.wait_for(sending, 60)
    assert answer["result"]["task"]["status"]["state"] == "TASK_STATE_COMPLETED"
    assert agent.asked == ["SendMessage", "GetTask"]
    assert await agent.ring(update()) == 404


async def test_what_is_pushed_is_believed_only_when_the_agent_says_so_itself(home: House) -> None:
    agent = await pushing(home)
    sending = asyncio.create_task(home.send(home.token("alice"), "pusher", "go"))
    await until(lambda: agent.notify != "")
    assert await agent.ring(update()) == 202
    await until(lambda: agent.asked == ["SendMessage", "GetTask"])
    assert not sending.done()
    assert await agent.ring(json.dumps({"kind": "task", "id": "theirs", "contextId": "c", "status": {"state": "odd"}}).encode()) == 202
    await until(lambda: len(agent.asked) == 3)
    agent.state = "TASK_STATE_FAILED"
    assert await agent.ring(json.dumps({**agent.task(), "kind": "task", "status": {"state": "failed"}}).encode()) == 202
    assert (await sending)["result"]["task"]["status"]["state"] == "TASK_STATE_FAILED"


async def test_an_agent_is_not_asked_to_push_unless_the_operator_says_so(home: House) -> None:
    agent = await pushing(home, wanted=False)
    agent.state = "TASK_STATE_COMPLETED"
    answer = await home.send(home.token("alice"), "pusher", "go")
    assert answer["result"]["task"]["status"]["state"] == "TASK_STATE_COMPLETED"
    assert agent.notify == ""
