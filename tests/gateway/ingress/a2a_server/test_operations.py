"""All eleven operations of A2A: one body over every binding and version, which have to give the same answers, and the same refusals."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from typing import Any

import pytest
from a2a.types import (
    CancelTaskRequest,
    DeleteTaskPushNotificationConfigRequest,
    GetExtendedAgentCardRequest,
    GetTaskPushNotificationConfigRequest,
    GetTaskRequest,
    ListTaskPushNotificationConfigsRequest,
    ListTasksRequest,
    SubscribeToTaskRequest,
    TaskPushNotificationConfig,
)

from gateway.ingress.a2a_server.bindings.jsonrpc_methods import V1
from tests.fakes.house import House
from tests.fakes.reference_clients import EVERY_DOOR, Client, client_of, history, request, scripted, sent, texts, told

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
each_door = pytest.mark.parametrize("door", EVERY_DOOR)
LACKING = {("ListTasks", "jsonrpc-0.3"), ("ListTasks", "grpc-0.3")}  # which these two do not have
HOOK = "http://127.0.0.1:59999/hook"
Acts = Mapping[str, Callable[[], Awaitable[Any]]]


def acts(client: Client, task: str) -> Acts:
    """Every operation, as it is tried on a task. What belongs to no task is tried all the same."""
    given = {"task_id": task, "id": "w1"}
    return {
        "SendMessage": lambda: client.send_message(request("more", task_id=task)),
        "SendStreamingMessage": lambda: events_of(client.send_message_streaming(request("more", task_id=task))),
        "GetTask": lambda: client.get_task(GetTaskRequest(id=task)),
        "ListTasks": lambda: client.list_tasks(ListTasksRequest()),
        "CancelTask": lambda: client.cancel_task(CancelTaskRequest(id=task)),
        "SubscribeToTask": lambda: events_of(client.subscribe(SubscribeToTaskRequest(id=task))),
        "CreateTaskPushNotificationConfig": lambda: client.create_task_push_notification_config(
            TaskPushNotificationConfig(**given, url=HOOK)
        ),
        "GetTaskPushNotificationConfig": lambda: client.get_task_push_notification_config(GetTaskPushNotificationConfigRequest(**given)),
        "ListTaskPushNotificationConfigs": lambda: client.list_task_push_notification_configs(
            ListTaskPushNotificationConfigsRequest(task_id=task)
        ),
        "DeleteTaskPushNotificationConfig": lambda: client.delete_task_push_notification_config(
            DeleteTaskPushNotificationConfigRequest(**given)
        ),
        "GetExtendedAgentCard": lambda: client.get_extended_agent_card(GetExtendedAgentCardRequest()),
    }


async def events_of(stream: Any) -> list[str]:
    async with asyncio.timeout(60):
        return [told(event) async for event in stream]


async def refusal(act: Callable[[], Awaitable[Any]]) -> str:
    """In the same words whatever the door: what the gateway says, or of what kind it is where the reference client keeps that back."""
    try:
        await act()
    except Exception as error:  # noqa: BLE001 (each reference client has kinds of its own)
        text = re.sub(r"^gRPC Error [A-Z_]+: ", "", str(error))
    else:
        return "allowed"
    for kind, pattern in {
        "no valid token": r"HTTP Error:? 401|valid bearer token|token has expired",
        "no such agent": r"HTTP Error:? 404|Resource not found|no such agent",
        "invalid": r"HTTP Error:? 400|messageId",
    }.items():
        if re.search(pattern, text):
            return kind
    return text


async def walked(client: Client, door: str) -> dict[str, Any]:
    """What all operations answer, told without ids and times."""
    done, asked = await sent(client, "hello"), await sent(client, "ask")
    tried = acts(client, asked.id)
    page = [] if ("ListTasks", door) in LACKING else (await tried["ListTasks"]()).tasks
    hook = await tried["CreateTaskPushNotificationConfig"]()
    hooks = [await tried["GetTaskPushNotificationConfig"](), *(await tried["ListTaskPushNotificationConfigs"]()).configs]
    await tried["DeleteTaskPushNotificationConfig"]()
    left = (await tried["ListTaskPushNotificationConfigs"]()).configs
    watching = client.subscribe(SubscribeToTaskRequest(id=asked.id))
    seen = [told(await anext(watching))]
    answered = await sent(client, "XL", task_id=asked.id)
    seen += await events_of(watching)
    waiting = await sent(client, "ask")
    return {
        "SendMessage": [(each.status.state, texts(each), history(each)) for each in (done, asked, answered)],
        "the agent's own message": [part.text for part in (await client.send_message(request("message"))).message.parts],
        "SendStreamingMessage": await events_of(client.send_message_streaming(request("pieces"))),
        "GetTask": (await client.get_task(GetTaskRequest(id=done.id))) == done,
        "the last of the history": history(await client.get_task(GetTaskRequest(id=answered.id, history_length=1))),
        "ListTasks": {each.id: each.status.state for each in page} in ({}, {each.id: each.status.state for each in (done, asked)}),
        "SubscribeToTask": seen,
        "webhooks": [(each.task_id == asked.id, each.id, each.url) for each in (hook, *hooks, *left)],
        "CancelTask": (await client.cancel_task(CancelTaskRequest(id=waiting.id))).status.state,
        "GetExtendedAgentCard": [skill.id for skill in (await tried["GetExtendedAgentCard"]()).skills],
    }


async def refused(client: Client) -> dict[str, str]:
    """What is said of what can't be."""
    over = (await sent(client, "hello")).id
    ended, nothing = acts(client, over), acts(client, "t_nothing")
    said = {f"{name} of a task that is over": await refusal(ended[name]) for name in ("SendMessage", "CancelTask", "SubscribeToTask")}
    said |= {f"{name} of nothing": await refusal(act) for name, act in nothing.items() if name not in ("ListTasks", "GetExtendedAgentCard")}
    said["a webhook that is not there"] = await refusal(ended["GetTaskPushNotificationConfig"])
    said["no message id"] = await refusal(lambda: client.send_message(request("hello", message_id="")))
    return said


def test_the_operations_are_those_of_the_specification(database_url: str) -> None:
    assert acts(None, "t").keys() == V1.keys()  # type: ignore[arg-type]  # nothing is tried


@each_door
async def test_every_operation_answers_as_it_does_over_json_rpc(every_home: House, door: str) -> None:
    await scripted(every_home)
    async with client_of(every_home, door) as client, client_of(every_home, "jsonrpc-1.0", "bob") as model:
        ours, expected = await walked(client, door), await walked(model, "jsonrpc-1.0")
    assert ours == expected
    assert ours["SubscribeToTask"] == [
        "task TASK_STATE_INPUT_REQUIRED",
        "TASK_STATE_WORKING",
        "you answered: XL",
        "TASK_STATE_COMPLETED",
    ]
    assert ours["webhooks"] == [(True, "w1", HOOK)] * 3 and ours["GetTask"] and ours["ListTasks"]


@each_door
async def test_every_refusal_is_the_same_as_over_json_rpc(every_home: House, door: str) -> None:
    await scripted(every_home)
    async with client_of(every_home, door) as client, client_of(every_home, "jsonrpc-1.0") as model:
        ours, expected = await refused(client), await refused(model)
    assert ours == expected and "allowed" not in ours.values()


@each_door
async def test_nothing_is_answered_without_a_valid_token(every_home: House, door: str) -> None:
    await scripted(every_home)
    async with client_of(every_home, door) as client, AsyncExitStack() as stack:
        task = (await sent(client, "ask")).id
        for what, given in {
            "another's": {"token": "x.y.z"},
            "none": {"headers": {"authorization": ""}},
            "over": {"token": stale(every_home)},
        }.items():
            stranger = await stack.enter_async_context(client_of(every_home, door, **given))
            said = {name: await refusal(act) for name, act in acts(stranger, task).items() if (name, door) not in LACKING}
            assert set(said.values()) == {"no valid token"}, (what, said)
        for name, act in acts(client, task).items():  # the same scheme opens every operation
            if (name, door) not in LACKING:
                assert await refusal(act) != "no valid token", name


def stale(home: House) -> str:
    return home.token("alice", ttl=-120)


@each_door
async def test_every_operation_asks_who_may(every_home: House, door: str) -> None:
    await scripted(every_home)
    async with client_of(every_home, door) as client, client_of(every_home, door, "nora") as nora:
        mine = acts(nora, (await sent(client, "ask")).id)
        said = {name: await refusal(act) for name, act in mine.items() if (name, door) not in LACKING}
        fresh = await refusal(lambda: nora.send_message(request("hello")))
    assert "allowed" not in said.values(), said
    assert fresh == said["GetExtendedAgentCard"] == "no such agent"


@each_door
async def test_what_is_anothers_reads_like_nothing_and_is_never_listed(every_home: House, door: str) -> None:
    await scripted(every_home)
    async with client_of(every_home, door) as client, client_of(every_home, door, "bob") as bob:
        task = (await sent(client, "ask")).id
        await client.create_task_push_notification_config(TaskPushNotificationConfig(task_id=task, id="w1", url=HOOK))
        own = {"ListTasks", "GetExtendedAgentCard"}
        theirs, nothing = acts(bob, task), acts(bob, "t_0")
        for name in theirs.keys() - own:
            foreign, unknown = await refusal(theirs[name]), await refusal(nothing[name])
            assert foreign == unknown != "allowed", name
        if ("ListTasks", door) not in LACKING:
            assert list((await bob.list_tasks(ListTasksRequest())).tasks) == []
            assert [each.id for each in (await client.list_tasks(ListTasksRequest())).tasks] == [task]
        assert (await sent(client, "XL", task_id=task)).id == task  # it was neither moved nor ended
