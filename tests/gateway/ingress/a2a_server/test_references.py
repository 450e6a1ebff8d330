"""`referenceTaskIds` (A2A 1.0 s3.4.3): the agent gets its own ids of the tasks that the caller may see, and no others."""

from typing import Any

import pytest

from tests.fakes.house import CallbackAgent, House
from tests.fakes.reference_clients import EVERY_DOOR, client_of, request, sent

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
CARRYING = tuple(door for door in EVERY_DOOR if door not in ("rest-0.3", "grpc-0.3"))  # their .proto file has no such field


def references(agent: CallbackAgent) -> Any:
    """Those that the last message to the agent had."""
    return agent.requests[-1]["params"]["message"].get("referenceTaskIds")


@pytest.mark.parametrize("door", CARRYING)
async def test_an_agent_gets_its_own_ids_of_the_tasks_that_a_message_refers_to(every_home: House, door: str) -> None:
    agent = await every_home.agent(CallbackAgent("sales"))
    async with client_of(every_home, door) as client:
        first, second = await sent(client, "one"), await sent(client, "two")
        await sent(client, "both", reference_task_ids=[second.id, first.id, second.id])
        assert references(agent) == ["sales-task-2", "sales-task-1"]
        _ = [event async for event in client.send_message_streaming(request("one", reference_task_ids=[first.id]))]
        assert references(agent) == ["sales-task-1"]


async def test_ids_of_tasks_that_the_caller_may_not_see_are_left_out(every_home: House) -> None:
    agent = await every_home.agent(CallbackAgent("sales"))
    await every_home.agent(CallbackAgent("billing"))
    async with client_of(every_home, "rest-1.0") as alice, client_of(every_home, "rest-1.0", "bob") as bob:
        async with client_of(every_home, "rest-1.0", agent="billing") as elsewhere:
            other_agent = await sent(elsewhere, "hello")
        foreign, own = await sent(bob, "hello"), await sent(alice, "hello")
        named = [foreign.id, other_agent.id, "t_unknown", "sales-task-1", own.id]
        told = await sent(alice, "compare", reference_task_ids=named)
    assert references(agent) == ["sales-task-2"]
    assert list(told.history[0].reference_task_ids) == named


async def test_an_agents_errand_refers_to_its_own_tasks_alone(every_home: House) -> None:
    agent = await every_home.agent(CallbackAgent("sales"))
    seen: list[Any] = []

    async def delegates(token: str, text: str) -> str:
        onward = await every_home.exchanged("desk", token, "/agents/sales", "agent:sales")
        async with client_of(every_home, "rest-1.0", token=onward) as client:
            await sent(client, "nested", reference_task_ids=[text])
        seen.append(references(agent))
        return "done"

    await every_home.agent(CallbackAgent("desk", delegates))
    async with client_of(every_home, "rest-1.0") as client, client_of(every_home, "rest-1.0", agent="desk") as desk:
        before = await sent(client, "hello")
        await sent(desk, before.id)
    assert seen == [None]


async def test_more_references_than_a_message_may_have_are_refused(home: House) -> None:
    await home.agent(CallbackAgent("sales"))
    message = {"messageId": "m", "role": "ROLE_USER", "parts": [{"text": "hi"}], "referenceTaskIds": [f"t_{n}" for n in range(101)]}
    headers = {"authorization": f"Bearer {home.token('alice')}"}
    answer = await home.http.post("/agents/sales/message:send", json={"message": message}, headers=headers)
    assert answer.status_code == 400 and "referenceTaskIds" in answer.json()["error"]["message"]
