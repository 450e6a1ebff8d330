"""What an agent notes about its task reaches whoever asks for the task, and what is noted about a request reaches the agent."""

import pytest
from a2a.types import GetTaskRequest
from google.protobuf.json_format import MessageToDict

from registry.cards.republish import RESUMPTION
from tests.fakes.house import CallbackAgent, House
from tests.fakes.reference_clients import EVERY_DOOR, client_of, request, scripted, sent, told

pytestmark = [pytest.mark.parametrize("database_url", ["sqlite"], indirect=True), pytest.mark.parametrize("door", EVERY_DOOR)]


async def test_an_agents_notes_are_the_tasks_and_none_pass_for_ours(every_home: House, door: str) -> None:
    agent = await every_home.agent(CallbackAgent("sales"))
    agent.metadata = {"cost": {"tokens": 3}, "nothing": None, RESUMPTION: {"event": 99}}
    expected = {"cost": {"tokens": 3}, "nothing": None}
    async with client_of(every_home, door) as client:
        task = await sent(client, "hello")
        assert MessageToDict(task.metadata) == MessageToDict((await client.get_task(GetTaskRequest(id=task.id))).metadata) == expected
        events = [event async for event in client.send_message_streaming(request("hello"))]
    notes = [MessageToDict(event.status_update.metadata) for event in events if event.HasField("status_update")]
    assert [each for each in notes if each] == [expected] and told(events[-1]) == "TASK_STATE_COMPLETED"


async def test_the_metadata_of_each_update_stays_on_that_very_update(every_home: House, door: str) -> None:
    await scripted(every_home)
    async with client_of(every_home, door) as client:
        opened, *events = [event async for event in client.send_message_streaming(request("noted"))]
        updates = [event.status_update if event.HasField("status_update") else event.artifact_update for event in events]
        task = await client.get_task(GetTaskRequest(id=opened.task.id))
    same = {"step": 1}
    assert [MessageToDict(update.metadata) for update in updates] == [same, same, same, same, {"cost": 3}]
    assert [told(event) for event in events] == ["TASK_STATE_WORKING", "piece", "piece", "TASK_STATE_WORKING", "TASK_STATE_COMPLETED"]
    assert MessageToDict(task.metadata) == {**same, "cost": 3}


async def test_what_is_noted_about_a_request_reaches_the_agent(every_home: House, door: str) -> None:
    agent = await every_home.agent(CallbackAgent("sales"))
    noted = request("hello")
    noted.metadata.update({"urgency": "low", "n": 3})
    async with client_of(every_home, door) as client:
        await client.send_message(noted)
        _ = [event async for event in client.send_message_streaming(noted)]
        await sent(client, "hello")
    assert [each["params"].get("metadata") for each in agent.requests] == [{"urgency": "low", "n": 3}] * 2 + [None]
