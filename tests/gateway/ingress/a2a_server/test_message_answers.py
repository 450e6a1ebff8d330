"""Agents that answer with a Message and begin no task: every way to ask gives the Message, and a stream has nothing else."""

import asyncio

import pytest
from a2a.helpers.proto_helpers import new_task_from_user_message, new_text_message
from a2a.server.agent_execution import AgentExecutor, RequestContext
from a2a.server.events import EventQueue
from a2a.server.tasks import TaskUpdater
from a2a.types import CancelTaskRequest, GetTaskRequest, Message, Role, SendMessageRequest, StreamResponse, TaskState

from gateway.ingress.a2a_server import operations
from tests.fakes.a2a_agents import a2a_agent
from tests.fakes.house import CallbackAgent, House
from tests.fakes.reference_clients import EVERY_DOOR, Client, client_of, request, scripted, told

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
each_door = pytest.mark.parametrize("door", EVERY_DOOR)
KEYED = {"headers": {"idempotency-key": "k1"}}


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream waits for the agent's Message however slow the machine is."""
    monkeypatch.setattr(operations, "HOLD_SECONDS", 600.0)


class GatedAgent(AgentExecutor):
    """Answers `message` with a Message once `gate` is set; begins a task for anything else, and is silent about it."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()

    async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
        assert context.message is not None
        if context.get_user_input() != "message":
            await event_queue.enqueue_event(new_task_from_user_message(context.message))
            await asyncio.Event().wait()
        await self.gate.wait()
        await event_queue.enqueue_event(new_text_message("just a word", role=Role.ROLE_AGENT))

    async def cancel(self, context: RequestContext, event_queue: EventQueue) -> None:
        await TaskUpdater(event_queue, context.task_id or "", context.context_id or "").cancel()


async def stream_of(client: Client, asked: SendMessageRequest) -> list[StreamResponse]:
    return [response async for response in client.send_message_streaming(asked)]


def words(message: Message) -> list[str]:
    return [part.text for part in message.parts]


@each_door
@pytest.mark.usefixtures("patient")
async def test_a_message_is_streamed_as_exactly_one_message(every_home: House, door: str) -> None:
    await scripted(every_home)
    async with client_of(every_home, door) as client, asyncio.timeout(60):
        (only,) = await stream_of(client, request("message"))
        task = await client.get_task(GetTaskRequest(id=only.message.task_id))
        sent = (await client.send_message(request("message"))).message
    assert (words(only.message), only.message.role) == (words(sent), sent.role) == (["just a word"], Role.ROLE_AGENT)
    assert task.status.state == TaskState.TASK_STATE_COMPLETED and task.status.message == only.message


@each_door
@pytest.mark.usefixtures("patient")
async def test_a_repeated_send_gets_the_same_message_however_it_asks(every_home: House, door: str) -> None:
    agent = a2a_agent()
    await scripted(every_home, agent=agent)
    async with client_of(every_home, door, **KEYED) as client, asyncio.timeout(60):
        (streamed,) = await stream_of(client, request("message"))
        (repeated,) = await stream_of(client, request("message"))
        sent = (await client.send_message(request("message"))).message
    assert streamed.message == repeated.message == sent
    assert len(agent.requests) == 1


async def test_a_send_that_waits_for_nothing_gets_the_task_each_time(every_home: House) -> None:
    await scripted(every_home)
    at_once = request("message")
    at_once.configuration.return_immediately = True
    async with client_of(every_home, "jsonrpc-1.0", **KEYED) as client:
        first = (await client.send_message(at_once)).task
        answer = (await client.send_message(request("message"))).message
        again = (await client.send_message(at_once)).task
    assert first.id == answer.task_id == again.id
    assert again.status.message == answer


@each_door
@pytest.mark.usefixtures("patient")
async def test_the_task_is_shown_as_soon_as_the_agent_begins_one(every_home: House, door: str) -> None:
    await scripted(every_home, agent=a2a_agent(executor=GatedAgent()))
    async with client_of(every_home, door) as client, asyncio.timeout(60):
        stream = client.send_message_streaming(request("hello"))
        first = await anext(stream)
        assert told(first) == "task TASK_STATE_SUBMITTED"
        await client.cancel_task(CancelTaskRequest(id=first.task.id))
        assert [told(event) async for event in stream][-1] == "TASK_STATE_CANCELED"


@each_door
async def test_a_late_message_is_in_the_last_status_of_the_task(every_home: House, monkeypatch: pytest.MonkeyPatch, door: str) -> None:
    monkeypatch.setattr(operations, "HOLD_SECONDS", 0.0)
    agent = GatedAgent()
    await scripted(every_home, agent=a2a_agent(executor=agent))
    async with client_of(every_home, door) as client, asyncio.timeout(60):
        stream = client.send_message_streaming(request("message"))
        first = await anext(stream)
        agent.gate.set()
        (last,) = [event async for event in stream]
    assert (told(first), told(last)) == ("task TASK_STATE_SUBMITTED", "TASK_STATE_COMPLETED")
    assert words(last.status_update.status.message) == ["just a word"]


async def test_a_silent_agent_does_not_hide_the_id_of_its_task(every_home: House) -> None:
    async def silent(_token: str, _text: str) -> str:
        await asyncio.Event().wait()
        return ""

    await every_home.agent(CallbackAgent("sales", silent))
    async with client_of(every_home, "jsonrpc-1.0") as client, asyncio.timeout(60):
        stream = client.send_message_streaming(request("hello"))
        first = await anext(stream)
        await client.cancel_task(CancelTaskRequest(id=first.task.id))
        assert [told(event) async for event in stream] == ["TASK_STATE_CANCELED"]
