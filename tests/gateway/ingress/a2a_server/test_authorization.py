"""An agent that waits for an authorization (A2A 1.0 s7.6): its caller gets a task that says so, and can watch it and answer."""

import pytest
from a2a.types import GetTaskRequest, SubscribeToTaskRequest, Task, TaskState

from tests.fakes.a2a_agents import a2a_agent
from tests.fakes.house import House
from tests.fakes.reference_clients import EVERY_DOOR, client_of, request, scripted, sent, texts, told

pytestmark = [pytest.mark.parametrize("database_url", ["sqlite"], indirect=True), pytest.mark.parametrize("door", EVERY_DOOR)]
AUTH_REQUIRED = TaskState.TASK_STATE_AUTH_REQUIRED
HERE = "please sign in at https://example.org"


def explanation(task: Task) -> str:
    return "".join(part.text for part in task.status.message.parts)


async def test_a_task_tracks_what_waits_and_says_what_for(every_home: House, door: str) -> None:
    await scripted(every_home)
    async with client_of(every_home, door) as client:
        task = await sent(client, "auth")
        assert task.id and (task.status.state, explanation(task)) == (AUTH_REQUIRED, HERE)
        assert await client.get_task(GetTaskRequest(id=task.id)) == task
        streamed = [event async for event in client.send_message_streaming(request("auth"))]
        assert streamed[0].task.id and streamed[-1].status_update.status.message.parts[0].text == HERE
        assert told(streamed[-1]) == "TASK_STATE_AUTH_REQUIRED"


async def test_an_agent_that_explains_nothing_is_spoken_for(every_home: House, door: str) -> None:
    await scripted(every_home)
    async with client_of(every_home, door) as client:
        task = await sent(client, "auth quietly")
    assert task.status.state == AUTH_REQUIRED and "authorization" in explanation(task)


async def test_who_waits_can_be_watched_and_written_to(every_home: House, door: str) -> None:
    await scripted(every_home)
    async with client_of(every_home, door) as client:
        task = await sent(client, "auth")
        watching = client.subscribe(SubscribeToTaskRequest(id=task.id))
        assert told(await anext(watching)) == "task TASK_STATE_AUTH_REQUIRED"
        answered = await sent(client, "not with my account", task_id=task.id)
        seen = [told(event) async for event in watching]
    assert texts(answered) == ["you answered: not with my account"]
    assert seen == ["TASK_STATE_WORKING", "you answered: not with my account", "TASK_STATE_COMPLETED"]


async def test_no_credential_travels_inside(every_home: House, door: str) -> None:
    """The authorization is given to the agent where it says: neither the caller's token nor that of the message before reaches it with
    an answer, and each message is let in for itself (s7.6.4)."""
    agent = a2a_agent()
    await scripted(every_home, agent=agent)
    token = every_home.token("alice")
    async with client_of(every_home, door, token=token) as client:
        await sent(client, "done", task_id=(await sent(client, "auth")).id)
    heard = zip(agent.headers, agent.requests, strict=True)  # beside messages, looks at whether it goes on by itself
    (first, _), (second, answer) = [(headers, request) for headers, request in heard if "message" in request["params"]]
    assert token not in str(agent.headers) + str(agent.requests)
    assert first["authorization"] != second["authorization"]
    assert answer["params"]["message"]["parts"] == [{"text": "done"}]
