"""The shim adds a bearer and a tenant, and nothing else; streams pass as they come."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import aiohttp
import grpc.aio
import pytest
from a2a.types import a2a_pb2
from a2a.types.a2a_pb2_grpc import A2AServiceServicer, A2AServiceStub, add_A2AServiceServicer_to_server

from tests.conformance.shim import HOST, AnyMethod, Front, content_length, named_tenant, shim, with_header
from tests.fakes.ports import free_port
from tests.fakes.upstream import Upstream, answer


@asynccontextmanager
async def before(upstream: Upstream) -> AsyncIterator[str]:
    """The URL of a shim before `upstream`."""
    front = Front(free_port(), upstream.port, "secret")
    async with shim(front):
        yield f"http://{HOST}:{front.port}"


async def test_every_request_of_a_connection_gets_the_bearer_and_keeps_its_host() -> None:
    async def hello(_: bytes, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer(b"hello"))

    async with Upstream(hello) as upstream, before(upstream) as url, aiohttp.ClientSession() as client:
        for _ in range(2):
            async with client.post(url, data=b"body", headers={"Host": "gateway.example", "Origin": "http://page.example"}) as reply:
                assert await reply.read() == b"hello"
    assert upstream.connections == 1
    for head in upstream.requests:
        assert b"\r\nAuthorization: Bearer secret\r\n" in head
        assert b"\r\nHost: gateway.example\r\n" in head
        assert b"\r\nOrigin: http://page.example\r\n" in head


async def test_events_pass_while_the_answer_is_still_open() -> None:
    seen = asyncio.Event()

    async def one_by_one(_: bytes, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 20\r\n\r\ndata: one\n")
        await writer.drain()
        await asyncio.wait_for(seen.wait(), 60)
        writer.write(b"data: two\n")

    async with Upstream(one_by_one) as upstream, before(upstream) as url, aiohttp.ClientSession() as client, client.get(url) as reply:
        assert await reply.content.readline() == b"data: one\n"
        seen.set()
        assert await reply.content.readline() == b"data: two\n"


def test_the_root_card_is_the_named_agents_card_in_the_clients_version() -> None:
    front = Front(1, 2, "secret", at_root="sales")
    head = front.head(b"GET /.well-known/agent-card.json HTTP/1.1\r\nhost: a\r\n\r\n")
    assert head.startswith(b"GET /agents/sales/.well-known/agent-card.json HTTP/1.1\r\n")
    assert b"version" not in head.lower()
    assert head.endswith(b"\r\nhost: a\r\n\r\n")


def test_every_other_path_stays() -> None:
    front = Front(1, 2, "secret", at_root="sales")
    given = b"GET /agents/other/.well-known/agent-card.json HTTP/1.1\r\nhost: a\r\n\r\n"
    assert front.head(given) == given.replace(b"\r\nhost", b"\r\nAuthorization: Bearer secret\r\nhost")


def test_a_token_of_the_clients_own_is_left_alone() -> None:
    head = b"GET / HTTP/1.1\r\nhost: a\r\nauthorization: Bearer other\r\n\r\n"
    assert with_header(head, b"Authorization: Bearer secret\r\n") == head


@pytest.mark.parametrize(
    ("head", "length"), [(b"POST / HTTP/1.1\r\nContent-Length: 12\r\n\r\n", 12), (b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", 0)]
)
def test_the_length_of_a_body_is_read_from_its_head(head: bytes, length: int) -> None:
    assert content_length(head) == length


class Recorder(A2AServiceServicer):  # type: ignore[misc]  # generated code has no types
    """Knows no task, sends a stream of two, and remembers what it was sent."""

    def __init__(self) -> None:
        self.tenants: list[str] = []
        self.metadata: list[dict[str, Any]] = []

    def _note(self, request: Any, context: Any) -> None:
        self.tenants.append(request.tenant)
        self.metadata.append(dict(context.invocation_metadata()))

    async def GetTask(self, request: Any, context: Any) -> Any:
        self._note(request, context)
        if request.id == "known":
            return a2a_pb2.Task(id="known")
        return await context.abort(grpc.StatusCode.NOT_FOUND, "no such task", (("grpc-status-details-bin", b"details"),))

    async def SubscribeToTask(self, request: Any, context: Any) -> AsyncIterator[Any]:
        self._note(request, context)
        for name in ("one", "two"):
            yield a2a_pb2.StreamResponse(task=a2a_pb2.Task(id=name))


@pytest.fixture
async def recorded() -> AsyncIterator[tuple[Recorder, A2AServiceStub]]:
    """A gRPC server and a client that reaches it through the shim."""
    recorder, server = Recorder(), grpc.aio.server()
    add_A2AServiceServicer_to_server(recorder, server)
    target, public = server.add_insecure_port(f"{HOST}:0"), free_port()
    await server.start()
    front = Front(free_port(), target, "secret", "sales", (public, target))
    async with shim(front), grpc.aio.insecure_channel(f"{HOST}:{public}") as channel:
        yield recorder, A2AServiceStub(channel)
    await server.stop(0)


async def test_a_grpc_call_gets_the_bearer_and_the_tenant(recorded: tuple[Recorder, A2AServiceStub]) -> None:
    recorder, client = recorded
    task = await client.GetTask(a2a_pb2.GetTaskRequest(id="known"), metadata=(("a2a-version", "1.0"),))
    assert task.id == "known"
    assert recorder.tenants == ["sales"]
    assert recorder.metadata[0]["authorization"] == "Bearer secret"
    assert recorder.metadata[0]["a2a-version"] == "1.0"


def test_a_grpc_call_of_0_3_names_its_agent_in_the_metadata() -> None:
    handler = AnyMethod(None, Front(1, 2, "secret", "sales", at_root="older"))
    asked = SimpleNamespace(method="/a2a.v1.A2AService/GetTask", invocation_metadata=(("x-own", "1"), ("user-agent", "grpc")))
    assert handler._metadata(asked) == [("x-own", "1"), ("authorization", "Bearer secret"), ("a2a-tenant", "older")]


async def test_a_grpc_error_keeps_its_code_its_words_and_its_details(recorded: tuple[Recorder, A2AServiceStub]) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await recorded[1].GetTask(a2a_pb2.GetTaskRequest(id="unknown"))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert caught.value.details() == "no such task"
    assert dict(caught.value.trailing_metadata())["grpc-status-details-bin"] == b"details"


async def test_a_grpc_stream_passes_whole(recorded: tuple[Recorder, A2AServiceStub]) -> None:
    answers = [answer.task.id async for answer in recorded[1].SubscribeToTask(a2a_pb2.SubscribeToTaskRequest(id="known"))]
    assert answers == ["one", "two"]


def test_a_tenant_that_the_client_names_is_left_alone() -> None:
    request = a2a_pb2.GetTaskRequest(tenant="other", id="known").SerializeToString()
    made = a2a_pb2.GetTaskRequest.FromString(named_tenant("/lf.a2a.v1.A2AService/GetTask", request, "sales"))
    assert (made.tenant, made.id) == ("other", "known")


def test_messages_of_other_services_stay_as_they_are() -> None:
    assert named_tenant("/grpc.health.v1.Health/Check", b"\x0a\x01x", "sales") == b"\x0a\x01x"
