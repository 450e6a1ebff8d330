"""A2A 1.0 over JSON-RPC at /agents/{name}: SendMessage, SendStreamingMessage, GetTask, CancelTask."""

import re
from collections.abc import AsyncGenerator
from typing import Any
from urllib.parse import parse_qs

import structlog

from adapters.a2a_wire.v1 import ID_LIMIT, SendParams, error_bytes, read_send_params, read_task_params, result_bytes, send_result
from adapters.task import StreamResponse, Task
from gateway.admission import Admission
from gateway.asgi import BadHeader, Receive, Scope, Send, check_json, header, read_body, respond, stream
from gateway.broker import Broker, Sending
from gateway.errors import (
    InvalidRequest,
    PushNotSupported,
    Told,
    UnknownMethod,
    UnsupportedOperation,
    VersionNotSupported,
    a2a_details,
    http_headers,
    told,
)
from gateway.ledger import Trail
from gateway.tasks import fold, shown
from gateway.turns import Turned
from gateway.visits import Visit
from policies.authority import Caller
from policies.strict_json import parse
from registry.store import UnknownName

METHODS = frozenset({"SendMessage", "SendStreamingMessage", "GetTask", "CancelTask"})
NOT_OFFERED: dict[str, type[Exception]] = {  # A2A 1.0 s3.3.4: what no card of ours declares
    "CreateTaskPushNotificationConfig": PushNotSupported,
    "GetTaskPushNotificationConfig": PushNotSupported,
    "ListTaskPushNotificationConfigs": PushNotSupported,
    "DeleteTaskPushNotificationConfig": PushNotSupported,
    "GetExtendedAgentCard": UnsupportedOperation,
}
VERSION = re.compile(r"(\d{1,4}\.\d{1,4})(\.\d{1,6})?")
SUPPORTED = ("1.0",)
log = structlog.get_logger()


class JsonRpc:
    """The endpoint of every agent. Errors of the protocol ride on HTTP 200; only who may not enter gets 401, 403 or 404."""

    name = "a2a"

    def __init__(self, admission: Admission, broker: Broker, max_body: int) -> None:
        self._admission = admission
        self._broker = broker
        self._max_body = max_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send, agent: str, visit: Visit) -> None:
        """Answers one POST."""
        request_id: Any = None
        try:
            caller = await self._admission.admit(scope, f"/agents/{agent}")
            if scope["method"] != "POST":
                await respond(send, 405, b"{}", [(b"allow", b"POST")])
                return
            check_json(scope)
            document = parse(await read_body(scope, receive, self._max_body))
            request_id = _request_id(document)
            _check_version(scope)
            visit.method, params = _method(document), document.get("params")
            visit.attributes["gen_ai.agent.name"] = agent
            if visit.method == "SendStreamingMessage":
                asked = read_send_params(params)
                turned = await self._broker.start(caller, self._sending(scope, agent, asked, visit.trail))
                await stream(receive, send, self._frames(request_id, turned, asked.configuration.history_length))
            else:
                result = await self._answer(scope, caller, agent, (visit.method, params), visit.trail)
                await respond(send, 200, result_bytes(request_id, result))
        except Exception as error:  # noqa: BLE001 (the door: whatever happens, the caller gets an answer of the protocol, and the log the rest)
            visit.outcome = await self._refuse(send, request_id, agent, error)

    async def _answer(self, scope: Scope, caller: Caller, agent: str, request: tuple[str, Any], trail: Trail) -> Task | StreamResponse:
        method, params = request
        if method == "SendMessage":
            asked = read_send_params(params)
            sending = self._sending(scope, agent, asked, trail)
            act = self._broker.start if asked.configuration.return_immediately else self._broker.send
            turned = await act(caller, sending)
            return send_result(turned.reply or _task(turned, asked.configuration.history_length))
        asked_task = read_task_params(params)
        _check_tenant(asked_task.tenant, agent)
        if method == "GetTask":
            return _task(await self._broker.task(caller, agent, asked_task.id), asked_task.history_length)
        return _task(await self._broker.cancel(caller, agent, asked_task.id, trail), asked_task.history_length)

    def _sending(self, scope: Scope, agent: str, asked: SendParams, trail: Trail) -> Sending:
        _check_tenant(asked.tenant, agent)
        if asked.configuration.task_push_notification_config is not None:
            raise PushNotSupported
        modes = asked.configuration.accepted_output_modes
        return Sending(agent, asked.message, trail, accepted_output_modes=modes, idempotency_key=_idempotency_key(scope))

    async def _frames(self, request_id: Any, turned: Turned, history_length: int | None) -> AsyncGenerator[bytes, None]:
        """First the task as it stands, then each of its events as it is kept (A2A 1.0 s3.1.2)."""
        yield _frame(request_id, StreamResponse(task=_task(turned, history_length)))
        try:
            async for event in self._broker.follow(turned):
                response = shown(turned.row, event)
                if response is not None:
                    yield _frame(request_id, response)
        except Exception as error:
            log.exception("a2a_stream_failed", task_id=turned.row.id)
            said = told(error)
            yield b"data: %s\n\n" % error_bytes(request_id, said.row.code, said.detail, a2a_details(said))

    async def _refuse(self, send: Send, request_id: Any, agent: str, error: Exception) -> str:
        said = told(error)
        if said.row.status == 500:
            log.exception("a2a_door_failed", agent=agent)
        body = error_bytes(request_id, said.row.code, said.detail, a2a_details(said))
        await respond(send, _http_status(said), body, http_headers(said, self._admission, f"/agents/{agent}"))
        return said.row.reason


def _http_status(said: Told) -> int:
    """JSON-RPC errors ride on 200, except where HTTP itself must act."""
    row = said.row
    if said.scope:
        return 403
    acts = row.status in (401, 413, 421, 429, 500, 503) or row.reason in ("foreign-origin", "bad-header") or row.code == -32011
    return row.status if acts else 200


def _request_id(document: Any) -> str | int:
    """The id of a JSON-RPC 2.0 request. Raises InvalidRequest."""
    if not isinstance(document, dict) or document.get("jsonrpc") != "2.0":
        raise InvalidRequest("a JSON-RPC 2.0 request object is expected")
    request_id = document.get("id")
    if isinstance(request_id, bool) or not isinstance(request_id, str | int):
        raise InvalidRequest("id must be a string or an integer")
    return request_id


def _method(document: dict[str, Any]) -> str:
    """One of METHODS. Raises InvalidRequest, UnknownMethod, and what NOT_OFFERED says."""
    method = document.get("method")
    if not isinstance(method, str):
        raise InvalidRequest("method must be a string")
    if method not in METHODS:
        raise NOT_OFFERED.get(method, UnknownMethod)
    return method


def _check_version(scope: Scope) -> None:
    """A2A 1.0 s3.6: Major.Minor, in the header or the query. Nothing asked for would mean 0.3, whose methods have other names: those
    of 1.0 speak for themselves."""
    asked = header(scope, b"a2a-version")
    if asked is None and scope["query_string"]:
        asked = parse_qs(scope["query_string"].decode("ascii", "replace"), max_num_fields=50).get("A2A-Version", [""])[-1]
    if not asked or asked in SUPPORTED:
        return
    found = VERSION.fullmatch(asked)
    if found is None or found[1] not in SUPPORTED:
        raise VersionNotSupported(SUPPORTED)


def _check_tenant(tenant: str, agent: str) -> None:
    """A2A's `tenant` could only name the agent again: whoever means another one finds none. Our own tenants come from tokens alone."""
    if tenant and tenant != agent:
        raise UnknownName(tenant)


def _idempotency_key(scope: Scope) -> str | None:
    key = header(scope, b"idempotency-key")
    if key and (len(key) > ID_LIMIT or not key.isprintable()):
        raise BadHeader(f"idempotency-key is longer than {ID_LIMIT} characters, or has some that can't be seen")
    return key or None


def _task(turned: Turned, history_length: int | None) -> Task:
    return fold(turned.row, turned.events, history_length)


def _frame(request_id: Any, response: StreamResponse) -> bytes:
    return b"data: %s\n\n" % result_bytes(request_id, response)
