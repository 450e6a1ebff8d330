"""A2A over JSON-RPC at /agents/{name}: 1.0 and 0.3 at the same address."""

from typing import Any

import structlog

from adapters.a2a_client.wire.v1 import error_bytes, result_bytes
from adapters.task import Task
from gateway.ingress.a2a_server.bindings.jsonrpc_methods import VERSIONS, Method, method_of
from gateway.ingress.a2a_server.bindings.sse_frames import frames
from gateway.ingress.a2a_server.operations import Asked, Operations, Stream
from gateway.ingress.a2a_server.parameters import read_parameters
from gateway.ingress.http.asgi import Header, Receive, Scope, Send, check_json, read_body, respond, stream
from gateway.ingress.http.authentication import Admission
from gateway.ingress.http.deadline_header import deadline_in
from gateway.ingress.http.error_bodies import a2a_details
from gateway.ingress.http.errors import InvalidRequest, Told, http_headers, told
from gateway.ingress.http.request_trace import Visit
from gateway.tasks.turns.transitions import retry_after_of
from policies.strict_json import LARGE, off_loop, parse

log = structlog.get_logger()


class JsonRpc:
    """The endpoint of every agent. Errors of the protocol ride on HTTP 200; only who may not enter gets 401, 403 or 404."""

    def __init__(self, admission: Admission, operations: Operations, max_body: int) -> None:
        self._admission = admission
        self._operations = operations
        self._max_body = max_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send, agent: str, visit: Visit) -> None:
        """Answers one POST. A notification, which has no id, is acted on and gets no JSON-RPC answer (JSON-RPC 2.0 s4.1)."""
        request_id: Any = None
        is_notification = False
        try:
            caller = await self._admission.admit(scope, f"/agents/{agent}")
            if scope["method"] != "POST":
                await respond(send, 405, b"{}", [(b"allow", b"POST")])
                return
            check_json(scope)
            raw = await read_body(scope, receive, self._max_body)
            document = parse(raw) if len(raw) <= LARGE else await off_loop(parse, raw)
            del raw
            request_id = _request_id(document)
            _check_envelope(document)
            is_notification = "id" not in document
            given = read_parameters(scope, VERSIONS)
            method, version = _method(document, given.version)
            visit.method, visit.last = method.name, deadline_in(scope)
            visit.name_agent(agent)
            asked = Asked(caller, agent, visit.trail, given.extensions, given.idempotency_key, version, given.last_event_id)
            outcome = await method.act(self._operations, asked, method.read(document.get("params")))
            headers = activated(self._operations, asked)
            if is_notification:
                if method.streams:
                    await outcome.aclose()  # the turn goes on without a reader
                await respond(send, 202, b"", headers)
            elif method.streams:
                del document, given, asked  # a stream lasts, and what was asked for is read
                await stream(receive, send, _frames(request_id, method, outcome), headers)
            else:
                await respond(send, 200, result_bytes(request_id, method.write(outcome)), [*headers, *retry_header(method, outcome)])
        except Exception as error:  # noqa: BLE001 (the door: whatever happens, the caller gets an answer of the protocol, and the log the rest)
            said = told(error)
            visit.outcome = said.row.reason
            body = error_bytes(request_id, said.row.code, said.detail, a2a_details(said))
            if is_notification:
                await self._refuse(send, agent, said, 202 if said.jsonrpc_status == 200 else said.jsonrpc_status, b"")
            else:
                await self._refuse(send, agent, said, said.jsonrpc_status, body)

    async def _refuse(self, send: Send, agent: str, said: Told, status: int, body: bytes) -> None:
        if said.row.status == 500:
            log.exception("a2a_door_failed", agent=agent)
        await respond(send, status, body, http_headers(said, self._admission, f"/agents/{agent}"))


def activated(operations: Operations, asked: Asked) -> list[Header]:
    """Which of the extensions asked for are in force (A2A 1.0 s14.2.2)."""
    uris = operations.activated(asked) if asked.extensions else []
    return [(b"a2a-extensions", ", ".join(uris).encode())] if uris else []


def retry_header(method: Method, outcome: Any) -> list[Header]:
    """Retry-After (RFC 9110 s10.2.3) of SendMessage whose task failed because the agent asks to be called again later."""
    seconds = retry_after_of(outcome) if method.name == "SendMessage" and isinstance(outcome, Task) else 0
    return [(b"retry-after", str(seconds).encode())] if seconds else []


def _frames(request_id: Any, method: Method, events: Stream) -> Any:
    return frames(
        events,
        lambda event: result_bytes(request_id, method.write(event.response)),
        lambda said: b"data: %s\n\n" % error_bytes(request_id, said.row.code, said.detail, a2a_details(said)),
    )


def _request_id(document: Any) -> str | int | None:
    """The id of a request; None where it is null or missing. Raises InvalidRequest."""
    request_id = document.get("id") if isinstance(document, dict) else None
    if isinstance(request_id, bool) or not isinstance(request_id, str | int | None):
        raise InvalidRequest("id must be a string or an integer")
    return request_id


def _check_envelope(document: Any) -> None:
    if not isinstance(document, dict) or document.get("jsonrpc") != "2.0":
        raise InvalidRequest("a JSON-RPC 2.0 request object is expected")


def _method(document: dict[str, Any], version: str) -> tuple[Method, str]:
    """Raises InvalidRequest and UnknownMethod."""
    method = document.get("method")
    if not isinstance(method, str):
        raise InvalidRequest("method must be a string")
    return method_of(method, version)
