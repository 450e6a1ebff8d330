"""The reference client over gRPC against a whole gateway: what it may do, what it is refused, and whatever the agent behind speaks."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from a2a.client.client import ClientCallContext
from a2a.client.transports.grpc import GrpcTransport
from a2a.compat.v0_3.grpc_transport import CompatGrpcTransport
from a2a.types import (
    AgentCapabilities,
    AgentCard,
    Message,
    Part,
    Role,
    SendMessageConfiguration,
    SendMessageRequest,
    Task,
    TaskState,
    a2a_pb2,
)
from a2a.utils.errors import A2A_REASON_TO_ERROR
from grpc.aio import insecure_channel

from gateway.server.settings import Settings
from tests.fakes.a2a_agents import a2a_agent, serving
from tests.fakes.a2a_bindings import grpc_agent, rest_agent
from tests.fakes.house import CallbackAgent, House, house
from tests.fakes.ports import free_port
from tests.fakes.reception import Reception

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
both_versions = pytest.mark.parametrize("version", ["1.0", "0.3"])
AGENTS = [(binding, version) for binding in ("JSONRPC", "HTTP+JSON", "GRPC") for version in ("1.0", "0.3")]


class Clients:
    """A gateway with its gRPC port open, and the reference client in both versions."""

    def __init__(self, home: House, channel: Any) -> None:
        self.home = home
        self.channel = channel
        card = AgentCard(capabilities=AgentCapabilities(extended_agent_card=True))
        self.speak = {"1.0": GrpcTransport(channel, card), "0.3": CompatGrpcTransport(channel, card)}

    def as_(self, user: str = "alice", agent: str = "sales", **token: Any) -> ClientCallContext:
        bearer = token.get("token") or self.home.token(user, **token)
        return ClientCallContext(timeout=60, service_parameters={"authorization": f"Bearer {bearer}", "a2a-tenant": agent})

    async def send(self, version: str, text: str, context: ClientCallContext | None = None, **more: Any) -> Task:
        sent = await self.speak[version].send_message(request(text, **more), context=context or self.as_())
        return sent.task


def request(text: str, **more: Any) -> SendMessageRequest:
    """Told to wait, which protobuf can't leave open in 0.3."""
    message = Message(message_id="m-1", role=Role.ROLE_USER, parts=[Part(text=text)], **more)
    return SendMessageRequest(message=message, configuration=SendMessageConfiguration(accepted_output_modes=["*/*"]))


def texts(task: Task) -> list[str]:
    return [part.text for artifact in task.artifacts for part in artifact.parts if part.text]


@pytest.fixture
async def clients(tmp_path: Path, database_url: str) -> AsyncIterator[Clients]:
    port = free_port()
    async with house(tmp_path / "home", database_url, grpc_port=port) as home:
        home.gateway.lifecycle.start()
        await home.gateway.lifecycle.wait_until_started()
        async with insecure_channel(f"127.0.0.1:{port}") as channel:
            yield Clients(home, channel)


@asynccontextmanager
async def scripted(clients: Clients, binding: str = "JSONRPC", version: str = "1.0") -> AsyncIterator[None]:
    """The agent `sales` of the reference implementation."""
    async with AsyncExitStack() as stack:
        if binding == "JSONRPC":
            url = await stack.enter_async_context(serving(a2a_agent(version)))
        else:
            url, _ = await stack.enter_async_context((grpc_agent if binding == "GRPC" else rest_agent)(version))
        facts = {"binding": binding, "version": version, "streaming": True, "interface": url}
        await clients.home.registered("sales", "http://127.0.0.1:1/", facts=facts)
        yield


@pytest.mark.parametrize(("behind", "older"), AGENTS)
@both_versions
async def test_any_client_version_reaches_an_agent_of_any_binding_and_version(
    clients: Clients, version: str, behind: str, older: str
) -> None:
    async with scripted(clients, behind, older):
        done = await clients.send(version, "hello")
        assert (done.status.state, texts(done)) == (TaskState.TASK_STATE_COMPLETED, ["echo: hello"])
        read = await clients.speak[version].get_task(a2a_pb2.GetTaskRequest(id=done.id), context=clients.as_())
        assert texts(read) == ["echo: hello"]
        asked = await clients.send(version, "ask")
        assert asked.status.state == TaskState.TASK_STATE_INPUT_REQUIRED
        answered = await clients.send(version, "XL", task_id=asked.id, context_id=asked.context_id)
        assert (answered.id, texts(answered)) == (asked.id, ["you answered: XL"])
        events = [event async for event in clients.speak[version].send_message_streaming(request("pieces"), context=clients.as_())]
        assert events[0].task.status.state == TaskState.TASK_STATE_SUBMITTED
        assert events[-1].status_update.status.state == TaskState.TASK_STATE_COMPLETED
        pieces = [event.artifact_update for event in events if event.HasField("artifact_update")]
        assert [part.text for piece in pieces for part in piece.artifact.parts] == ["one", "two", "three"]


@both_versions
async def test_what_one_cancels_the_other_sees_end(clients: Clients, version: str) -> None:
    async with scripted(clients), asyncio.timeout(60):
        states = []
        async for event in clients.speak[version].send_message_streaming(request("hang"), context=clients.as_()):
            if event.HasField("task"):
                task_id = event.task.id
            elif event.status_update.status.state == TaskState.TASK_STATE_WORKING:
                canceled = await clients.speak[version].cancel_task(a2a_pb2.CancelTaskRequest(id=task_id), context=clients.as_())
                assert canceled.status.state == TaskState.TASK_STATE_CANCELED
            states.append(event.status_update.status.state)
        assert states[-1] == TaskState.TASK_STATE_CANCELED


@both_versions
async def test_a_client_that_leaves_finds_its_task_done(clients: Clients, version: str) -> None:
    begun, end = asyncio.Event(), asyncio.Event()

    async def act(token: str, text: str) -> str:
        begun.set()
        await end.wait()
        return "done without you"

    await clients.home.agent(CallbackAgent("sales", act))
    calling = asyncio.create_task(clients.send(version, "go"))
    async with asyncio.timeout(60):
        await begun.wait()
        calling.cancel()
        await asyncio.gather(calling, return_exceptions=True)
        end.set()
        while True:
            page = await clients.speak["1.0"].list_tasks(a2a_pb2.ListTasksRequest(include_artifacts=True), context=clients.as_())
            if page.tasks[0].status.state == TaskState.TASK_STATE_COMPLETED:
                break
    assert texts(page.tasks[0]) == ["done without you"]


async def test_errors_are_those_of_the_reference_client(clients: Clients) -> None:
    async with scripted(clients):
        ended, speak = await clients.send("1.0", "hello"), clients.speak["1.0"]
        for reason, act in {
            "TASK_NOT_FOUND": lambda: speak.get_task(a2a_pb2.GetTaskRequest(id="nothing"), context=clients.as_()),
            "TASK_NOT_CANCELABLE": lambda: speak.cancel_task(a2a_pb2.CancelTaskRequest(id=ended.id), context=clients.as_()),
            "UNSUPPORTED_OPERATION": lambda: clients.send("1.0", "again", task_id=ended.id),
        }.items():
            with pytest.raises(A2A_REASON_TO_ERROR[reason]):
                await act()


@both_versions
async def test_nobody_sees_what_is_anothers_or_may_do_what_the_token_does_not_allow(clients: Clients, version: str) -> None:
    async with scripted(clients):
        mine = await clients.send(version, "hello")
        theirs = a2a_pb2.GetTaskRequest(id=mine.id)
        for context, code in (
            (clients.as_("bob"), "NOT_FOUND|no such task"),
            (clients.as_(agent="nobody"), "NOT_FOUND|no such"),
            (clients.as_(tenant="other"), "NOT_FOUND|no such"),
            (clients.as_(token="nonsense"), "UNAUTHENTICATED|token"),
        ):
            with pytest.raises(Exception, match=f"(?i){code}"):
                await clients.speak[version].get_task(theirs, context=context)
        with pytest.raises(Exception, match=r"PERMISSION_DENIED|NOT_FOUND"):
            await clients.send(version, "hello", clients.as_(scope="tool:inventory.*"))


async def test_a_hop_token_is_good_for_its_agent_over_grpc_too(clients: Clients) -> None:
    """An agent that was given a token for its task exchanges it for another agent, and calls that one over gRPC."""
    answers: list[str] = []

    async def act(token: str, text: str) -> str:
        exchanged = await clients.home.exchanged("sales", token, "/agents/support", "agent:support")
        task = await clients.send("1.0", "help", clients.as_(agent="support", token=exchanged))
        answers.extend(texts(task))
        return "asked"

    await clients.home.agent(CallbackAgent("support"))
    await clients.home.agent(CallbackAgent("sales", act))
    await clients.send("1.0", "go")
    assert answers == ["support got: help"]


async def test_the_card_says_where_grpc_is(clients: Clients) -> None:
    async with scripted(clients):
        card = (await clients.home.http.get("/agents/sales/.well-known/agent-card.json", headers={"a2a-version": "1.0"})).json()
    port = clients.home.gateway.settings.grpc_port
    (over_grpc,) = [each for each in card["supportedInterfaces"] if each["protocolBinding"] == "GRPC"]
    assert over_grpc == {"url": f"interlock.test:{port}", "protocolBinding": "GRPC", "protocolVersion": "1.0", "tenant": "sales"}


@pytest.mark.parametrize("version", ["1.0", "0.3"])
async def test_an_agent_that_offers_grpc_alone_is_registered_by_its_card_and_called(clients: Clients, version: str) -> None:
    async with grpc_agent(version) as (target, _):
        offered = {"name": "Sales", "description": "Sells.", "version": "1", "capabilities": {"streaming": True}, "skills": []}
        if version == "1.0":
            offered |= {"supportedInterfaces": [{"url": target, "protocolBinding": "GRPC", "protocolVersion": "1.0", "tenant": "acme"}]}
        else:
            offered |= {"protocolVersion": "0.3.0", "url": target, "preferredTransport": "GRPC"}
        made = await Reception(clients.home).post("/api/agents", card=offered, name="sales")
        assert (made.status_code, made.json()["url"]) == (201, target)
        await clients.home.gateway.database.refresh_epochs()
        assert texts(await clients.send("1.0", "hello")) == ["echo: hello"]


@pytest.mark.parametrize("target", ["10.0.0.1:50051", "169.254.169.254:443", "127.0.0.1:5432", "unix:/run/x", "user@127.0.0.1:9000"])
async def test_a_grpc_target_that_the_guard_refuses_is_not_registered(clients: Clients, target: str) -> None:
    interface = {"url": target, "protocolBinding": "GRPC", "protocolVersion": "1.0"}
    offered = {"name": "Sales", "description": "Sells.", "version": "1", "supportedInterfaces": [interface]}
    refused = await Reception(clients.home).post("/api/agents", card=offered, name="sales")
    assert refused.status_code == 400
    assert refused.json()["reason_id"] == "egress-refused"


@pytest.mark.parametrize(
    ("given", "public"),
    [
        ({}, ""),
        ({"grpc_port": 50051}, "127.0.0.1:50051"),
        ({"grpc_port": 50051, "server": {"public_url": "https://agents.example.com/x"}}, "agents.example.com:50051"),
        ({"grpc_port": 50051, "server": {"public_url": "http://[::1]:8080"}}, "[::1]:50051"),
        ({"grpc_port": 50051, "server": {"public_grpc": "grpc.example.com:443"}}, "grpc.example.com:443"),
    ],
)
def test_cards_name_the_host_that_clients_see(given: dict[str, Any], public: str, database_url: str) -> None:
    assert Settings(**given).public_grpc == public
