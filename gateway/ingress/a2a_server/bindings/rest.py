"""A2A over HTTP+JSON below /agents/{name}: 1.0 at message:send, tasks and so on, 0.3 below v1."""

from typing import Any, Final
from urllib.parse import parse_qsl

import structlog

from adapters.a2a_client.wire.v1 import BadMessage, to_json_name
from adapters.task import encode
from gateway.ingress.a2a_server.bindings.jsonrpc import extension_headers, retry_header
from gateway.ingress.a2a_server.bindings.jsonrpc_methods import A2aMethod
from gateway.ingress.a2a_server.bindings.rest_paths import Route, find_route
from gateway.ingress.a2a_server.bindings.sse_frames import SseFrames
from gateway.ingress.a2a_server.operations import OperationRequest, Operations, OperationStream
from gateway.ingress.a2a_server.parameters import QUERY_FIELDS_MAX, read_service_parameters
from gateway.ingress.http.asgi import (
    JSON,
    ContentTypeNotSupported,
    Receive,
    Scope,
    Send,
    forget_headers,
    header,
    headers_by_name,
    read_body,
    respond,
)
from gateway.ingress.http.authentication import RequestAuthentication
from gateway.ingress.http.error_bodies import a2a_details
from gateway.ingress.http.errors import ErrorReport, HttpMethodNotAllowed, describe, error_headers
from gateway.ingress.http.event_streams import stream_events
from gateway.ingress.http.request_trace import RequestTrace, read_deadline
from policies.strict_json import LARGE, parse, run_off_loop
from registry.store import UnknownName

A2A_JSON: Final = b"application/a2a+json"
_NUMBER_MEMBERS: Final = frozenset({"historyLength", "pageSize"})
_BOOLEANS: Final = {"true": True, "false": False}
log = structlog.get_logger()


class RestEndpoint:
    """The HTTP+JSON endpoint of every agent."""

    def __init__(self, authentication: RequestAuthentication, operations: Operations, max_body: int) -> None:
        self._authentication = authentication
        self._operations = operations
        self._max_body = max_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send, agent: str, request_trace: RequestTrace) -> None:
        """Answers one request."""
        older = False
        try:
            caller = await self._authentication.authenticate(scope, f"/agents/{agent}")
            place = find_route(scope["path"].removeprefix(f"/agents/{agent}"))
            older = place.version == "0.3"
            method = place.method_for(scope["method"])
            service_parameters = read_service_parameters(scope, (place.version,))
            request_trace.method, request_trace.deadline = method.name, read_deadline(scope)
            request_trace.name_agent(agent)
            if place.tenant not in ("", agent):
                raise UnknownName(place.tenant)
            params = await self._read_params(scope, receive, place)
            operation_request = OperationRequest(
                caller,
                agent,
                request_trace.trace_context,
                service_parameters.extensions,
                service_parameters.idempotency_key,
                place.version,
                service_parameters.last_event_id,
            )
            outcome = await method.operation(self._operations, operation_request, method.read_params(params))
            extensions = extension_headers(self._operations, operation_request)
            if method.is_streaming:
                del params, service_parameters, operation_request  # a stream lasts long, and must not keep the request in memory
                forget_headers(scope)
                await stream_events(receive, send, _encode_events(method, outcome, older), extensions)
            else:
                await respond(
                    send,
                    200,
                    encode(method.write_result(outcome)),
                    [*extensions, *retry_header(method, outcome)],
                    _response_media_type(scope, older),
                )
        except Exception as error:  # noqa: BLE001 (request handler: every failure gets an answer of the protocol)
            request_trace.outcome = await self._respond_error(scope, send, agent, error, older)

    async def _read_params(self, scope: Scope, receive: Receive, route: Route) -> dict[str, Any]:
        """Merges the members of the path with those of the body or the query (A2A 1.0 s11.5).

        Raises BadMessage when they contradict each other.
        """
        params = await self._read_body_object(scope, receive) if scope["method"] == "POST" else _read_query(scope)
        for name, value in route.members.items():
            if params.get(name) not in (None, "", value):
                raise BadMessage(name, "differs from the one in the path")
        return {**params, **route.members}

    async def _read_body_object(self, scope: Scope, receive: Receive) -> dict[str, Any]:
        """Reads the body, an object or nothing. Raises ContentTypeNotSupported, BadJson, BadMessage, BodyTooLarge, BodyIncomplete."""
        kind = _declared_media_type(scope)
        if kind not in (b"", JSON, A2A_JSON):
            raise ContentTypeNotSupported
        body = await read_body(scope, receive, self._max_body)
        if not body:
            return {}
        document = parse(body) if len(body) <= LARGE else await run_off_loop(parse, body)
        if not isinstance(document, dict):
            raise BadMessage("body", "must be an object")
        return document

    async def _respond_error(self, scope: Scope, send: Send, agent: str, error: Exception, is_a2a_03: bool) -> str:
        report = describe(error)
        if report.mapping.status == 500:
            log.exception("a2a_request_failed", agent=agent)
        more = error_headers(report, self._authentication, f"/agents/{agent}")
        if isinstance(error, HttpMethodNotAllowed):
            more.append((b"allow", ", ".join(error.allowed).encode()))
        await respond(
            send, report.mapping.status, _error_body(report, is_a2a_03), more, _response_media_type(scope, is_a2a_03, default=JSON)
        )
        return report.mapping.reason_id


def _error_body(report: ErrorReport, is_a2a_03: bool = False) -> bytes:
    """Encodes google.rpc.Status as JSON (s11.6).

    0.3 defines no error body, so members that its reference implementation reads are added.
    """
    row = report.mapping
    error = {"code": row.status, "status": row.rpc_code, "message": report.detail, "details": a2a_details(report)}
    if not is_a2a_03:
        return encode({"error": error})
    name = "".join(word.capitalize() for word in (row.a2a_reason or row.reason_id.replace("-", "_")).split("_")) + "Error"
    return encode({"type": name, "message": report.detail, "error": error})


def _encode_events(method: A2aMethod, events: OperationStream, is_a2a_03: bool) -> Any:
    return SseFrames(
        events,
        lambda event: event.encoded if method.writes_unchanged else encode(method.write_result(event.response)),
        lambda report: b"event: error\ndata: %s\n\n" % _error_body(report, is_a2a_03),
    )


def _read_query(scope: Scope) -> dict[str, Any]:
    """Reads the query into JSON members. Raises BadMessage."""
    found: dict[str, Any] = {}
    try:
        fields = parse_qsl(scope["query_string"].decode("ascii"), keep_blank_values=True, max_num_fields=QUERY_FIELDS_MAX, errors="strict")
    except ValueError:
        raise BadMessage("query", f"is malformed, or has more than {QUERY_FIELDS_MAX} fields") from None
    for field, text in fields:
        name = to_json_name(field)
        if name in found:
            raise BadMessage(name, "occurs twice")
        found[name] = _typed_query_value(name, text)
    return found


def _typed_query_value(name: str, text: str) -> Any:
    """Converts the text of a number or boolean member. A text that does not fit stays text, so that the reader's error names the member."""
    if name in _NUMBER_MEMBERS and text.removeprefix("-").isdecimal() and text.isascii() and len(text) < 10:
        return int(text)
    return _BOOLEANS.get(text, text) if name == "includeArtifacts" else text


def _declared_media_type(scope: Scope) -> bytes:
    return (header(scope, b"content-type") or "").partition(";")[0].strip().lower().encode()


def _response_media_type(scope: Scope, is_a2a_03: bool, default: bytes = A2A_JSON) -> bytes:
    """Returns the media type of the answer: that of the request, else one that Accept names, else `default` (A2A 1.0 s11.1)."""
    if is_a2a_03:
        return JSON
    headers = headers_by_name(scope)
    kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
    if kind in (JSON, A2A_JSON):
        return kind
    accepted = b",".join(value for name, value in scope["headers"] if name == b"accept").lower()
    if A2A_JSON in accepted:
        return A2A_JSON
    return JSON if JSON in accepted else default
