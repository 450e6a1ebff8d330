"""A2A over gRPC, 1.0 and 0.3 on one port of its own.

The agent is named in the field `tenant` of a request (1.0), or in the metadata key `a2a-tenant` (0.3, whose requests have no such field).
The other metadata keys equal the HTTP headers: authorization, a2a-version, a2a-extensions, idempotency-key, last-event-id, traceparent.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import aclosing
from typing import Any

import grpc
import structlog
from google.protobuf.message import DecodeError
from google.protobuf.message import Message as Protobuf

from adapters.a2a_client.protobuf import STATUS_DETAILS_KEY, status_bytes, to_json
from adapters.a2a_client.wire.v1 import BadMessage
from adapters.contract import UpstreamFault
from adapters.task import StreamResponse, encode
from gateway.ingress.a2a_server.bindings.grpc_calls import OpenCalls
from gateway.ingress.a2a_server.bindings.grpc_methods import SERVICES, GrpcMethod, GrpcService
from gateway.ingress.a2a_server.operations import OperationRequest, Operations
from gateway.ingress.a2a_server.parameters import EXTENSION_HEADERS, parse_event_id, parse_extensions, parse_idempotency_key
from gateway.ingress.http.asgi import BadHeader, Scope
from gateway.ingress.http.authentication import RequestAuthentication
from gateway.ingress.http.error_bodies import a2a_details
from gateway.ingress.http.errors import VersionNotSupported, challenge_headers, describe
from gateway.ingress.http.request_trace import DEADLINE_HEADER_LOWER, RequestTrace, RequestTraces, parse_deadline
from gateway.telemetry.spans import TRACEPARENT, valid_traceparent
from policies.strict_json import LARGE, run_in_reader
from registry.store import UnknownName

AGENT_NAME = re.compile(r"[a-z0-9-]{1,64}")
TENANT_KEY = "a2a-tenant"
CALLS_MAX = 10_000  # in flight
HANDSHAKE_MS = 15_000  # for a client to complete the HTTP/2 handshake
PING_MS = 60_000  # a connection that was quiet for that long is pinged
GRACE_SECONDS = 1.0  # for calls in flight when the gateway stops; their tasks continue without them
ANSWER_SECONDS = 1.0  # after the grace, for calls whose turns were handed over to be answered
ABORT_SECONDS = 1.0  # after that, for the errors of the others to be sent
log = structlog.get_logger()


class CallMetadata:
    """The metadata of a call, without binary values."""

    def __init__(self, pairs: Iterable[tuple[str, str | bytes]]) -> None:
        self._pairs = [(key, value) for key, value in pairs if isinstance(value, str)]

    def find_single(self, key: str) -> str | None:
        """Returns the value of a key that may occur once. Raises BadHeader when it occurs twice."""
        found = self.values_of(key)
        if len(found) > 1:
            raise BadHeader(f"{key} was sent twice")
        return found[0] if found else None

    def values_of(self, key: str) -> list[str]:
        return [value for known, value in self._pairs if known == key]

    def to_scope(self, path: str) -> Scope:
        """Returns the call as an ASGI-like scope, since authentication reads HTTP headers."""
        headers = [(key.encode(), value.encode("utf-8", "surrogateescape")) for key, value in self._pairs]
        return {"type": "grpc", "method": "POST", "path": path, "headers": headers}


class GrpcServer:
    """Serves `operations` to gRPC clients. A client that disconnects, or whose deadline passes, stops no task."""

    name = "a2a-grpc"

    def __init__(
        self,
        authentication: RequestAuthentication,
        operations: Operations,
        request_traces: RequestTraces,
        max_body: int,
        *,
        services: Iterable[GrpcService] = SERVICES,
        admit: Callable[[str | None, str], Awaitable[None]] | None = None,
    ) -> None:
        """`admit` returns when a call with this authorization, of the client at this address, may start. It raises Overloaded."""
        self._services = services
        self._authentication = authentication
        self._operations = operations
        self._request_traces = request_traces
        self._max_body = max_body
        self._admit = admit
        self._running: set[asyncio.Task[Any]] = set()
        self._open_calls = OpenCalls()
        self._server: Any = None
        self.port = 0  # the bound port, after `open`

    async def open(self, host: str, port: int, reuse_port: bool = False) -> None:
        """Starts to listen. With `reuse_port`, other processes of the gateway share the port.

        A port that can't be bound is logged and raises nothing, so that the other servers still start.
        """
        options = (
            ("grpc.max_receive_message_length", self._max_body),
            ("grpc.max_metadata_size", 32 << 10),
            ("grpc.server_handshake_timeout_ms", HANDSHAKE_MS),
            ("grpc.keepalive_time_ms", PING_MS),
            ("grpc.so_reuseport", int(reuse_port)),
        )
        server = grpc.aio.server(options=options, maximum_concurrent_rpcs=CALLS_MAX)
        for service in self._services:
            handlers = {name: self._handler(service, name, method) for name, method in service.methods.items()}
            server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service.name, handlers),))
        try:
            self.port = server.add_insecure_port(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
        except RuntimeError:
            log.exception("grpc_listen_failed", host=host, port=port)
            return
        await server.start()
        self._server = server
        log.info("grpc_listening", host=host, port=self.port)

    async def close(self, seconds: float = GRACE_SECONDS) -> None:
        """Accepts no further calls, lets calls in flight run for `seconds`, and ends the rest with ShuttingDown.

        A later call may shorten that time.
        """
        if self._server is None:
            return
        stopping = asyncio.ensure_future(self._server.stop(seconds + ANSWER_SECONDS + ABORT_SECONDS))
        await asyncio.wait((stopping,), timeout=seconds + ANSWER_SECONDS)
        self._open_calls.end_all()
        await stopping

    def _handler(self, service: GrpcService, name: str, method: GrpcMethod) -> Any:
        path = f"/{service.name}/{name}"

        async def handle_unary(request: bytes, context: Any) -> Protobuf:
            request_trace = self._begin_trace(path, context)
            try:
                with self._open_calls.enter():
                    result = await self._perform(service, method, request, context, request_trace)
                    return await _convert_outcome(method, result)
            except Exception as error:  # noqa: BLE001 (request handler: every failure gets a status of the protocol)
                return await self._abort(context, request_trace, error)
            finally:
                self._request_traces.end(request_trace)

        async def handle_stream(request: bytes, context: Any) -> AsyncIterator[Protobuf]:
            request_trace = self._begin_trace(path, context)
            try:
                with self._open_calls.enter() as call:
                    events = await self._perform(service, method, request, context, request_trace)
                    async with aclosing(events):
                        async for batch in events:
                            for event in batch:
                                call.task_id = call.task_id or _task_id_of(event.response)
                                yield await _convert_outcome(method, event)
            except Exception as error:  # noqa: BLE001 (request handler: every failure gets a status of the protocol)
                await self._abort(context, request_trace, error)
            finally:
                self._request_traces.end(request_trace)

        make = grpc.unary_stream_rpc_method_handler if method.a2a.is_streaming else grpc.unary_unary_rpc_method_handler
        return make(
            handle_stream if method.a2a.is_streaming else handle_unary, response_serializer=lambda message: message.SerializeToString()
        )

    def _begin_trace(self, path: str, context: Any) -> RequestTrace:
        traceparents = CallMetadata(context.invocation_metadata() or ()).values_of(TRACEPARENT)
        request_trace = self._request_traces.begin(self.name, path, valid_traceparent(traceparents[0]) if len(traceparents) == 1 else "")
        request_trace.method = path.rpartition("/")[2]
        return request_trace

    async def _perform(self, service: GrpcService, method: GrpcMethod, body: bytes, context: Any, request_trace: RequestTrace) -> Any:
        metadata = CallMetadata(context.invocation_metadata() or ())
        authorization = metadata.find_single("authorization")
        if self._admit is not None:
            await self._admit(authorization, _address_of(context.peer()))
        request = _parse_request(method, body)
        agent, scope = _agent_name(request, metadata), metadata.to_scope(f"/{service.name}/{request_trace.method}")
        caller = await self._authentication.authenticate_header(
            authorization, f"/agents/{agent}" if AGENT_NAME.fullmatch(agent) else "", scope
        )
        if not agent:
            raise BadMessage("tenant", f"is missing; name the agent in it, or in {TENANT_KEY} of the metadata")
        if not AGENT_NAME.fullmatch(agent):
            raise UnknownName(agent)
        request_trace.name_agent(agent)
        _check_version(service, metadata)
        request_trace.deadline = parse_deadline(metadata.find_single(DEADLINE_HEADER_LOWER))
        params = (
            method.a2a.read_params(_to_json(request))
            if len(body) <= LARGE
            else await run_in_reader(lambda: method.a2a.read_params(_to_json(request)))
        )
        operation_request = OperationRequest(
            caller,
            agent,
            request_trace.trace_context,
            parse_extensions([value.encode() for name in EXTENSION_HEADERS for value in metadata.values_of(name)]),
            parse_idempotency_key(metadata.find_single("idempotency-key")),
            service.version,
            parse_event_id(metadata.find_single("last-event-id")),
        )
        outcome = await self._run_to_completion(method.a2a.operation(self._operations, operation_request, params))
        if uris := self._operations.extensions_in_force(operation_request):
            await context.send_initial_metadata(((EXTENSION_HEADERS[0], ", ".join(uris)),))  # A2A 1.0 s14.2.2
        return outcome

    async def _run_to_completion(self, operation: Any) -> Any:
        """Awaits the operation, which continues when the client cancels the call."""
        lasting = asyncio.ensure_future(operation)
        self._running.add(lasting)
        lasting.add_done_callback(self._on_finished)
        return await asyncio.shield(lasting)

    def _on_finished(self, finished: "asyncio.Task[Any]") -> None:
        self._running.discard(finished)
        if not finished.cancelled():
            finished.exception()  # marks it as retrieved; `_abort` reports it to a client that is still connected

    async def _abort(self, context: Any, request_trace: RequestTrace, error: Exception) -> Any:
        """Ends the call with the gRPC status of the error (A2A 1.0 s10.6)."""
        report = describe(error)
        request_trace.outcome = report.mapping.reason_id
        if report.mapping.status == 500:
            log.exception("grpc_request_failed", method=request_trace.method)
        code = grpc.StatusCode[report.mapping.rpc_code]
        trailing: list[tuple[str, str | bytes]] = [(STATUS_DETAILS_KEY, status_bytes(code.value[0], report.detail, a2a_details(report)))]
        if report.mapping.status == 401:
            trailing.extend(challenge_headers(report, self._authentication, ""))
        await context.abort(code, report.detail, tuple(trailing))


def _address_of(peer: str) -> str:
    """Returns the address of a client without its port, such as `ipv4:10.0.0.1` of `ipv4:10.0.0.1:50123`."""
    return peer.rpartition(":")[0]


def _parse_request(method: GrpcMethod, body: bytes) -> Protobuf:
    try:
        return method.request.FromString(body)
    except DecodeError:
        raise BadMessage("message", f"is not a {method.request.__name__} in protobuf") from None


def _agent_name(request: Protobuf, metadata: CallMetadata) -> str:
    """Returns the agent's name, or "". Raises BadMessage when the request and the metadata name two agents."""
    named, from_metadata = str(getattr(request, "tenant", "")), metadata.find_single(TENANT_KEY) or ""
    if named and from_metadata and named != from_metadata:
        raise BadMessage("tenant", f"is not the agent that {TENANT_KEY} names in the metadata")
    return named or from_metadata


def _check_version(service: GrpcService, metadata: CallMetadata) -> None:
    """Raises VersionNotSupported when the metadata name another version than the service (A2A 1.0 s3.6)."""
    requested = metadata.find_single("a2a-version")
    if requested and not re.fullmatch(rf"{re.escape(service.version)}(\.\d{{1,6}})?", requested):
        raise VersionNotSupported((service.version,))


def _task_id_of(response: StreamResponse) -> str:
    """Returns the task that an event is about, or "" for a Message, which has none."""
    update = response.status_update or response.artifact_update
    return response.task.id if response.task else update.task_id if update else ""


async def _convert_outcome(method: GrpcMethod, outcome: Any) -> Protobuf:
    """Converts the outcome to protobuf; a large one in a worker thread."""
    return method.to_response(outcome) if len(encode(outcome)) <= LARGE else await run_in_reader(method.to_response, outcome)


def _to_json(request: Protobuf) -> dict[str, Any]:
    try:
        return to_json(request)
    except UpstreamFault:
        raise BadMessage("message", "has a number that JSON can't represent") from None
