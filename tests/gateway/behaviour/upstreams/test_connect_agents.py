"""Claims about agents that people's own accounts open: the same page, the same vault, and the task goes on by itself."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from tests.fakes.authorization_server import AuthorizationServer, Protected, authorization_server, protected
from tests.fakes.house import CallbackAgent, House
from tests.gateway.behaviour.upstreams.test_connect import Place, address


class Leak(CallbackAgent):
    """Says what it was shown."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            self.shown = dict(scope["headers"]).get(b"authorization", b"").decode()
        await super().__call__(scope, receive, send)


class Agents(Place):
    """A gateway with an agent `vendor` behind an authorization server."""

    agent: Leak

    async def ended(self, task_id: str, user: str = "alice") -> Any:
        return await self.over("vendor", task_id, user)

    async def over(self, name: str, task_id: str, user: str = "alice") -> Any:
        async with asyncio.timeout(60):
            while True:
                task = (await self.home.send_get(self.home.token(user), name, task_id))["result"]
                if task["status"]["state"] not in ("TASK_STATE_AUTH_REQUIRED", "TASK_STATE_WORKING"):
                    return task
                await asyncio.sleep(0.02)


@pytest.fixture
async def place(open_home: House) -> AsyncIterator[Agents]:
    async with AsyncExitStack() as stack:
        issuer: AuthorizationServer = await stack.enter_async_context(authorization_server())
        agent = Leak("vendor")
        server: Protected = await stack.enter_async_context(protected(agent, lambda: issuer))
        made = Agents(open_home, issuer, server, None)  # type: ignore[arg-type]  # it is no MCP server
        made.agent = agent
        await open_home.registered("vendor", f"{server.origin}/mcp", upstream={"auth": {}}, delegation="header")
        yield made


async def asked(place: Agents, text: str = "hello", user: str = "alice") -> Any:
    task = (await place.home.send(place.home.token(user), "vendor", text))["result"]["task"]
    assert task["status"]["state"] == "TASK_STATE_AUTH_REQUIRED"
    return task


async def test_a_message_waits_for_the_consent_and_goes_on_by_itself(place: Agents) -> None:
    waiting = await asked(place)
    assert place.agent.requests == []
    await place.connect(address(waiting["status"]["message"]["parts"][0]["text"]), "alice")
    task = await place.ended(waiting["id"])
    assert task["status"]["state"] == "TASK_STATE_COMPLETED"
    assert task["artifacts"][0]["parts"][0]["text"] == "vendor got: hello"
    sent = await place.home.send(place.home.token("alice"), "vendor", "again")
    assert sent["result"]["task"]["artifacts"][0]["parts"][0]["text"] == "vendor got: again"
    assert "interlock-delegation" in place.agent.headers[-1]  # beside, and not instead


# attack DLG-11
async def test_without_the_persons_credential_nobody_elses_is_used(place: Agents) -> None:
    await place.connect(address((await asked(place))["status"]["message"]["parts"][0]["text"]), "alice")
    done = len(place.agent.requests)
    await asked(place, user="bob")
    for key, _ in await place.home.gateway.vault.list_of_owner("default", "default|interlock-development|alice"):
        await place.home.gateway.vault.delete(key)
    await asked(place)
    assert len(place.agent.requests) <= done + 1  # the first, which went on by itself


async def test_an_answer_to_the_question_makes_the_message_go_on_too(place: Agents) -> None:
    waiting = await asked(place)
    again = await place.home.send(place.home.token("alice"), "vendor", "done?", taskId=waiting["id"])
    assert again["result"]["task"]["status"]["state"] == "TASK_STATE_AUTH_REQUIRED"
    await place.connect(address(waiting["status"]["message"]["parts"][0]["text"]), "alice")
    task = await place.ended(waiting["id"])
    assert task["artifacts"][0]["parts"][0]["text"] == "vendor got: hello"


# attack LOG-02
async def test_what_an_agent_says_of_its_credential_goes_no_further(place: Agents) -> None:
    async def tells(token: str, text: str) -> str:
        return f"I was shown {place.agent.shown}"

    waiting = await asked(place)
    await place.connect(address(waiting["status"]["message"]["parts"][0]["text"]), "alice")
    await place.ended(waiting["id"])
    place.agent.act = tells
    sent = await place.home.send(place.home.token("alice"), "vendor", "what is it?")
    assert place.agent.shown.removeprefix("Bearer ") in place.issuer.tokens
    assert place.agent.shown.removeprefix("Bearer ") not in json.dumps(sent)
    assert "I was shown ***" in json.dumps(sent)


@pytest.mark.parametrize(
    ("state", "end"), [("TASK_STATE_AUTH_REQUIRED", "TASK_STATE_COMPLETED"), ("TASK_STATE_COMPLETED", "TASK_STATE_REJECTED")]
)
async def test_a_chain_is_asked_for_the_person_it_began_with(place: Agents, state: str, end: str) -> None:
    """The agent before hears of the address, which is the person's to open. Nothing goes on for an agent whose own task is over."""
    heard: list[Any] = []

    async def delegates(token: str, text: str) -> str:
        hop = await place.home.exchanged("sales", token, "/agents/vendor", "agent:vendor")
        task = (await place.home.send(hop, "vendor", "for alice"))["result"]["task"]
        heard.append(task)
        return str(task["status"]["message"]["parts"][0]["text"])

    sales = await place.home.agent(CallbackAgent("sales", delegates))
    sales.state = state
    sent = await place.home.send(place.home.token("alice"), "sales", "ask the vendor")
    assert heard[0]["status"]["state"] == "TASK_STATE_AUTH_REQUIRED"
    url = address(json.dumps([sent, heard]))
    done = await place.connect(url, "alice")
    assert "Connected" in done.text
    task = await place.ended(heard[0]["id"])
    assert task["status"]["state"] == end
    got = [one["params"]["message"]["parts"] for one in place.agent.requests]
    assert got == ([[{"text": "for alice"}]] if end == "TASK_STATE_COMPLETED" else [])


async def test_what_waits_for_a_consent_can_be_canceled(place: Agents) -> None:
    waiting = await asked(place)
    token = place.home.token("alice")
    canceled = await place.home.rpc("/agents/vendor", token, "CancelTask", {"id": waiting["id"]}, **{"A2A-Version": "1.0"})
    assert canceled.json()["result"]["status"]["state"] == "TASK_STATE_CANCELED"


async def test_a_hop_token_has_no_place_beside_a_vendors(place: Agents) -> None:
    refused = await place.api("PATCH", "/api/agents/vendor", json={"delegation": "bearer", "upstream": {"auth": {}}})
    assert (refused.status_code, refused.json()["detail"][:10]) == (422, "delegation")
