"""The A2A client over gRPC: lf.a2a.v1 for 1.0, a2a.v1 for 0.3, through the generated stubs."""

import math
import re
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any, Final, TypeVar

import grpc
import msgspec
from a2a.compat.v0_3 import a2a_v0_3_pb2 as pb03
from a2a.compat.v0_3 import a2a_v0_3_pb2_grpc as grpc03
from a2a.types import a2a_pb2 as pb1
from a2a.types import a2a_pb2_grpc as grpc1
from google.protobuf.message import Message as Protobuf

from adapters.a2a_client.grpc_channels import GrpcChannels, PinnedChannel
from adapters.a2a_client.protobuf import STATUS_DETAILS_KEY, reason_in, to_json, to_protobuf
from adapters.a2a_client.wire import tolerant, v03_proto, v1
from adapters.a2a_client.wire.rpc import V1
from adapters.a2a_client.wire.tolerant import PeerEvent
from adapters.a2a_client.wire.transport import (
    ANSWER_LIMIT,
    CODES_BY_REASON,
    METHOD_NOT_FOUND,
    TASK_NOT_CANCELABLE,
    TASK_NOT_FOUND,
    UNSUPPORTED_OPERATION,
    A2APeer,
    PeerError,
    PeerEvents,
    Transport,
    seconds_left,
)
from adapters.contract import Call, Unreachable, UpstreamFault
from adapters.redaction.exchanges import CURRENT_RECORDER, ExchangeRecord, begin_exchange
from adapters.task import Message, StreamResponse, Task, encode
from adapters.upstream.egress import CONNECT_SECONDS, Egress
from policies.strict_json import LARGE, run_in_reader

R = TypeVar("R")
S = TypeVar("S")
_Code: Final = grpc.StatusCode
_METADATA_KEY: Final = re.compile(r"[0-9a-z_.-]+")
_TRANSPORT_HEADERS: Final = frozenset(
    {"host", "te", "connection", "content-type", "content-length", "user-agent", "accept", "accept-encoding"}
)
_CODES: Final = {  # used without an ErrorInfo
    _Code.UNIMPLEMENTED: METHOD_NOT_FOUND,
    _Code.NOT_FOUND: TASK_NOT_FOUND,
    _Code.INVALID_ARGUMENT: -32602,
    _Code.INTERNAL: -32603,
}
_PUBLIC_TEXTS: Final = {
    _Code.UNAUTHENTICATED: "The agent refused the gateway's credential (gRPC UNAUTHENTICATED)",
    _Code.PERMISSION_DENIED: "The agent refused the gateway's credential (gRPC PERMISSION_DENIED)",
    _Code.RESOURCE_EXHAUSTED: "the upstream's answer is too large, or it has no room for the call",
}
_UNREACHABLE_TEXTS: Final = {  # the text does not say whether the agent or the local gRPC library reported it
    _Code.UNAVAILABLE: "the upstream can't be reached",
    _Code.DEADLINE_EXCEEDED: "the upstream did not answer in time",
}
_STREAM_CUT_CODES: Final = frozenset(
    {_Code.UNAVAILABLE, _Code.CANCELLED, _Code.UNKNOWN, _Code.ABORTED}
)  # a stream that ends with one of these was cut


class GrpcTransport:
    """Transport over channels to addresses that `egress` vetted. `roots`: PEM certificates to trust instead of the public ones."""

    def __init__(self, egress: Egress, now: Callable[[], float], roots: bytes | None = None, limit: int = ANSWER_LIMIT) -> None:
        """`limit`: maximum bytes of one message of an agent."""
        self._channels = GrpcChannels(egress, now, roots, limit)

    async def send(self, peer: A2APeer, call: Call, message: Message, modes: tuple[str, ...]) -> PeerEvent:
        return await _decode_answer(
            _read_event, peer, await self._call_unary("SendMessage", peer, call, await _encode_send_request(peer, message, modes))
        )

    async def stream(self, peer: A2APeer, call: Call, message: Message, modes: tuple[str, ...]) -> AsyncGenerator[PeerEvents, None]:
        async with aclosing(
            self._stream_events(peer, call, "SendStreamingMessage", await _encode_send_request(peer, message, modes))
        ) as batches:
            async for events in batches:
                yield events

    def subscribe(self, peer: A2APeer, call: Call, task_id: str) -> AsyncGenerator[PeerEvents, None]:
        if peer.is_v03:
            method, request = "TaskSubscription", pb03.TaskSubscriptionRequest(name=f"tasks/{task_id}")
        else:
            method, request = "SubscribeToTask", pb1.SubscribeToTaskRequest(tenant=peer.tenant, id=task_id)
        return self._stream_events(peer, call, method, request)

    async def _stream_events(self, peer: A2APeer, call: Call, method: str, request: Protobuf) -> AsyncGenerator[PeerEvents, None]:
        channel, stub = await self._connected_channel_and_stub(peer, call)
        metadata = _call_metadata(peer, call)
        arriving = getattr(stub, method)(request, timeout=seconds_left(call), metadata=metadata)
        record = _record_request(method, peer, metadata, request)
        has_response = False
        try:
            async for response in arriving:
                has_response = True
                _record_response(record, response)
                yield (await _decode_answer(_read_event, peer, response),)
        except grpc.aio.AioRpcError as error:
            if not (has_response and error.code() in _STREAM_CUT_CODES):
                raise _fault_of_status(channel, error) from None
        finally:
            arriving.cancel()

    async def get_task(self, peer: A2APeer, call: Call, task_id: str) -> Task:
        request = pb03.GetTaskRequest(name=f"tasks/{task_id}") if peer.is_v03 else pb1.GetTaskRequest(tenant=peer.tenant, id=task_id)
        return await _decode_answer(_read_task, peer, await self._call_unary("GetTask", peer, call, request))

    async def cancel_task(self, peer: A2APeer, call: Call, task_id: str) -> Task:
        request = pb03.CancelTaskRequest(name=f"tasks/{task_id}") if peer.is_v03 else pb1.CancelTaskRequest(tenant=peer.tenant, id=task_id)
        try:
            return await _decode_answer(_read_task, peer, await self._call_unary("CancelTask", peer, call, request))
        except PeerError as error:
            if "TaskNotCancelable" in error.detail:  # in 0.3 only its name identifies it
                raise PeerError(TASK_NOT_CANCELABLE, "gRPC", error.detail) from None
            raise

    async def close(self) -> None:
        """Closes every channel."""
        await self._channels.close()

    async def _call_unary(self, method: str, peer: A2APeer, call: Call, request: Protobuf) -> Protobuf:
        channel, stub = await self._connected_channel_and_stub(peer, call)
        metadata = _call_metadata(peer, call)
        record = _record_request(method, peer, metadata, request)
        try:
            answer: Protobuf = await getattr(stub, method)(request, timeout=seconds_left(call), metadata=metadata)
        except grpc.aio.AioRpcError as error:
            raise _fault_of_status(channel, error, TASK_NOT_CANCELABLE if method == "CancelTask" else UNSUPPORTED_OPERATION) from None
        _record_response(record, answer)
        return answer

    async def _connected_channel_and_stub(self, peer: A2APeer, call: Call) -> tuple[PinnedChannel, Any]:
        """The connected channel, and the stub of the peer's version on it. Raises Unreachable before anything is sent."""
        tls = call.target.upstream.get("tls")
        channel = await self._channels.channel_to(peer.url, tls if isinstance(tls, bool) else None)
        if not await channel.wait_until_connected(min(seconds_left(call), CONNECT_SECONDS)):
            raise _no_connection_fault(channel)
        stub = channel.stubs.get(peer.is_v03)
        if stub is None:
            stub = channel.stubs[peer.is_v03] = (grpc03 if peer.is_v03 else grpc1).A2AServiceStub(channel.channel)
        return channel, stub


def _record_request(method: str, peer: A2APeer, metadata: tuple[tuple[str, str], ...], request: Protobuf) -> ExchangeRecord | None:
    """Records a request as JSON where somebody tries the call."""
    if CURRENT_RECORDER.get() is None:
        return None
    return begin_exchange(f"{method} {peer.url}", dict(metadata), encode(to_json(request)))


def _record_response(record: ExchangeRecord | None, message: Protobuf) -> None:
    if record is not None:
        record.begin_response(200, {})
        record.add_body(encode(to_json(message)) + b"\n")


async def _decode_answer(decode: Callable[[A2APeer, Protobuf], R], peer: A2APeer, message: Protobuf) -> R:
    """Decodes a response; a large one in a thread."""
    return decode(peer, message) if message.ByteSize() <= LARGE else await run_in_reader(decode, peer, message)


async def _encode_send_request(peer: A2APeer, message: Message, modes: tuple[str, ...]) -> Protobuf:
    """Encodes a request; a large one in a thread."""
    if len(encode(message)) <= LARGE:
        return _build_send_request(peer, message, modes)
    return await run_in_reader(_build_send_request, peer, message, modes)


def _build_send_request(peer: A2APeer, message: Message, modes: tuple[str, ...]) -> Protobuf:
    if peer.is_v03:
        return to_protobuf(v03_proto.build_send_params(message, modes, peer.push_url, peer.metadata), pb03.SendMessageRequest)
    return to_protobuf(V1.send_params(message, modes, peer.tenant, peer.push_url, peer.metadata), pb1.SendMessageRequest)


def _read_event(peer: A2APeer, message: Protobuf) -> PeerEvent:
    """Decodes a SendMessageResponse or StreamResponse, whose members have the same names."""
    value = to_json(message)
    if peer.is_v03:
        return tolerant.read_event(v03_proto.lift_event(value))
    response = _convert_or_none(value, StreamResponse)
    return (v1.clean_member(response) if response else None) or tolerant.read_event(value)


def _read_task(peer: A2APeer, message: Protobuf) -> Task:
    value = to_json(message)
    if peer.is_v03:
        return tolerant.read_task(v03_proto.lift_event({"task": value}))
    task = _convert_or_none(value, Task)
    return task if task and v1.is_clean_task(task) else tolerant.read_task({"task": value})


def _convert_or_none(value: Any, kind: type[S]) -> S | None:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError:
        return None


def _call_metadata(peer: A2APeer, call: Call) -> tuple[tuple[str, str], ...]:
    """The headers of a call as gRPC metadata, without those that HTTP/2 or gRPC sets itself. Raises UpstreamFault."""
    headers = {name.lower(): value for name, value in call.headers.items()} | ({} if peer.is_v03 else {"a2a-version": V1.version})
    forwarded = {name: value for name, value in headers.items() if name not in _TRANSPORT_HEADERS and not name.startswith("grpc-")}
    for name, value in forwarded.items():
        if not _METADATA_KEY.fullmatch(name) or name.endswith("-bin") or not (value.isascii() and value.isprintable()):
            raise UpstreamFault("A header for this agent can't be sent over gRPC", f"the header {name[:64]}")
    return tuple(forwarded.items())


def _no_connection_fault(channel: PinnedChannel) -> Unreachable:
    channel.vetted_at = -math.inf  # the name may have another address by now
    fault = Unreachable(_UNREACHABLE_TEXTS[_Code.UNAVAILABLE], "no connection")
    fault.is_unsent = True
    return fault


def _fault_of_status(
    channel: PinnedChannel, error: "grpc.aio.AioRpcError", precondition_code: int = UNSUPPORTED_OPERATION
) -> UpstreamFault:
    """The fault for a status other than OK, without its text. `precondition_code`: the code for FAILED_PRECONDITION without details."""
    status, detail = error.code(), str(error.details())[:500]
    if status is _Code.UNAVAILABLE:
        channel.vetted_at = -math.inf
    details = next((value for name, value in error.trailing_metadata() or () if name == STATUS_DETAILS_KEY), b"")
    default = precondition_code if status is _Code.FAILED_PRECONDITION else _CODES.get(status, 0)
    code = CODES_BY_REASON.get(reason_in(details if isinstance(details, bytes) else b""), 0) or default
    if code:
        return PeerError(code, f"gRPC {status.name}", detail)
    if status in _UNREACHABLE_TEXTS:
        return Unreachable(_UNREACHABLE_TEXTS[status], detail)
    return UpstreamFault(_PUBLIC_TEXTS.get(status, f"The agent answered with gRPC {status.name}"), detail)


_: type[Transport] = GrpcTransport
