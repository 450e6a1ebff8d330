"""A2A over gRPC, 1.0 and 0.3 on one port of its own.

The agent is named in the field `tenant` of a request (1.0), or in the metadata key `a2a-tenant` (0.3, whose requests have no
such field). Besides, the metadata are those of HTTP: authorization, a2a-version, a2a-extensions, idempotency-key,
last-event-id, traceparent.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Iterable
from contextlib import aclosing
from typing import Any

import grpc
import structlog
from google.protobuf.message import DecodeError
from google.protobuf.message import Message as Protobuf

from adapters.a2a_client.protobuf import DETAILS, status_bytes, to_json
from adapters.a2a_client.wire.v1 import BadMessage
from adapters.contract import UpstreamFault
from adapters.task import encode
from gateway.ingress.a2a_server.bindings.grpc_methods import SERVICES, Method, Service
from gateway.ingress.a2a_server.operations import Asked, Operations
from gateway.ingress.a2a_server.parameters import EXTENSIONS, event_id, extensions_of, idempotency_key
from gateway.ingress.http.asgi import BadHeader, Scope
from gateway.ingress.http.authentication import Admission
from gateway.ingress.http.deadline_header import NAME, moment
from gateway.ingress.http.error_bodies import a2a_details
from gateway.ingress.http.errors import VersionNotSupported, challenges, told
from gateway.ingress.http.request_trace import Visit, Visits
from gateway.telemetry.spans import TRACEPARENT, valid_traceparent
from policies.strict_json import LARGE, in_reader
from registry.store import UnknownName

AGENT = re.compile(r"[a-z0-9-]{1,64}")
TENANT = "a2a-tenant"
CALLS_MAX = 10_000  # under way at once
HANDSHAKE_MS = 15_000  # for a client to speak HTTP/2
PING_MS = 60_000  # after which a quiet connection is asked whether its client is still there
GRACE_SECONDS = 2.0  # for calls under way when the gateway stops; their tasks go on without them
log = structlog.get_logger()


class Metadata:
    """What a call says besides its message."""

    def __init__(self, pairs: Iterable[tuple[str, str | bytes]]) -> None:
        self._pairs = [(key, value) for key, value in pairs if isinstance(value, str)]

    def one(self, key: str) -> str | None:
        """A value that may stand once. Raises BadHeader when it stands twice."""
        found = self.all(key)
        if len(found) > 1:
            raise BadHeader(f"{key} was sent twice")
        return found[0] if found else None

    def all(self, key: str) -> list[str]:
        return [value for known, value in self._pairs if known == key]

    def scope(self, path: str) -> Scope:
        """The call as a request of HTTP, which it is."""
        headers = [(key.encode(), value.encode("utf-8", "surrogateescape")) for key, value in self._pairs]
        return {"type": "grpc", "method": "POST", "path": path, "headers": headers}


class GrpcDoor:
    """Serves `operations` to gRPC clients. A client that leaves, or whose deadline passes, stops no task."""

    name = "a2a-grpc"

    def __init__(self, admission: Admission, operations: Operations, visits: Visits, max_body: int) -> None:
        self._admission = admission
        self._operations = operations
        self._visits = visits
        self._max_body = max_body
        self._lasting: set[asyncio.Task[Any]] = set()
        self._server: Any = None
        self.port = 0  # that it listens on

    async def open(self, host: str, port: int, shared: bool = False) -> None:
        """Listens; `shared`: with other processes of this gateway. A port that can't be had is told in the log; other doors stay open."""
        options = (
            ("grpc.max_receive_message_length", self._max_body),
            ("grpc.max_metadata_size", 32 << 10),
            ("grpc.server_handshake_timeout_ms", HANDSHAKE_MS),
            ("grpc.keepalive_time_ms", PING_MS),
            ("grpc.so_reuseport", int(shared)),
        )
        server = grpc.aio.server(options=options, maximum_concurrent_rpcs=CALLS_MAX)
        for service in SERVICES:
            handlers = {name: self._handler(service, name, method) for name, method in service.methods.items()}
            server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service.name, handlers),))
        try:
            self.port = server.add_insecure_port(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
        except RuntimeError:
            log.exception("grpc_not_open", host=host, port=port)
            return
        await server.start()
        self._server = server
        log.info("grpc_open", host=host, port=self.port)

    async def close(self, seconds: float = GRACE_SECONDS) -> None:
        """Accepts no further calls, and gives those under way so many seconds. A second call may shorten them."""
        if self._server is not None:
            await self._server.stop(seconds)

    def _handler(self, service: Service, name: str, method: Method) -> Any:
        path = f"/{service.name}/{name}"

        async def whole(request: bytes, context: Any) -> Protobuf:
            visit = self._begin(path, context)
            try:
                result = await self._act(service, method, request, (context, visit))
                return await _written(method, result)
            except Exception as error:  # noqa: BLE001 (the door: whatever happens, the caller gets a status of the protocol, and the log the rest)
                return await self._refuse(context, visit, error)
            finally:
                self._visits.end(visit)

        async def streamed(request: bytes, context: Any) -> AsyncIterator[Protobuf]:
            visit = self._begin(path, context)
            try:
                events = await self._act(service, method, request, (context, visit))
                async with aclosing(events):
                    async for batch in events:
                        for event in batch:
                            yield await _written(method, event)
            except Exception as error:  # noqa: BLE001 (the door: whatever happens, the caller gets a status of the protocol, and the log the rest)
                await self._refuse(context, visit, error)
            finally:
                self._visits.end(visit)

        make = grpc.unary_stream_rpc_method_handler if method.streams else grpc.unary_unary_rpc_method_handler
        return make(streamed if method.streams else whole, response_serializer=lambda message: message.SerializeToString())

    def _begin(self, path: str, context: Any) -> Visit:
        given = Metadata(context.invocation_metadata() or ()).all(TRACEPARENT)
        visit = self._visits.begin(self.name, path, valid_traceparent(given[0]) if len(given) == 1 else "")
        visit.method = path.rpartition("/")[2]
        return visit

    async def _act(self, service: Service, method: Method, body: bytes, call: tuple[Any, Visit]) -> Any:
        context, visit = call
        metadata, request = Metadata(context.invocation_metadata() or ()), _message(method, body)
        agent = _agent(request, metadata)
        given, scope = metadata.one("authorization"), metadata.scope(f"/{service.name}/{visit.method}")
        caller = await self._admission.bearer(given, f"/agents/{agent}" if AGENT.fullmatch(agent) else "", scope)
        if not agent:
            raise BadMessage("tenant", f"is missing: it names the agent, as does {TENANT} in the metadata")
        if not AGENT.fullmatch(agent):
            raise UnknownName(agent)
        visit.name_agent(agent)
        _check_version(service, metadata)
        visit.last = moment(metadata.one(NAME))
        params = method.read(_json(request)) if len(body) <= LARGE else await in_reader(lambda: method.read(_json(request)))
        asked = Asked(
            caller,
            agent,
            visit.trail,
            extensions_of([value.encode() for name in EXTENSIONS for value in metadata.all(name)]),
            idempotency_key(metadata.one("idempotency-key")),
            service.version,
            event_id(metadata.one("last-event-id")),
        )
        outcome = await self._last(method.act(self._operations, asked, params))
        if uris := self._operations.activated(asked):
            await context.send_initial_metadata(((EXTENSIONS[0], ", ".join(uris)),))  # those in force (A2A 1.0 s14.2.2)
        return outcome

    async def _last(self, act: Any) -> Any:
        """Goes on when the client does not."""
        lasting = asyncio.ensure_future(act)
        self._lasting.add(lasting)
        lasting.add_done_callback(self._ended)
        return await asyncio.shield(lasting)

    def _ended(self, lasting: "asyncio.Task[Any]") -> None:
        self._lasting.discard(lasting)
        if not lasting.cancelled():
            lasting.exception()  # told to the client, if it is still there

    async def _refuse(self, context: Any, visit: Visit, error: Exception) -> Any:
        """Ends the call with the status that the error has (A2A 1.0 s10.6)."""
        said = told(error)
        visit.outcome = said.row.reason
        if said.row.status == 500:
            log.exception("grpc_door_failed", method=visit.method)
        code = grpc.StatusCode[said.row.rpc_code]
        trailing: list[tuple[str, str | bytes]] = [(DETAILS, status_bytes(code.value[0], said.detail, a2a_details(said)))]
        if said.row.status == 401:
            trailing.extend(challenges(said, self._admission, ""))
        await context.abort(code, said.detail, tuple(trailing))


def _message(method: Method, body: bytes) -> Protobuf:
    try:
        return method.request.FromString(body)
    except DecodeError:
        raise BadMessage("message", f"is not a {method.request.__name__} in protobuf") from None


def _agent(request: Protobuf, metadata: Metadata) -> str:
    """Raises BadMessage when the request and the metadata name two."""
    named, beside = str(getattr(request, "tenant", "")), metadata.one(TENANT) or ""
    if named and beside and named != beside:
        raise BadMessage("tenant", f"is not the agent that {TENANT} names in the metadata")
    return named or beside


def _check_version(service: Service, metadata: Metadata) -> None:
    """Each service has its version in its name; whoever names one besides has to mean the same (A2A 1.0 s3.6)."""
    asked = metadata.one("a2a-version")
    if asked and not re.fullmatch(rf"{re.escape(service.version)}(\.\d{{1,6}})?", asked):
        raise VersionNotSupported((service.version,))


async def _written(method: Method, outcome: Any) -> Protobuf:
    """The answer; a large one is made beside the event loop."""
    return method.write(outcome) if len(encode(outcome)) <= LARGE else await in_reader(method.write, outcome)


def _json(request: Protobuf) -> dict[str, Any]:
    try:
        return to_json(request)
    except UpstreamFault:
        raise BadMessage("message", "has a number that JSON does not know") from None
