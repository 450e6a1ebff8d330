"""A2A over JSON-RPC at /agents/{name}: 1.0 and 0.3 at the same address."""

from typing import Any

import structlog

from adapters.a2a_client.wire.v1 import error_bytes, result_bytes
from adapters.task import Task, encode
from gateway.ingress.a2a_server.bindings.jsonrpc_methods import VERSIONS, A2aMethod, method_of
from gateway.ingress.a2a_server.bindings.sse_frames import SseFrames
from gateway.ingress.a2a_server.operations import OperationRequest, Operations, OperationStream
from gateway.ingress.a2a_server.parameters import read_service_parameters
from gateway.ingress.http.asgi import Header, Receive, Scope, Send, check_json_content_type, forget_headers, read_body, respond
from gateway.ingress.http.authentication import RequestAuthentication
from gateway.ingress.http.error_bodies import a2a_details, respond_problem
from gateway.ingress.http.errors import ErrorReport, HttpMethodNotAllowed, InvalidRequest, describe, error_headers
from gateway.ingress.http.event_streams import stream_events
from gateway.ingress.http.request_trace import RequestTrace, read_deadline
from gateway.tasks.turns.transitions import retry_after_of
from policies.strict_json import LARGE, parse, run_off_loop

log = structlog.get_logger()


class JsonRpcEndpoint:
    """The JSON-RPC endpoint of every agent.

    Errors of the protocol have HTTP status 200. Only errors that HTTP itself must report have another status
    (`ErrorReport.jsonrpc_status`).
    """

    def __init__(self, authentication: RequestAuthentication, operations: Operations, max_body: int) -> None:
        self._authentication = authentication
        self._operations = operations
        self._max_body = max_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send, agent: str, request_trace: RequestTrace) -> None:
        """Answers one POST. A notification, which has no id, is acted on and gets no JSON-RPC answer (JSON-RPC 2.0 s4.1)."""
        request_id: Any = None
        is_notification = False
        try:
            caller = await self._authentication.authenticate(scope, f"/agents/{agent}")
            if scope["method"] != "POST":
                await respond_problem(send, HttpMethodNotAllowed(("POST",)), [(b"allow", b"POST")])
                return
            check_json_content_type(scope)
            raw = await read_body(scope, receive, self._max_body)
            document = parse(raw) if len(raw) <= LARGE else await run_off_loop(parse, raw)
            del raw
            request_id = _request_id(document)
            _check_envelope(document)
            is_notification = "id" not in document
            service_parameters = read_service_parameters(scope, VERSIONS)
            method, version = method_of(document["method"], service_parameters.version)
            request_trace.method, request_trace.deadline = method.name, read_deadline(scope)
            request_trace.name_agent(agent)
            operation_request = OperationRequest(
                caller,
                agent,
                request_trace.trace_context,
                service_parameters.extensions,
                service_parameters.idempotency_key,
                version,
                service_parameters.last_event_id,
            )
            outcome = await method.operation(self._operations, operation_request, method.read_params(document.get("params")))
            headers = extension_headers(self._operations, operation_request)
            if is_notification:
                if method.is_streaming:
                    await outcome.aclose()  # the turn continues without a reader
                await respond(send, 202, b"", headers)
            elif method.is_streaming:
                del document, service_parameters, operation_request  # a stream lasts long, and must not keep the request in memory
                forget_headers(scope)
                await stream_events(receive, send, _encode_events(request_id, method, outcome), headers)
            else:
                await respond(send, 200, result_bytes(request_id, method.write_result(outcome)), [*headers, *retry_header(method, outcome)])
        except Exception as error:  # noqa: BLE001 (request handler: every failure gets an answer of the protocol)
            report = describe(error)
            request_trace.outcome = report.mapping.reason_id
            body = error_bytes(request_id, report.mapping.jsonrpc_code, report.detail, a2a_details(report))
            if is_notification:
                await self._respond_error(send, agent, report, 202 if report.jsonrpc_status == 200 else report.jsonrpc_status, b"")
            else:
                await self._respond_error(send, agent, report, report.jsonrpc_status, body)

    async def _respond_error(self, send: Send, agent: str, report: ErrorReport, status: int, body: bytes) -> None:
        if report.mapping.status == 500:
            log.exception("a2a_request_failed", agent=agent)
        await respond(send, status, body, error_headers(report, self._authentication, f"/agents/{agent}"))


def extension_headers(operations: Operations, request: OperationRequest) -> list[Header]:
    """Returns the answer's A2A-Extensions header: the requested extensions that are in force (A2A 1.0 s14.2.2)."""
    uris = operations.extensions_in_force(request) if request.extensions else []
    return [(b"a2a-extensions", ", ".join(uris).encode())] if uris else []


def retry_header(method: A2aMethod, outcome: Any) -> list[Header]:
    """Returns Retry-After (RFC 9110 s10.2.3) for a SendMessage whose task failed because the agent wants a later retry."""
    seconds = retry_after_of(outcome) if method.name == "SendMessage" and isinstance(outcome, Task) else 0
    return [(b"retry-after", str(seconds).encode())] if seconds else []


def _encode_events(request_id: Any, method: A2aMethod, events: OperationStream) -> Any:
    begin = b'{"jsonrpc":"2.0","id":%s,"result":' % encode(request_id)
    write_result = None if method.writes_unchanged else method.write_result
    return SseFrames(
        events,
        lambda event: b"%s%s}" % (begin, event.encoded if write_result is None else encode(write_result(event.response))),
        lambda report: b"data: %s\n\n" % error_bytes(request_id, report.mapping.jsonrpc_code, report.detail, a2a_details(report)),
    )


def _request_id(document: Any) -> str | int | None:
    """Returns the id of a request, or None where it is null or missing. Raises InvalidRequest."""
    request_id = document.get("id") if isinstance(document, dict) else None
    if request_id is not None and (isinstance(request_id, bool) or not isinstance(request_id, (str, int))):
        raise InvalidRequest("id must be a string or an integer")
    return request_id


def _check_envelope(document: Any) -> None:
    """Raises InvalidRequest for what is no request object. Without these members it is no notification either (JSON-RPC 2.0 s4)."""
    if not isinstance(document, dict) or document.get("jsonrpc") != "2.0":
        raise InvalidRequest("a JSON-RPC 2.0 request object is expected")
    if not isinstance(document.get("method"), str):
        raise InvalidRequest("method must be a string")
