"""Chains of agents: a question travels up to the person, the answer down to the task that asked, and a cancellation to all of it."""

import asyncio
import json
from typing import Any

import pytest
from a2a.types import CancelTaskRequest, GetTaskRequest, ListTasksRequest, SendMessageConfiguration, Task, TaskState
from google.protobuf.json_format import MessageToDict

from gateway.calls.turns.cancellation import CAUSED_TASKS_KEY
from tests.fakes.a2a_agents import a2a_agent, serving
from tests.fakes.a2a_chain import chain
from tests.fakes.house import CallbackAgent, House
from tests.fakes.reference_clients import EVERY_DOOR, client_of, request, sent, texts
from tests.fakes.waiting import until

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
each_door = pytest.mark.parametrize("door", EVERY_DOOR)
two_dialects = pytest.mark.parametrize(("support", "sales"), [("1.0", "0.3"), ("0.3", "1.0")])
ASKS, ALLOWS = TaskState.TASK_STATE_INPUT_REQUIRED, TaskState.TASK_STATE_AUTH_REQUIRED
COMPLETED, CANCELED, WORKING = TaskState.TASK_STATE_COMPLETED, TaskState.TASK_STATE_CANCELED, TaskState.TASK_STATE_WORKING


def question(task: Task) -> str:
    return " ".join(part.text for part in task.status.message.parts)


@each_door
@two_dialects
async def test_a_question_goes_up_the_chain_and_its_answer_down_to_the_asking_task(
    every_home: House, door: str, support: str, sales: str
) -> None:
    passing = await chain(every_home, support, sales)
    async with client_of(every_home, door, agent="support") as client:
        first = await sent(client, "ask")
        second = await sent(client, "ask", context_id=first.context_id)
        assert [(one.status.state, question(one)) for one in (first, second)] == [(ASKS, "which size?")] * 2
        assert len({task["id"] for task in passing.passed}) == 2 and len({task["contextId"] for task in passing.passed}) == 1
        answered = await sent(client, "XL", task_id=second.id, context_id=first.context_id)
        assert (answered.id, answered.status.state, texts(answered)) == (second.id, COMPLETED, ["you answered: XL"])
        assert passing.passed[2]["id"] == passing.passed[1]["id"]  # the second question's
        assert (await client.get_task(GetTaskRequest(id=first.id))).status.state == ASKS
        answered = await sent(client, "S", task_id=first.id)
        assert (answered.id, texts(answered)) == (first.id, ["you answered: S"])
        assert passing.passed[3]["id"] == passing.passed[0]["id"]


@two_dialects
async def test_a_wanted_authorization_travels_up_the_chain_too(every_home: House, support: str, sales: str) -> None:
    await chain(every_home, support, sales)
    async with client_of(every_home, "jsonrpc-1.0", agent="support") as client:
        asked = await sent(client, "auth")
        assert (asked.status.state, question(asked)) == (ALLOWS, "please sign in at https://example.org")
        assert texts(await sent(client, "done", task_id=asked.id)) == ["you answered: done"]


@each_door
async def test_through_the_front_door_the_answer_finds_the_task_that_asked(every_home: House, door: str) -> None:
    url = await every_home.stack.enter_async_context(serving(a2a_agent()))
    await every_home.registered("sales", url, facts={"streaming": True})
    async with client_of(every_home, door, agent="interlock") as client:
        first = await sent(client, "ask for a quote")
        second = await sent(client, "ask for a quote", context_id=first.context_id)
        assert (first.status.state, question(second)) == (ASKS, "which size?")
        for asked, text in ((second, "XL"), (first, "S")):
            answered = await sent(client, text, task_id=asked.id)
            assert (answered.id, texts(answered)) == (asked.id, [f"you answered: {text}"])


async def test_an_agent_called_as_a_tool_asks_and_is_answered(home: House) -> None:
    url = await home.stack.enter_async_context(serving(a2a_agent("0.3")))
    await home.registered("sales", url, facts={"version": "0.3", "streaming": True})
    token = home.token("alice")

    async def called(**arguments: str) -> Any:
        return (await home.call(token, "/mcp", "sales", arguments)).json()

    first = (await called(message="ask"))["result"]["structuredContent"]
    second = (await called(message="ask", context_id=first["context_id"]))["result"]["structuredContent"]
    assert (second["state"], second["text"]) == ("TASK_STATE_INPUT_REQUIRED", "which size?")
    assert second["context_id"] == first["context_id"] and second["task_id"] != first["task_id"]
    for asked, text in ((second, "XL"), (first, "S")):
        answered = (await called(message=text, task_id=asked["task_id"]))["result"]["structuredContent"]
        assert answered == {**asked, "state": "TASK_STATE_COMPLETED", "text": f"you answered: {text}"}
    for wrong in ({"task_id": first["task_id"]}, {"task_id": "nobodys"}, {"task_id": second["task_id"], "context_id": "another"}):
        assert (await called(message="again", **wrong))["error"]["code"] == -32602


async def test_the_tokens_of_a_task_that_asks_live_until_it_ends(home: House) -> None:
    url = await home.stack.enter_async_context(serving(recorded := a2a_agent()))
    await home.registered("sales", url)
    await home.agent(CallbackAgent("support"))
    token = home.token("alice")
    asked = (await home.send(token, "sales", "ask"))["result"]["task"]
    hop = recorded.headers[-1]["authorization"].removeprefix("Bearer ")
    assert (await home.exchange("sales", hop, "/agents/support", "agent:support")).status_code == 200
    await home.rpc("/agents/sales", token, "CancelTask", {"id": asked["id"]}, **{"A2A-Version": "1.0"})
    refused = await home.exchange("sales", hop, "/agents/support", "agent:support")
    assert refused.json()["error"] == "invalid_grant"


@each_door
@two_dialects
async def test_canceling_a_task_cancels_what_its_agent_asked_of_others(every_home: House, door: str, support: str, sales: str) -> None:
    await chain(every_home, support, sales)
    async with client_of(every_home, door, agent="support") as client, client_of(every_home, "jsonrpc-1.0") as onlooker:
        message = request("hang")
        message.configuration.CopyFrom(SendMessageConfiguration(return_immediately=True))
        begun = (await client.send_message(message)).task

        async def at_work() -> bool:
            tasks = (await onlooker.list_tasks(ListTasksRequest())).tasks
            return [task.status.state for task in tasks] == [WORKING]

        await until(at_work, every=0.02)
        canceled: Task = await client.cancel_task(CancelTaskRequest(id=begun.id))
        assert canceled.status.state == CANCELED
        assert MessageToDict(canceled.metadata) == {CAUSED_TASKS_KEY: {"canceled": 1.0, "not_canceled": []}}
        (caused,) = (await onlooker.list_tasks(ListTasksRequest())).tasks
        assert caused.status.state == CANCELED


async def test_who_goes_on_is_told_by_name_to_the_person_alone(home: House) -> None:
    """An agent may not learn of tasks that it did not cause itself."""
    begun, end = asyncio.Event(), asyncio.Event()

    async def hangs(token: str, text: str) -> str:
        begun.set()
        await end.wait()
        return "late"

    seen: dict[str, Any] = {}

    async def outer(token: str, text: str) -> str:
        onward = await home.exchanged("outer", token, "/agents/middle", "agent:middle agent:inner")
        headers = {"A2A-Version": "1.0"}
        message = {"messageId": "m", "role": "ROLE_USER", "parts": [{"text": text}]}
        params = {"message": message, "configuration": {"returnImmediately": True}}
        task = (await home.rpc("/agents/middle", onward, "SendMessage", params, **headers)).json()["result"]["task"]
        await begun.wait()
        seen["agent"] = (await home.rpc("/agents/middle", onward, "CancelTask", {"id": task["id"]}, **headers)).json()["result"]
        return "done"

    async def middle(token: str, text: str) -> str:
        onward = await home.exchanged("middle", token, "/agents/inner", "agent:inner")
        return json.dumps(await home.send(onward, "inner", text))

    for name, act in (("outer", outer), ("middle", middle), ("inner", hangs)):
        await home.agent(CallbackAgent(name, act))
    assert "result" in await home.send(home.token("alice"), "outer", "hello")
    end.set()
    assert seen["agent"]["status"]["state"] == "TASK_STATE_CANCELED"
    assert seen["agent"]["metadata"] == {CAUSED_TASKS_KEY: {"canceled": 1, "not_canceled": []}}
