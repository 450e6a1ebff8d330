"""Streamable HTTP at /mcp and /mcp/{server}, for both eras at one URL: authenticates, reads and dispatches each request."""

import asyncio
from typing import Any

import msgspec
import structlog

from adapters.contract import UpstreamFault
from adapters.mcp_client.wire.messages import LEGACY
from gateway.ingress.http.asgi import BadHeader, Receive, Scope, Send, check_json_content_type, header, read_body, respond
from gateway.ingress.http.authentication import RequestAuthentication
from gateway.ingress.http.error_bodies import respond_problem, trace_headers
from gateway.ingress.http.errors import HttpMethodNotAllowed, InvalidRequest, error_headers
from gateway.ingress.http.request_trace import RequestTrace, read_deadline
from gateway.ingress.mcp_server.batches import answer_batch
from gateway.ingress.mcp_server.catalogue.visible import VisibleEntries
from gateway.ingress.mcp_server.era_dispatch import EraDispatcher
from gateway.ingress.mcp_server.http_sse import HttpSse, session_id_in_query, wants_event_stream
from gateway.ingress.mcp_server.protocol import modern
from gateway.ingress.mcp_server.protocol.disconnect import ClientDisconnected, DisconnectWatcher
from gateway.ingress.mcp_server.protocol.errors import JsonRpcError, json_rpc_error_of
from gateway.ingress.mcp_server.protocol.message import (
    BatchReceived,
    ClientMessage,
    ResponseReceived,
    check_mode,
    parse_envelope,
    wants_only_result,
)
from gateway.ingress.mcp_server.protocol.response import Backlog, HttpResponseWriter
from gateway.ingress.mcp_server.protocol.sessions import UnknownSession
from gateway.ingress.mcp_server.upstream_requests import UpstreamRequests
from gateway.storage.database import ReadFailed, WriteFailed
from gateway.storage.mailbox import MailboxFull
from gateway.telemetry.spans import TRACEPARENT
from policies.strict_json import LARGE, parse, run_off_loop

CANCELED = "canceled"
encode = msgspec.json.Encoder().encode
log = structlog.get_logger()

NAMED = {"tools/call": "gen_ai.tool.name", "prompts/get": "gen_ai.prompt.name"}  # the span attribute that params.name sets


class McpEndpoint:
    """The MCP endpoint of all servers together, and of each."""

    name = "mcp"

    def __init__(
        self,
        authentication: RequestAuthentication,
        upstream_requests: UpstreamRequests,
        dispatcher: EraDispatcher,
        http_sse: HttpSse,
        max_body: int,
        *,
        visible_entries: VisibleEntries,
    ) -> None:
        self._authentication = authentication
        self._visible_entries = visible_entries
        self._upstream_requests = upstream_requests
        self._dispatcher = dispatcher
        self._http_sse = http_sse
        self._max_body = max_body
        self._backlog = Backlog()
        self._disconnects = DisconnectWatcher()

    async def __call__(self, scope: Scope, receive: Receive, send: Send, server_path: str, request_trace: RequestTrace) -> None:
        """Answers one request. A modern tools/call that wants nothing but its result skips the dispatcher."""
        resource = f"/mcp/{server_path}" if server_path else "/mcp"
        message: ClientMessage | None = None
        response: HttpResponseWriter | None = None
        try:
            caller = await self._authentication.authenticate(scope, resource)
            request_trace.deadline = read_deadline(scope)
            check_mode(scope)
            if scope["method"] != "POST":
                message = ClientMessage(
                    caller, server_path, resource, None, scope["method"], None, b"", False, request_trace.trace_context, scope
                )
                await self._handle_get_or_delete(message, receive, send)
                return
            check_json_content_type(scope)
            raw = await read_body(scope, receive, self._max_body)
            document = parse(raw) if len(raw) <= LARGE else await run_off_loop(parse, raw)
            try:
                request_id, request_trace.method, params = parse_envelope(document)
            except ResponseReceived:
                request_trace.outcome = await self._accept_response(
                    ClientMessage(caller, server_path, resource, None, "", document, raw, False, request_trace.trace_context, scope), send
                )
                return
            except BatchReceived as batch:
                message = ClientMessage(caller, server_path, resource, None, "", None, raw, False, request_trace.trace_context, scope)
                response = HttpResponseWriter(scope, receive, send, self._backlog)
                await answer_batch(self._dispatcher, await self._with_session(message), batch.items, response)
                return
            _note(request_trace, request_id, params)
            is_modern = modern.is_modern(scope, params, LEGACY)
            message = ClientMessage(
                caller, server_path, resource, request_id, request_trace.method, params, raw, is_modern, request_trace.trace_context, scope
            )
            if is_modern and request_id is not None:
                modern.check_request(scope, request_trace.method, params)
                if request_trace.method == "tools/call" and wants_only_result(params):
                    await self._call_tool(message, receive, send)
                    return
            response = HttpResponseWriter(scope, receive, send, self._backlog)
            await self._dispatch(message, response)
        except asyncio.CancelledError:
            if not self._disconnects.has_disconnected(asyncio.current_task()):
                raise
            request_trace.outcome = CANCELED
        except ClientDisconnected:
            request_trace.outcome = CANCELED
        except Exception as error:  # noqa: BLE001 (request handler: every failure gets an answer of the protocol)
            request_trace.outcome = await self._respond_with_error(response, send, message, resource, error)

    async def _call_tool(self, message: ClientMessage, receive: Receive, send: Send) -> None:
        """Answers a tools/call whose client wants only the result. Cancels the call when the client disconnects."""
        task: asyncio.Task[Any] = asyncio.current_task()  # type: ignore[assignment]  # a request runs in a task
        self._disconnects.watch(task, receive)
        try:
            result = await self._upstream_requests.call_tool(message, None)
        finally:
            self._disconnects.unwatch(task)
        await respond(send, 200, b'{"jsonrpc":"2.0","id":%s,"result":%s}' % (encode(message.id), result))

    async def _accept_response(self, message: ClientMessage, send: Send) -> str:
        """Accepts a legacy client's answer to a server's request. Returns the outcome for the trace."""
        try:
            if modern.is_modern(message.scope, None, LEGACY):
                raise InvalidRequest("a request is expected")
            await self._dispatcher.accept_response(await self._with_session(message))
        except (InvalidRequest, BadHeader, UnknownSession, modern.BadEnvelope, MailboxFull, WriteFailed, ReadFailed) as error:
            refusal = json_rpc_error_of(error)
            await respond(send, refusal.status, _encode_error(None, refusal), trace_headers())
            return refusal.reason
        await respond(send, 202, b"")
        return "ok"

    async def _dispatch(self, message: ClientMessage, response: HttpResponseWriter) -> None:
        if message.is_modern and message.id is None:
            modern.check_notification(message.scope)
            await response.finish(b"", 202)
        elif message.is_modern:
            await self._dispatcher.handle_modern(message, response)
        elif session_id_in_query(message.scope) is not None:
            await self._http_sse.handle_post(await self._with_session(message), response)
        elif message.method == "initialize" and message.id is not None:
            await self._dispatcher.initialize(message, response)
        elif message.id is None:
            await self._dispatcher.handle_notification(await self._with_session(message))
            await response.finish(b"", 202)
        else:
            await self._dispatcher.handle_legacy(await self._with_session(message), response)

    async def _with_session(self, message: ClientMessage) -> ClientMessage:
        """Returns the message with the session it names. Raises UnknownSession. A message without a session is returned unchanged."""
        shown = header(message.scope, b"mcp-session-id")
        if shown is None:
            shown = session_id_in_query(message.scope)
        if shown is None:
            return message
        return msgspec.structs.replace(message, session=await self._dispatcher.sessions.find(shown, message.caller, message.resource))

    async def _handle_get_or_delete(self, message: ClientMessage, receive: Receive, send: Send) -> None:
        """Closes a session (DELETE) or serves its stream (GET). A GET without a session opens both, for clients of HTTP+SSE."""
        shown, verb = header(message.scope, b"mcp-session-id"), message.method
        opens = verb == "GET" and shown is None and wants_event_stream(message.scope)
        if modern.is_modern(message.scope, None, LEGACY) or not (opens or verb == "DELETE" or (verb == "GET" and shown is not None)):
            await respond_problem(send, HttpMethodNotAllowed(("POST", "GET", "DELETE")), [(b"allow", b"POST, GET, DELETE")])
            return
        if opens:
            await self._http_sse.open_stream(message, HttpResponseWriter(message.scope, receive, send, self._backlog))
            return
        session = await self._dispatcher.sessions.find(shown or "", message.caller, message.resource)
        if verb == "DELETE":
            await self._dispatcher.close_session(session)
            await respond(send, 204, b"")
        else:
            await self._dispatcher.serve_stream(message, session, HttpResponseWriter(message.scope, receive, send, self._backlog))

    async def _respond_with_error(
        self, response: HttpResponseWriter | None, send: Send, message: ClientMessage | None, resource: str, error: Exception
    ) -> str:
        """Sends the error, and returns its reason. The request is not read again, since reading it may be what failed."""
        legacy = message is not None and not message.is_modern and (message.id is not None or not message.method)
        if message is not None and isinstance(error, UpstreamFault):
            self._visible_entries.explain_to_operators(message.caller, error)
        refusal = json_rpc_error_of(error, legacy=legacy)
        if refusal.reason == "internal":
            log.exception("mcp_request_failed", resource=resource)
        body = _encode_error(message.id if message else None, refusal)
        headers = [*trace_headers(), *(error_headers(refusal.report, self._authentication, resource) if refusal.report is not None else ())]
        if response is None:
            await respond(send, refusal.status, body, headers)
        else:
            await response.finish(body, refusal.status, headers)
        return refusal.reason


def _note(request_trace: RequestTrace, request_id: Any, params: Any) -> None:
    """Sets the attributes of the request's span, and its parent from `_meta.traceparent`."""
    if not isinstance(params, dict):
        return
    meta, name = params.get("_meta"), params.get("name")
    if isinstance(meta, dict) and TRACEPARENT in meta:
        request_trace.join(meta[TRACEPARENT])
    if request_trace.tracer is None:
        return
    request_trace.attributes |= {"mcp.method.name": request_trace.method, "jsonrpc.request.id": str(request_id)}
    if request_trace.method in NAMED and isinstance(name, str):
        request_trace.attributes[NAMED[request_trace.method]] = request_trace.target = name


def _encode_error(request_id: Any, refusal: JsonRpcError) -> bytes:
    return encode({"jsonrpc": "2.0", "id": request_id, "error": refusal.error})
