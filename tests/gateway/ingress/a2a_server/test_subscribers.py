"""Who watches a task sees all of it in its order: through every door, at any process of the gateway, before and after a restart."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from a2a.types import StreamResponse, SubscribeToTaskRequest

from registry.cards.republish import RESUMPTION
from tests.fakes.house import House
from tests.fakes.reference_clients import EVERY_DOOR, client_of, every_door, request, scripted, sent, told

each_door = pytest.mark.parametrize("door", EVERY_DOOR)
Seen = tuple[int, str]  # the number of an event, and what it says


def seen(response: StreamResponse) -> Seen:
    event = getattr(response, str(response.WhichOneof("payload")))
    return int(event.metadata[RESUMPTION]["event"]), told(response)


async def watching(stack: AsyncExitStack, home: House, door: str, **headers: str) -> Any:
    """A client that is told the numbers of events."""
    name = "x-a2a-extensions" if door.endswith("0.3") else "a2a-extensions"  # as each version has it
    return await stack.enter_async_context(client_of(home, door, headers={name: RESUMPTION, **headers}))


async def resumed(home: House, door: str, task: str, after: int) -> list[Seen]:
    async with AsyncExitStack() as stack, asyncio.timeout(300):
        client = await watching(stack, home, door, **{"last-event-id": str(after)})
        return [seen(event) async for event in client.subscribe(SubscribeToTaskRequest(id=task))]


@each_door
@pytest.mark.parametrize("database_url", ["sqlite", "postgres"], indirect=True)
async def test_a_stream_is_taken_up_after_a_restart(tmp_path: Path, database_url: str, door: str) -> None:
    async with every_door(tmp_path / "home", database_url) as home, AsyncExitStack() as stack:
        await scripted(home)
        client = await watching(stack, home, door)
        events = [event async for event in client.send_message_streaming(request("pieces"))]
        task, whole = events[0].task.id, [seen(event) for event in events]
    assert [text for _, text in whole if not text.startswith("TASK")][1:] == ["one", "two", "three"]
    async with every_door(tmp_path / "home", database_url) as home:
        for place, (number, _) in enumerate(whole):
            assert await resumed(home, door, task, number) == whole[place + 1 :]


@each_door
@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
async def test_subscribers_of_two_processes_see_the_same(tmp_path: Path, database_url: str, door: str) -> None:
    async with AsyncExitStack() as stack, asyncio.timeout(300):
        homes = [await stack.enter_async_context(every_door(tmp_path / "home", database_url)) for _ in range(2)]
        await scripted(homes[0])
        await homes[1].gateway.database.refresh_epochs()
        clients = [await watching(stack, home, door) for home in homes]
        task = (await sent(clients[0], "ask")).id
        streams = [client.subscribe(SubscribeToTaskRequest(id=task)) for client in (*clients, *clients)]
        first = {seen(await anext(stream)) for stream in streams}
        assert [text for _, text in first] == ["task TASK_STATE_INPUT_REQUIRED"]  # one snapshot, whoever asks
        await streams.pop().aclose()
        late = await sent(clients[1], "XL", task_id=task)
        whole = [[seen(event) async for event in stream] for stream in streams]
        assert whole[0] == whole[1] == whole[2] and late.id == task
        assert [text for _, text in whole[0]] == ["TASK_STATE_WORKING", "you answered: XL", "TASK_STATE_COMPLETED"]
        for home in homes:
            assert await resumed(home, door, task, whole[0][0][0]) == whole[0][1:]
