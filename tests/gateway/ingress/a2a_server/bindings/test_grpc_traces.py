"""Errors of the gRPC interface name the trace of their call."""

import re
from collections.abc import AsyncIterator

import grpc
import pytest
from a2a.types import a2a_pb2 as pb1
from google.rpc import error_details_pb2, status_pb2

from adapters.a2a_client.protobuf import STATUS_DETAILS_KEY
from gateway.ingress.a2a_server.bindings.grpc_methods import SERVICE_1_0
from gateway.tasks.log import UnknownTask
from tests.fakes.grpc_door import Canned, Gate, Opened, opened
from tests.fakes.house import TRACE, TRACEPARENT

ASKING = pb1.GetTaskRequest(tenant="sales", id="t").SerializeToString()


@pytest.fixture
async def door() -> AsyncIterator[Opened]:
    canned = Canned()
    canned.error = UnknownTask()
    async with opened(canned, Gate()) as built:
        yield built


async def trace_of(door: Opened, method: str, body: bytes, *traceparents: str) -> str:
    """The trace id in the ErrorInfo of a call that is refused."""
    metadata = (("authorization", "Bearer good"), *(("traceparent", each) for each in traceparents))
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await door.call(f"/{SERVICE_1_0.name}/{method}", body, metadata)
    status = status_pb2.Status.FromString(dict(raised.value.trailing_metadata() or ())[STATUS_DETAILS_KEY])
    info = error_details_pb2.ErrorInfo()
    assert status.details[-1].Unpack(info)
    return info.metadata["trace_id"]


@pytest.mark.parametrize(("method", "body"), [("GetTask", ASKING), ("SubscribeToTask", ASKING), ("GetTask", b"\xff")])
async def test_an_error_names_the_callers_trace_or_one_of_its_own(door: Opened, method: str, body: bytes) -> None:
    assert await trace_of(door, method, body, TRACEPARENT) == TRACE
    made = [await trace_of(door, method, body, *sent) for sent in ((), (), ("odd",), (TRACEPARENT, TRACEPARENT.replace("0a", "1a")))]
    assert len({TRACE, *made}) == 5 and all(re.fullmatch("[0-9a-f]{32}", each) for each in made)
