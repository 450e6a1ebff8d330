"""Claims about agents over gRPC that can't be reached: what surely was not sent is tried again or elsewhere, and nothing else is."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import replace as changed
from typing import Any

import grpc
import pytest
from msgspec.structs import replace

from adapters.a2a_client.agent import A2AAgent
from adapters.a2a_client.grpc import GrpcTransport
from adapters.contract import ENDPOINT_KEY, Done, Event, Failed, RefLearned, UpstreamFault
from adapters.redaction.exchanges import SHOWN_HEADERS, ExchangeRecorder, recording_with
from adapters.upstream.egress import Egress
from adapters.upstream.guarded import GuardedAdapter
from adapters.upstream.resilience import Resilience
from registry.cards.card import AgentEndpoint
from tests.fakes.a2a_bindings import grpc_agent
from tests.fakes.a2a_calls import call_to, turn

AWAY = "the upstream can't be reached"
watched_or_not = pytest.mark.parametrize("stream", [False, True])


class Caller:
    """Calls an agent over gRPC that is registered at the first of its targets."""

    def __init__(self) -> None:
        self.resilience = Resilience(sleep=self._pause)
        self.egress = Egress(["127.0.0.1", "nowhere.example"], lookup=_lookup)
        self.transport = GrpcTransport(self.egress, time.monotonic)
        self._adapter = GuardedAdapter(A2AAgent(self.egress, grpc=lambda: self.transport), self.resilience)
        self.pauses = 0

    async def _pause(self, seconds: float) -> None:
        self.pauses += seconds > 0

    async def run(self, first: str, *others: str, stream: bool = False) -> list[Event]:
        call = call_to(first, binding="GRPC")
        self.target = changed(call.target, url=first, endpoints=tuple(AgentEndpoint(each, 0) for each in others))
        return [event async for event in self._adapter.run(turn("hi", stream=stream), replace(call, target=self.target))]


async def _lookup(host: str, port: int) -> Sequence[str]:
    if host.endswith(".example"):
        raise socket.gaierror("no such name")
    return [host]


@pytest.fixture
async def caller() -> AsyncIterator[Caller]:
    made = Caller()
    yield made
    await made.transport.close()
    await made.egress.close()


@contextmanager
def refusing() -> Any:
    """Bound, and nobody listens."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{closed.getsockname()[1]}"


@asynccontextmanager
async def talking(talk: Callable[[asyncio.StreamReader], Awaitable[object]], says: bytes = b"") -> AsyncIterator[str]:
    """A server that is none: it says something, listens for a while, and is gone."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(says)
        await talk(reader)
        writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


class Answering(grpc.GenericRpcHandler):  # type: ignore[misc]  # gRPC has no types
    """Answers every call with one status, and words that gRPC itself has for a connection that never came about."""

    def __init__(self, status: "grpc.StatusCode") -> None:
        self.calls = 0
        self._status = status

    def service(self, details: Any) -> Any:
        async def answer(request: bytes, context: Any) -> None:
            self.calls += 1
            await context.abort(self._status, "failed to connect to all addresses; last error: Connection refused")

        streams = details.method.endswith("SendStreamingMessage")
        return (grpc.unary_stream_rpc_method_handler if streams else grpc.unary_unary_rpc_method_handler)(answer)


@asynccontextmanager
async def answering(status: "grpc.StatusCode") -> AsyncIterator[tuple[str, Answering]]:
    server, handler = grpc.aio.server(), Answering(status)
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}", handler
    finally:
        await server.stop(None)


@watched_or_not
@pytest.mark.parametrize("why", ["refused", "hung up on", "no name"])
async def test_what_found_no_connection_goes_to_the_next_endpoint(caller: Caller, why: str, stream: bool) -> None:
    async with AsyncExitStack() as stack:
        target = "nowhere.example:8443"
        if why == "refused":
            target = stack.enter_context(refusing())
        elif why == "hung up on":
            target = await stack.enter_async_context(talking(lambda reader: reader.read(1)))
        here, noted = await stack.enter_async_context(grpc_agent("1.0"))
        events = await caller.run(target, here, stream=stream)
    assert isinstance(events[-1], Done) and len(noted) == 1 and caller.pauses == 0
    assert [event.ref.extra for event in events if isinstance(event, RefLearned)] == [{ENDPOINT_KEY: here}]
    assert caller.resilience.describe_agent(caller.target)["last_fault"]["problem"] == AWAY


async def test_a_single_endpoint_is_retried_once_and_then_its_circuit_opens(caller: Caller) -> None:
    with refusing() as target:
        [first] = await caller.run(target)
        assert isinstance(first, Failed) and first.reason == AWAY and caller.pauses == 1
        while not caller.resilience.ejected_count:
            await caller.run(target)
        [event] = await caller.run(target)
    assert isinstance(event, Failed) and event.retryable and "several times" in event.reason


@watched_or_not
async def test_what_an_agent_had_when_it_broke_off_is_sent_to_nobody_else(caller: Caller, stream: bool) -> None:
    got = 0

    async def until_sent(reader: asyncio.StreamReader) -> None:
        nonlocal got
        await reader.readuntil(b"m-1")  # the id of the message, in the body of the request
        got += 1

    async with talking(until_sent, says=b"\0\0\0\4\0\0\0\0\0") as target, grpc_agent("1.0") as (other, noted):  # HTTP/2: SETTINGS
        [event] = await caller.run(target, other, stream=stream)
    assert isinstance(event, Failed) and event.reason == AWAY
    assert got == 1 and noted == [] and caller.resilience.retry_count == 0
    assert caller.resilience.describe_agent(caller.target)["last_fault"]["problem"] == AWAY


@watched_or_not
@pytest.mark.parametrize("status", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.INTERNAL])
async def test_what_an_agent_says_of_connections_is_not_taken_for_ours(caller: Caller, status: "grpc.StatusCode", stream: bool) -> None:
    async with answering(status) as (target, agent), grpc_agent("1.0") as (other, noted):
        [event] = await caller.run(target, other, stream=stream)
    assert isinstance(event, Failed) and "refused" not in event.reason
    assert agent.calls == 1 and noted == [] and caller.resilience.retry_count == 0


async def test_a_name_without_an_address_tells_that_nothing_was_sent() -> None:
    with pytest.raises(UpstreamFault) as fault:
        await Egress(lookup=_lookup).resolve_target("https://nowhere.example/")
    assert fault.value.is_unsent


@watched_or_not
async def test_a_call_that_is_tried_shows_its_messages_as_json_without_the_credential(caller: Caller, stream: bool) -> None:
    recorder = ExchangeRecorder()
    async with grpc_agent("1.0") as (url, _noted):
        with recording_with(recorder):
            assert isinstance((await caller.run(url, stream=stream))[-1], Done)
    exchange = recorder.exchanges()[0]
    assert exchange.start == f"{'SendStreamingMessage' if stream else 'SendMessage'} {url}"
    assert '"hi"' in exchange.request.text and exchange.response.size > 0
    assert all(value == "***" or name in SHOWN_HEADERS or value.endswith(" ***") for name, value in exchange.request.headers)
