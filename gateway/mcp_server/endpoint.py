"""Streamable HTTP at /mcp and /mcp/{server}: both eras on one URL; discover or initialize, tools/list, tools/call."""

from dataclasses import dataclass
from typing import Any

import msgspec
import structlog

from adapters.a2a_wire.v1 import ID_LIMIT
from adapters.mcp_wire import McpRequest
from adapters.task import Message, Part, Role, text_of
from adapters.version import VERSION
from gateway.admission import Admission
from gateway.asgi import Header, Receive, Scope, Send, check_json, header, read_body, respond
from gateway.broker import Broker, Sending, ServerCall
from gateway.errors import InvalidRequest, Told, UnknownMethod, UnknownTool, http_headers, mcp_data, told
from gateway.ledger import Refused, Trail
from gateway.mcp_server import legacy, modern
from gateway.mcp_server.mirrored import check as check_mirrored
from gateway.mcp_server.mirrored import headers_for
from gateway.mcp_server.tools import AgentTool, ServerTool, Tools
from gateway.tasks import fold
from gateway.turns import Turned
from gateway.visits import Visit
from policies.authority import Caller
from policies.grant import calling
from policies.ids import new_id
from policies.strict_json import parse

INFO = {"name": "interlock", "title": "Interlock gateway", "version": VERSION}
CAPABILITIES: dict[str, Any] = {"tools": {}}
NOT_OURS_TO_PASS_ON = frozenset(  # of `_meta`: the client's trace, which joins none of ours, and what looks like a credential
    {"traceparent", "tracestate", "baggage", "authorization", "proxy-authorization", "cookie", "x-api-key", "interlock-delegation"}
)
LIST_TTL_MS = 5_000
encode = msgspec.json.Encoder().encode
_raw = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Asked:
    """One JSON-RPC message from a client. `id` is None for a notification. `resource` is the path it came to."""

    caller: Caller
    server: str
    resource: str
    id: Any
    method: str
    params: Any
    raw: bytes
    modern: bool
    trail: Trail
    scope: Scope


class Endpoint:
    """The endpoint of all servers together, and of each."""

    name = "mcp"

    def __init__(self, admission: Admission, broker: Broker, tools: Tools, sessions: legacy.Sessions, max_body: int) -> None:
        self._admission = admission
        self._broker = broker
        self._tools = tools
        self._sessions = sessions
        self._max_body = max_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send, server: str, visit: Visit) -> None:
        """Answers one request."""
        resource = f"/mcp/{server}" if server else "/mcp"
        asked: Asked | None = None
        try:
            caller = await self._admission.admit(scope, resource)
            if scope["method"] != "POST":
                await self._without_body(scope, send, caller, resource)
                return
            check_json(scope)
            raw = await read_body(scope, receive, self._max_body)
            request_id, visit.method, params = _envelope(parse(raw))
            is_modern = modern.is_modern(scope, params, legacy.VERSIONS)
            asked = Asked(caller, server, resource, request_id, visit.method, params, raw, is_modern, visit.trail, scope)
            self._check(scope, asked)
            await self._answer(send, asked)
        except Exception as error:  # noqa: BLE001 (the door: whatever happens, the caller gets an answer of the protocol, and the log the rest)
            visit.outcome = await self._refuse(send, asked, resource, error)

    def _check(self, scope: Scope, asked: Asked) -> None:
        """What each era asks of a request's envelope. Raises BadEnvelope, UnknownSession."""
        if not asked.modern:
            if asked.method != "initialize":
                self._sessions.check(header(scope, b"mcp-session-id"), asked.caller, asked.resource)
        elif asked.id is not None:
            modern.check(scope, asked.method, asked.params)
        else:
            modern.check_notification(scope)

    async def _without_body(self, scope: Scope, send: Send, caller: Caller, resource: str) -> None:
        """DELETE ends a session; there is no stream to GET yet, and nothing else to do."""
        if scope["method"] == "DELETE":
            self._sessions.close(header(scope, b"mcp-session-id"), caller, resource)
            await respond(send, 204, b"")
        else:
            await respond(send, 405, b"{}", [(b"allow", b"POST, DELETE")])

    async def _answer(self, send: Send, asked: Asked) -> None:
        if asked.id is None:
            await respond(send, 202, b"")
            return
        headers: list[Header] = []
        if asked.method == "tools/call":
            result = await self._call(asked)
        elif asked.method == "tools/list":
            result = self._list(asked)
        elif asked.method == "server/discover" and asked.modern:
            self._check_server(asked)
            result = self._discover()
        elif asked.method == "initialize" and not asked.modern:
            self._check_server(asked)
            headers = [(b"mcp-session-id", self._sessions.open(asked.caller, asked.resource).encode())]
            result = self._initialize(asked)
        elif asked.method == "ping" and not asked.modern:
            result = b"{}"
        else:
            raise UnknownMethod
        await respond(send, 200, b'{"jsonrpc":"2.0","id":%s,"result":%s}' % (encode(asked.id), result), headers)

    def _check_server(self, asked: Asked) -> None:
        if asked.server:
            self._tools.check(asked.caller, asked.server)

    def _discover(self) -> bytes:
        versions = [modern.VERSION, *legacy.VERSIONS]
        return encode(
            {
                "resultType": "complete",
                "supportedVersions": versions,
                "capabilities": CAPABILITIES,
                "serverInfo": INFO,
                "ttlMs": LIST_TTL_MS,
                "cacheScope": "private",
                "_meta": {modern.META + "serverInfo": INFO},
            }
        )

    def _initialize(self, asked: Asked) -> bytes:
        version = legacy.negotiated(asked.params.get("protocolVersion") if isinstance(asked.params, dict) else None)
        return encode({"protocolVersion": version, "capabilities": CAPABILITIES, "serverInfo": INFO})

    def _list(self, asked: Asked) -> bytes:
        """All on one page, so no cursor is one of ours."""
        if isinstance(asked.params, dict) and asked.params.get("cursor") is not None:
            raise modern.BadEnvelope(modern.INVALID_PARAMS, "params.cursor is none of this server's")
        tools = self._tools.listed(asked.caller, asked.server)
        if not asked.modern:
            return encode({"tools": tools})
        return encode({"resultType": "complete", "tools": tools, "ttlMs": LIST_TTL_MS, "cacheScope": "private"})

    async def _call(self, asked: Asked) -> bytes:
        params = asked.params if isinstance(asked.params, dict) else {}
        name, arguments = params.get("name"), params.get("arguments", {})
        if not isinstance(name, str) or not isinstance(arguments, dict) or not isinstance(params.get("_meta", {}), dict):
            raise modern.BadEnvelope(modern.INVALID_PARAMS, "params.name must be a string, params.arguments and params._meta objects")
        target: AgentTool | ServerTool | None = None
        try:
            target = self._tools.resolve(asked.caller, asked.server, name)
            if isinstance(target, AgentTool):
                return await self._call_agent(asked, target, arguments)
            request = _request(asked, target, arguments)
            act = calling(target.server, target.tool)
            answer = await self._broker.reach(asked.caller, ServerCall(target.server, act, arguments, request, asked.trail))
        except (UnknownTool, Refused, modern.BadEnvelope) as error:
            self._check_known(asked, target)
            raise error
        return answer.result

    def _check_known(self, asked: Asked, target: AgentTool | ServerTool | None) -> None:
        """Raises UnknownName or UnknownTool where the caller may not know of what failed, whatever failed."""
        self._check_server(asked)
        if target is not None and not self._tools.sees(asked.caller, target):
            raise UnknownTool

    async def _call_agent(self, asked: Asked, target: AgentTool, arguments: dict[str, Any]) -> bytes:
        text, context = arguments.get("message"), arguments.get("context_id", "")
        if not isinstance(text, str) or not text or not isinstance(context, str) or arguments.keys() - {"message", "context_id"}:
            raise modern.BadEnvelope(
                modern.INVALID_PARAMS, "an agent takes message (text) and optionally context_id (text), and nothing else"
            )
        if len(context) > ID_LIMIT or not context.isprintable():
            raise modern.BadEnvelope(modern.INVALID_PARAMS, f"context_id is longer than {ID_LIMIT}, or has characters that can't be seen")
        message = Message(message_id=new_id("m"), role=Role.USER, parts=(Part(text=text),), context_id=context)
        turned = await self._broker.send(asked.caller, Sending(target.agent, message, asked.trail, skill=target.skill))
        return _agent_result(turned, asked.modern)

    async def _refuse(self, send: Send, asked: Asked | None, resource: str, error: Exception) -> str:
        request_id = asked.id if asked else None
        legacy_client = asked is not None and not asked.modern
        if isinstance(error, modern.BadEnvelope):
            await respond(send, 200 if legacy_client else 400, _error(request_id, error.code, str(error), error.data))
            return "bad-envelope"
        if isinstance(error, legacy.UnknownSession):
            await respond(send, 404, _error(request_id, -32600, "there is no such session; initialize again"))
            return "unknown-session"
        said = told(error)
        if said.row.status == 500:
            log.exception("mcp_door_failed", resource=resource)
        body = _error(request_id, said.row.code, said.detail, mcp_data(said))
        await respond(send, _http_status(said, legacy_client), body, http_headers(said, self._admission, resource))
        return said.row.reason


def _http_status(said: Told, legacy_client: bool) -> int:
    """What went wrong with a call rides on 200. To a client of the initialize era 404 would mean that its session is gone."""
    row = said.row
    if said.scope:
        return 403
    if row.reason == "denied" or row.status == 502 or (legacy_client and row.code in (-32601, -32602)):
        return 200
    return row.status


def _envelope(document: Any) -> tuple[Any, str, Any]:
    """(id or None, method, params). Raises InvalidRequest."""
    if not isinstance(document, dict) or document.get("jsonrpc") != "2.0" or not isinstance(document.get("method"), str):
        raise InvalidRequest("one JSON-RPC 2.0 request object is expected")
    request_id = document.get("id")
    if "id" in document and (isinstance(request_id, bool) or not isinstance(request_id, str | int)):
        raise InvalidRequest("id must be a string or an integer")
    return request_id, document["method"], document.get("params")


def _request(asked: Asked, target: ServerTool, arguments: dict[str, Any]) -> McpRequest:
    """The call under the tool's own name and with our trace context; all else as the client wrote it. Raises BadEnvelope."""
    members = _raw(asked.raw)
    params_given = _raw(members["params"])
    meta = _raw(params_given["_meta"]) if "_meta" in params_given else {}
    kept = {name: value for name, value in meta.items() if name.lower() not in NOT_OURS_TO_PASS_ON}
    traced = {**kept, **asked.trail.headers}
    params = encode({**params_given, "name": target.tool, "_meta": traced})
    raw = encode({**members, "params": msgspec.Raw(params)})
    if not target.marks:
        return McpRequest(asked.id, target.tool, raw, params, asked.modern)
    if asked.modern:
        check_mirrored(asked.scope, target.marks, arguments)
    return McpRequest(asked.id, target.tool, raw, params, asked.modern, headers=headers_for(target.marks, arguments))


def _agent_result(turned: Turned, is_modern: bool) -> bytes:
    """An agent's task as a tool result: its text, and the task for whoever wants more. A task that failed is an error result."""
    task = fold(turned.row, turned.events)
    status = task.status.message if isinstance(task.status.message, Message) else None
    said = [text_of(artifact.parts) for artifact in task.artifacts]
    if turned.reply is not None:
        said.append(text_of(turned.reply.parts))
    elif status is not None:
        said.append(text_of(status.parts))
    text = "\n".join(part for part in said if part)
    content = {"task_id": task.id, "context_id": task.context_id, "state": task.status.state.value, "text": text}
    failed = turned.row.ended and task.status.state.value != "TASK_STATE_COMPLETED"
    result = {"content": [{"type": "text", "text": text}], "structuredContent": content, "isError": failed}
    return encode({"resultType": "complete", **result} if is_modern else result)


def _error(request_id: Any, code: int, message: str, data: Any = None) -> bytes:
    error = {"code": code, "message": message} | ({"data": data} if data else {})
    return encode({"jsonrpc": "2.0", "id": request_id, "error": error})
