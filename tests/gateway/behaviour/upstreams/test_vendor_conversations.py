"""Conversations with agents that remember nothing: the gateway keeps them, for the person who had them."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.fakes.a2a_agents import serving
from tests.fakes.ag_ui_server import AgUiServer
from tests.fakes.house import House
from tests.fakes.reception import Reception

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture
async def agent() -> AgUiServer:
    return AgUiServer()


@pytest.fixture
async def desk(home: House, agent: AgUiServer) -> AsyncIterator[Reception]:
    """With the agent registered as `forgetful`."""
    async with serving(agent) as url:
        desk = Reception(home)
        answer = await desk.post("/api/agents", url=url, kind="ag-ui", name="forgetful", upstream={"about": "It forgets."})
        assert answer.status_code == 201, answer.text
        yield desk


async def said(desk: Reception, text: str, user: str = "alice", **more: Any) -> Any:
    message = {"messageId": f"m-{text}", "role": "ROLE_USER", "parts": [{"text": text}], **more}
    answer = await desk.home.rpc("/agents/forgetful", desk.home.token(user), "SendMessage", {"message": message}, **{"A2A-Version": "1.0"})
    told = answer.json()
    return told["result"]["task"] if "result" in told else told["error"]


def texts(body: Any) -> list[str]:
    return [each["content"] for each in body["messages"]]


async def test_a_later_task_of_a_conversation_goes_on_with_it(desk: Reception, agent: AgUiServer) -> None:
    first = await said(desk, "one")
    await said(desk, "two", contextId=first["contextId"])
    assert texts(agent.bodies[1]) == ["one", "1 messages", "two"]
    assert agent.bodies[1]["state"] == {"runs": 1}
    assert len({each["threadId"] for each in agent.bodies}) == 1
    assert len({each["runId"] for each in agent.bodies}) == 2


async def test_nobody_else_is_shown_it(desk: Reception, agent: AgUiServer) -> None:
    first = await said(desk, "one")
    await said(desk, "two", user="bob", contextId=first["contextId"])
    await said(desk, "three")
    assert [texts(each) for each in agent.bodies[1:]] in ([["two"], ["three"]], [["three"]])
    assert len({each["threadId"] for each in agent.bodies}) == len(agent.bodies)
