"""The limits of the gRPC interface: the size of metadata, and the number of calls in flight."""

import asyncio
from typing import Any

import grpc
import pytest
from a2a.types import a2a_pb2 as pb1

from gateway.calls.limits.slots import Overloaded
from gateway.ingress.a2a_server.bindings import grpc as grpc_binding
from gateway.ingress.a2a_server.bindings.grpc_methods import SERVICE_1_0
from tests.fakes.grpc_door import TASK, Canned, Gate, Opened, opened
from tests.fakes.waiting import SECONDS

METHOD = f"/{SERVICE_1_0.name}/GetTask"
REQUEST = pb1.GetTaskRequest(tenant="sales", id="t").SerializeToString()


async def status_of(door: Opened, *metadata: tuple[str, str]) -> Any:
    """The status of a GetTask with this metadata."""
    try:
        await door.call(METHOD, REQUEST, (("authorization", "Bearer good"), *metadata))
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


async def test_metadata_beyond_the_limit_are_refused_and_others_served() -> None:  # attack AVL-04
    operations = Canned()
    async with opened(operations, Gate()) as door:
        assert await status_of(door, ("x-large", "x" * (30 << 10))) is grpc.StatusCode.OK
        assert await status_of(door, ("x-large", "x" * (64 << 10))) is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert await status_of(door) is grpc.StatusCode.OK
    assert len(operations.asked) == 2


class Waiting(Canned):
    """Operations that answer when `release` is set. `arrived` has an item for each that waits."""

    def __init__(self) -> None:
        super().__init__()
        self.arrived: asyncio.Queue[None] = asyncio.Queue()
        self.release = asyncio.Event()

    async def get_task(self, *_: Any) -> Any:
        self.arrived.put_nowait(None)
        await self.release.wait()
        return TASK


async def test_calls_beyond_the_limit_are_refused_until_others_end(monkeypatch: pytest.MonkeyPatch) -> None:  # attack AVL-04
    monkeypatch.setattr(grpc_binding, "CALLS_MAX", 3)
    operations = Waiting()
    async with asyncio.timeout(SECONDS), opened(operations, Gate()) as door:
        calls = [asyncio.create_task(status_of(door)) for _ in range(3)]
        for _ in calls:
            await operations.arrived.get()
        assert await status_of(door) is grpc.StatusCode.RESOURCE_EXHAUSTED
        operations.release.set()
        assert await asyncio.gather(*calls) == [grpc.StatusCode.OK] * 3
        assert await status_of(door) is grpc.StatusCode.OK


async def test_a_call_that_is_not_admitted_is_refused_before_it_is_authenticated() -> None:  # attack PRO-12
    asked: list[tuple[str | None, str]] = []

    async def admit(authorization: str | None, address: str) -> None:
        asked.append((authorization, address))
        if len(asked) > 1:
            raise Overloaded("try again later", 2)

    operations, gate = Canned(), Gate()
    async with opened(operations, gate, admit=admit) as door:
        assert await status_of(door) is grpc.StatusCode.OK
        assert await status_of(door) is grpc.StatusCode.UNAVAILABLE
    assert asked == [("Bearer good", "ipv4:127.0.0.1")] * 2 and len(operations.asked) == len(gate.resources) == 1
