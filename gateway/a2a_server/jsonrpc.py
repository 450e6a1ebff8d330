"""A2A 1.0 over JSON-RPC at /agents/{name}: SendMessage, SendStreamingMessage, GetTask, CancelTask."""

import re
from collections.abc import AsyncIterator
from typing import Any

import structlog

from adapters.a2a_wire.v1 import SendParams, error_bytes, read_send_params, read_task_params, result_bytes, send_result
from adapters.task import StreamResponse, Task
from gateway.admission import Admission
from gateway.asgi import Receive, Scope, Send, header, read_body, respond, stream
from gateway.broker import Broker, Sending
from gateway.errors import InvalidRequest, Told, UnknownMethod, VersionNotSupported, a2a_details, told
from gateway.ledger import Trail
from gateway.tasks import fold, shown
from gateway.turns import Turned
from gateway.visits import Visit
from policies.authority import Caller
from policies.strict_json import parse

METHODS = frozenset({"SendMessage", "SendStreamingMessage", "GetTask", "CancelTask"})
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
            request_id, method, params = envelope(parse(await read_body(scope, receive, self._max_body)))
            visit.method = method
            visit.attributes["gen_ai.agent.name"] = agent
            _check_version(header(scope, b"a2a-version"))
            if method == "SendStreamingMessage":
                await self._stream(send, request_id, caller, self._sending(scope, agent, read_send_params(params), visit.trail))
            else:
                result = await self._answer(scope, caller, agent, (method, params), visit.trail)
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
        if method == "GetTask":
            return _task(await self._broker.task(caller, agent, asked_task.id), asked_task.history_length)
        return _task(await self._broker.cancel(caller, agent, asked_task.id, trail), asked_task.history_length)

    def _sending(self, scope: Scope, agent: str, asked: SendParams, trail: Trail) -> Sending:
        modes = asked.configuration.accepted_output_modes
        return Sending(agent, asked.message, trail, accepted_output_modes=modes, idempotency_key=header(scope, b"idempotency-key"))

    async def _stream(self, send: Send, request_id: Any, caller: Caller, sending: Sending) -> None:
        turned = await self._broker.start(caller, sending)
        await stream(send, self._frames(request_id, turned))

    async def _frames(self, request_id: Any, turned: Turned) -> AsyncIterator[bytes]:
        """First the task as it stands, then each of its events as it is kept (A2A 1.0 s3.1.2)."""
        yield _frame(request_id, StreamResponse(task=_task(turned, None)))
        async for event in self._broker.follow(turned):
            response = shown(turned.row, event)
            if response is not None:
                yield _frame(request_id, response)

    async def _refuse(self, send: Send, request_id: Any, agent: str, error: Exception) -> str:
        said = told(error)
        if said.row.status == 500:
            log.exception("a2a_door_failed", agent=agent)
        code, message = said.row.code, said.detail
        body = error_bytes(request_id, code, message, a2a_details(said))
        await respond(send, *_http(self._admission, said, f"/agents/{agent}", body))
        return said.row.reason


def _http(admission: Admission, said: Told, resource: str, body: bytes) -> tuple[int, bytes, list[tuple[bytes, bytes]]]:
    """The HTTP side of an error: JSON-RPC errors ride on 200, except where HTTP itself must act."""
    if said.row.status == 401:
        return 401, body, [(b"www-authenticate", admission.challenge(resource, "invalid_token").encode())]
    if said.scope:
        return 403, body, [(b"www-authenticate", admission.challenge(resource, "insufficient_scope", said.scope).encode())]
    if said.row.status in (413, 421, 429, 500, 503) or said.row.reason in ("foreign-origin", "bad-header"):
        return said.row.status, body, [(b"retry-after", str(said.retry_after).encode())] if said.retry_after else []
    if said.row.code == -32011:
        return 404, body, []
    return 200, body, []


def envelope(document: Any) -> tuple[Any, str, Any]:
    """(id, method, params) of a JSON-RPC 2.0 request. Raises InvalidRequest, UnknownMethod."""
    if not isinstance(document, dict) or document.get("jsonrpc") != "2.0":
        raise InvalidRequest("a JSON-RPC 2.0 request object is expected")
    request_id, method = document.get("id"), document.get("method")
    if isinstance(request_id, bool) or not isinstance(request_id, str | int) or "id" not in document:
        raise InvalidRequest("id must be a string or an integer")
    if not isinstance(method, str):
        raise InvalidRequest("method must be a string")
    if method not in METHODS:
        raise UnknownMethod
    return request_id, method, document.get("params")


def _check_version(asked: str | None) -> None:
    """A2A 1.0 s3.6: Major.Minor. Nothing asked for would mean 0.3, whose methods have other names: those of 1.0 speak for themselves."""
    if not asked:
        return
    found = VERSION.fullmatch(asked)
    if found is None or found[1] not in SUPPORTED:
        raise VersionNotSupported(SUPPORTED)


def _task(turned: Turned, history_length: int | None) -> Task:
    return fold(turned.row, turned.events, history_length)


def _frame(request_id: Any, response: StreamResponse) -> bytes:
    return b"data: %s\n\n" % result_bytes(request_id, response)
