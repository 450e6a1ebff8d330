"""The reference clients of every binding, 1.0 and 0.3, over a real socket: whatever the agent behind speaks."""

import asyncio
from contextlib import AsyncExitStack

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
    TaskState,
)
from a2a.utils.errors import A2AError

from tests.fakes.house import House
from tests.fakes.reference_clients import EVERY_DOOR, client_of, history, request, scripted, sent, texts, told

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
each_door = pytest.mark.parametrize("door", EVERY_DOOR)
either_agent = pytest.mark.parametrize("agent_version", ["1.0", "0.3"])
COMPLETED = TaskState.TASK_STATE_COMPLETED


@each_door
@either_agent
async def test_a_reference_client_sends_reads_and_goes_on(every_home: House, door: str, agent_version: str) -> None:
    await scripted(every_home, agent_version)
    async with client_of(every_home, door) as client:
        task = await sent(client, "hello")
        assert task.status.state == COMPLETED and texts(task) == ["echo: hello"]
        assert task.artifacts[0].parts[1].data.struct_value["length"] == 5
        assert await client.get_task(GetTaskRequest(id=task.id)) == task
        assert history(await client.get_task(GetTaskRequest(id=task.id, history_length=1))) == ["hello"]
        asked = await sent(client, "ask")
        assert asked.status.state == TaskState.TASK_STATE_INPUT_REQUIRED
        answered = await sent(client, "XL", task_id=asked.id)
        assert (answered.id, answered.context_id) == (asked.id, asked.context_id)
        assert texts(answered) == ["you answered: XL"] and history(answered) == ["ask", "XL"]
        waiting = await sent(client, "ask")
        canceled = await client.cancel_task(CancelTaskRequest(id=waiting.id))
        assert canceled.status.state == TaskState.TASK_STATE_CANCELED
        word = (await client.send_message(request("message"))).message
        assert word.parts[0].text == "just a word"


@each_door
@either_agent
async def test_a_reference_client_streams(every_home: House, door: str, agent_version: str) -> None:
    await scripted(every_home, agent_version)
    async with client_of(every_home, door) as client, asyncio.timeout(60):
        seen = [told(response) async for response in client.send_message_streaming(request("pieces"))]
    assert [word for word in seen if not word.startswith("TASK_STATE_WORKING")] == [
        "task TASK_STATE_SUBMITTED",
        "one",
        "two",
        "three",
        "TASK_STATE_COMPLETED",
    ]


@pytest.mark.parametrize("told_by", EVERY_DOOR)
async def test_a_task_is_the_same_whatever_door_it_is_seen_through(every_home: House, told_by: str) -> None:
    await scripted(every_home)
    async with AsyncExitStack() as stack:
        clients = {door: await stack.enter_async_context(client_of(every_home, door)) for door in EVERY_DOOR}
        asked = await sent(clients[told_by], "ask")
        for door, client in clients.items():
            assert await client.get_task(GetTaskRequest(id=asked.id)) == asked, door
        for door in EVERY_DOOR:
            begun = await sent(clients[told_by], "ask")
            task = await sent(clients[door], f"by {door}", task_id=begun.id)
            for other, client in clients.items():
                found = await client.get_task(GetTaskRequest(id=begun.id))
                assert (found.id, found.context_id, found.status) == (task.id, task.context_id, task.status), other
                assert (texts(found), history(found)) == ([f"you answered: by {door}"], ["ask", f"by {door}"]), other


async def test_subscribers_at_every_door_see_the_same_in_the_same_order(every_home: House) -> None:
    await scripted(every_home)
    async with AsyncExitStack() as stack:
        clients = {door: await stack.enter_async_context(client_of(every_home, door)) for door in EVERY_DOOR}
        asked = await sent(clients["jsonrpc-1.0"], "ask")
        streams = [client.subscribe(SubscribeToTaskRequest(id=asked.id)) for client in (*clients.values(), *clients.values())]
        first = [told(await anext(aiter(stream))) for stream in streams]
        assert first == ["task TASK_STATE_INPUT_REQUIRED"] * len(streams)
        await streams.pop().aclose()  # type: ignore[attr-defined]  # it is a generator
        await sent(clients["rest-0.3"], "XL", task_id=asked.id)
        async with asyncio.timeout(60):
            seen = [[told(response) async for response in stream] for stream in streams]
    assert seen == [["TASK_STATE_WORKING", "you answered: XL", "TASK_STATE_COMPLETED"]] * len(streams)


@pytest.mark.parametrize("door", ["jsonrpc-1.0", "rest-1.0", "grpc-1.0"])
async def test_a_reference_client_lists_its_tasks_page_by_page(every_home: House, door: str) -> None:
    await scripted(every_home)
    async with client_of(every_home, door) as client, client_of(every_home, door, "bob") as bob:
        made = [(await sent(client, f"hello {number}", context_id="c")).id for number in range(5)]
        await sent(client, "elsewhere")
        await sent(bob, "hello", context_id="c")
        token, pages = "", []
        for _ in range(4):
            page = await client.list_tasks(ListTasksRequest(context_id="c", page_size=2, page_token=token, include_artifacts=True))
            assert page.total_size == 5 and page.page_size <= 2
            pages.append([(task.id, texts(task)) for task in page.tasks])
            token = page.next_page_token
            if not token:
                break
    assert [len(page) for page in pages] == [2, 2, 1]
    assert [task for page in pages for task in page] == [(made[n], [f"echo: hello {n}"]) for n in (4, 3, 2, 1, 0)]


@each_door
async def test_a_reference_client_keeps_its_webhooks(every_home: House, door: str) -> None:
    await scripted(every_home)
    async with client_of(every_home, door) as client:
        task = await sent(client, "ask")
        config = TaskPushNotificationConfig(task_id=task.id, id="w1", url="http://127.0.0.1:59999/hook", token="secret")
        made = await client.create_task_push_notification_config(config)
        assert (made.task_id, made.id, made.url, made.token) == (task.id, "w1", config.url, "")
        found = await client.get_task_push_notification_config(GetTaskPushNotificationConfigRequest(task_id=task.id, id="w1"))
        assert found == made
        listed = await client.list_task_push_notification_configs(ListTaskPushNotificationConfigsRequest(task_id=task.id))
        assert list(listed.configs) == [made]
        gone = DeleteTaskPushNotificationConfigRequest(task_id=task.id, id="w1")
        await client.delete_task_push_notification_config(gone)
        await client.delete_task_push_notification_config(gone)
        with pytest.raises(A2AError):
            await client.get_task_push_notification_config(GetTaskPushNotificationConfigRequest(task_id=task.id, id="w1"))


@each_door
async def test_a_reference_client_reads_the_extended_card(every_home: House, door: str) -> None:
    await scripted(every_home)
    async with client_of(every_home, door) as client:
        card = await client.get_extended_agent_card(GetExtendedAgentCardRequest())
    assert card.name == "sales" and [skill.id for skill in card.skills] == ["quote"]
    assert {each.url for each in card.supported_interfaces} <= {f"{every_home.url}/agents/sales", every_home.gateway.settings.public_grpc}
