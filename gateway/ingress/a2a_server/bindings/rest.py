"""A2A over HTTP+JSON below /agents/{name}: 1.0 at message:send, tasks and so on, 0.3 below v1."""

from typing import Any, Final
from urllib.parse import parse_qsl

import structlog

from adapters.a2a_client.wire.names import json_name
from adapters.a2a_client.wire.v1 import BadMessage
from adapters.task import encode
from gateway.ingress.a2a_server.bindings.jsonrpc import activated, retry_header
from gateway.ingress.a2a_server.bindings.jsonrpc_methods import Method
from gateway.ingress.a2a_server.bindings.rest_paths import Place, find
from gateway.ingress.a2a_server.bindings.sse_frames import frames
from gateway.ingress.a2a_server.operations import Asked, Operations, Stream
from gateway.ingress.a2a_server.parameters import FIELDS_MAX, read_parameters
from gateway.ingress.http.asgi import JSON, ContentTypeNotSupported, Receive, Scope, Send, header, headers, read_body, respond, stream
from gateway.ingress.http.authentication import Admission
from gateway.ingress.http.deadline_header import deadline_in
from gateway.ingress.http.error_bodies import a2a_details
from gateway.ingress.http.errors import Told, WrongVerb, http_headers, told
from gateway.ingress.http.request_trace import Visit
from policies.strict_json import LARGE, off_loop, parse
from registry.store import UnknownName

A2A_JSON: Final = b"application/a2a+json"
_NUMBERS: Final = frozenset({"historyLength", "pageSize"})
_FLAGS: Final = {"true": True, "false": False}
log = structlog.get_logger()


class Rest:
    """The other endpoint of every agent."""

    def __init__(self, admission: Admission, operations: Operations, max_body: int) -> None:
        self._admission = admission
        self._operations = operations
        self._max_body = max_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send, agent: str, visit: Visit) -> None:
        """Answers one request."""
        older = False
        try:
            caller = await self._admission.admit(scope, f"/agents/{agent}")
            place = find(scope["path"].removeprefix(f"/agents/{agent}"))
            older = place.version == "0.3"
            method = place.method(scope["method"])
            given = read_parameters(scope, (place.version,))
            visit.method, visit.last = method.name, deadline_in(scope)
            visit.name_agent(agent)
            if place.tenant not in ("", agent):
                raise UnknownName(place.tenant)
            params = await self._params(scope, receive, place)
            asked = Asked(caller, agent, visit.trail, given.extensions, given.idempotency_key, place.version, given.last_event_id)
            outcome = await method.act(self._operations, asked, method.read(params))
            extensions = activated(self._operations, asked)
            if method.streams:
                del params, given, asked  # a stream lasts, and what was asked for is read
                await stream(receive, send, _frames(method, outcome, older), extensions)
            else:
                await respond(
                    send, 200, encode(method.write(outcome)), [*extensions, *retry_header(method, outcome)], _media_type(scope, older)
                )
        except Exception as error:  # noqa: BLE001 (the door: whatever happens, the caller gets an answer of the protocol, and the log the rest)
            visit.outcome = await self._refuse(scope, send, agent, error, older)

    async def _params(self, scope: Scope, receive: Receive, place: Place) -> dict[str, Any]:
        """The members of the request from its path, and from its body or its query (A2A 1.0 s11.5)."""
        given = await self._body(scope, receive) if scope["method"] == "POST" else _query(scope)
        for name, value in place.members.items():
            if given.get(name) not in (None, "", value):
                raise BadMessage(name, "is not that of the path")
        return {**given, **place.members}

    async def _body(self, scope: Scope, receive: Receive) -> dict[str, Any]:
        """An object, which may be left out. Raises ContentTypeNotSupported, BadJson, BadMessage."""
        kind = _declared(scope)
        if kind not in (b"", JSON, A2A_JSON):
            raise ContentTypeNotSupported
        body = await read_body(scope, receive, self._max_body)
        if not body:
            return {}
        given = parse(body) if len(body) <= LARGE else await off_loop(parse, body)
        if not isinstance(given, dict):
            raise BadMessage("body", "must be an object")
        return given

    async def _refuse(self, scope: Scope, send: Send, agent: str, error: Exception, older: bool) -> str:
        said = told(error)
        if said.row.status == 500:
            log.exception("a2a_door_failed", agent=agent)
        more = http_headers(said, self._admission, f"/agents/{agent}")
        if isinstance(error, WrongVerb):
            more.append((b"allow", ", ".join(error.allowed).encode()))
        await respond(send, said.row.status, _error(said, older), more, _media_type(scope, older, unsaid=JSON))
        return said.row.reason


def _error(said: Told, older: bool = False) -> bytes:
    """google.rpc.Status in JSON (s11.6). 0.3 has no shape for it: beside this one stands what its reference implementation reads."""
    row = said.row
    error = {"code": row.status, "status": row.rpc_code, "message": said.detail, "details": a2a_details(said)}
    if not older:
        return encode({"error": error})
    name = "".join(word.capitalize() for word in (row.a2a or row.reason.replace("-", "_")).split("_")) + "Error"
    return encode({"type": name, "message": said.detail, "error": error})


def _frames(method: Method, events: Stream, older: bool) -> Any:
    return frames(
        events,
        lambda event: encode(method.write(event.response)),
        lambda said: b"event: error\ndata: %s\n\n" % _error(said, older),
    )


def _query(scope: Scope) -> dict[str, Any]:
    """The query by the names of JSON. Raises BadMessage."""
    found: dict[str, Any] = {}
    try:
        fields = parse_qsl(scope["query_string"].decode("ascii"), keep_blank_values=True, max_num_fields=FIELDS_MAX, errors="strict")
    except ValueError:
        raise BadMessage("query", f"is not one, or has more than {FIELDS_MAX} fields") from None
    for field, text in fields:
        name = json_name(field)
        if name in found:
            raise BadMessage(name, "is there twice")
        found[name] = _value(name, text)
    return found


def _value(name: str, text: str) -> Any:
    """As the type of the member wants it; what does not fit stays text, so that reading it by type names the field."""
    if name in _NUMBERS and text.removeprefix("-").isdecimal() and text.isascii() and len(text) < 10:
        return int(text)
    return _FLAGS.get(text, text) if name == "includeArtifacts" else text


def _declared(scope: Scope) -> bytes:
    return (header(scope, b"content-type") or "").partition(";")[0].strip().lower().encode()


def _media_type(scope: Scope, older: bool, unsaid: bytes = A2A_JSON) -> bytes:
    """That of the request, where it has one that we speak; else what it accepts; else the one of A2A 1.0 (s11.1), but errors are JSON."""
    if older:
        return JSON
    given = headers(scope)
    kind = given.get(b"content-type", b"").partition(b";")[0].strip().lower()
    if kind in (JSON, A2A_JSON):
        return kind
    accepted = b",".join(value for name, value in scope["headers"] if name == b"accept").lower()
    if A2A_JSON in accepted:
        return A2A_JSON
    return JSON if JSON in accepted else unsaid
