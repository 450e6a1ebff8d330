"""A process that drains treats gRPC calls as HTTP requests: a grace for those in flight, a typed error for the rest."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from a2a.types import GetTaskRequest, Message, Part, Role, SendMessageRequest, SendMessageResponse, StreamResponse, TaskState
from google.rpc import error_details_pb2, status_pb2
from grpc import StatusCode
from grpc.aio import AioRpcError, insecure_channel

from adapters.a2a_client.protobuf import STATUS_DETAILS_KEY
from tests.fakes.ports import free_port
from tests.fakes.waiting import until
from tests.journeys.kills import Town, tasks_in, town
from tests.journeys.test_drain import begun, end

SERVICE = "/lf.a2a.v1.A2AService/"
TIMEOUT = 120.0  # seconds of one call


class GrpcClient:
    """Sends requests of one person to the agent."""

    def __init__(self, channel: Any, built: Town) -> None:
        self._channel = channel
        self._metadata = (("authorization", f"Bearer {built.gateway.tokens()['first']}"),)

    async def send(self, said: str) -> SendMessageResponse:
        method = self._channel.unary_unary(f"{SERVICE}SendMessage", response_deserializer=SendMessageResponse.FromString)
        response: SendMessageResponse = await method(message(said), metadata=self._metadata, timeout=TIMEOUT)
        return response

    async def stream(self, said: str) -> list[StreamResponse]:
        method = self._channel.unary_stream(f"{SERVICE}SendStreamingMessage", response_deserializer=StreamResponse.FromString)
        return [event async for event in method(message(said), metadata=self._metadata, timeout=TIMEOUT)]

    async def is_served(self) -> bool:
        """Whether new calls are answered: a task that does not exist is not found."""
        method = self._channel.unary_unary(f"{SERVICE}GetTask")
        request = GetTaskRequest(tenant="agent", id="t_unknown").SerializeToString()
        try:
            await method(request, metadata=self._metadata, timeout=TIMEOUT)
        except AioRpcError as error:
            return error.code() is StatusCode.NOT_FOUND
        return True


def message(said: str) -> bytes:
    sent = Message(message_id=said, role=Role.ROLE_USER, parts=[Part(text=said)])
    return SendMessageRequest(tenant="agent", message=sent).SerializeToString()


def info_in(error: AioRpcError) -> error_details_pb2.ErrorInfo:
    """The reason and the task that an error names."""
    details = dict(error.trailing_metadata() or ())[STATUS_DETAILS_KEY]
    info = error_details_pb2.ErrorInfo()
    assert any(each.Unpack(info) for each in status_pb2.Status.FromString(bytes(details)).details)
    return info


@asynccontextmanager
async def grpc_town(folder: Path, drain: float) -> AsyncIterator[tuple[Town, GrpcClient]]:
    async with town(folder / "town", f"sqlite:///{folder / 'interlock.db'}") as built:
        port = free_port()
        built.gateway.configure(grpc_port=port, server={"drain": drain, "drain_delay": 0})
        await built.start()
        async with insecure_channel(f"127.0.0.1:{port}") as channel:
            await asyncio.wait_for(channel.channel_ready(), TIMEOUT)
            yield built, GrpcClient(channel, built)


async def test_a_grpc_call_that_ends_within_the_grace_is_answered(tmp_path: Path) -> None:
    async with grpc_town(tmp_path, drain=600) as (built, client):
        waiting = asyncio.create_task(client.send("slow waiting"))
        await begun(built, 1)
        assert await client.is_served()
        ended = end(built)

        async def is_closed() -> bool:
            return not await client.is_served()

        await until(is_closed, every=0.02)
        built.upstream.gate.set()
        assert TaskState.Name((await waiting).task.status.state) == "TASK_STATE_COMPLETED"
        assert await ended == 0


async def test_a_grpc_call_beyond_the_grace_gets_a_typed_error(tmp_path: Path) -> None:
    async with grpc_town(tmp_path, drain=0.5) as (built, client):
        waiting, streaming = (asyncio.create_task(call("slow")) for call in (client.send, client.stream))
        await begun(built, 2)
        assert await end(built) == 0
        named = set()
        for call in (waiting, streaming):
            with pytest.raises(AioRpcError) as refused:
                await call
            assert refused.value.code() is StatusCode.UNAVAILABLE
            info = info_in(refused.value)
            assert info.reason == "SHUTTING_DOWN"
            named.add(info.metadata["taskId"])
        assert named == set(tasks_in(built.gateway)) and len(named) == 2
