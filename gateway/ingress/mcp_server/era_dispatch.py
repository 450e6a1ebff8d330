"""Dispatches requests that may send notifications and ask questions while they run, in the manner of either MCP era."""

import asyncio
import hashlib
from collections.abc import Callable
from typing import Any

import msgspec
import structlog
from msgspec import Struct

from adapters.mcp_client.wire.messages import INVALID_PARAMS, LEGACY, ClientNotification
from adapters.tool_servers import ToolServerClient
from gateway.ingress.http.asgi import header
from gateway.ingress.http.errors import InvalidRequest
from gateway.ingress.mcp_server.elicitation.pending_calls import PendingCall, PendingCalls
from gateway.ingress.mcp_server.legacy.exchange import MAIL_SECONDS, LegacyContext, LegacyExchange, accept_response
from gateway.ingress.mcp_server.legacy.long_requests import LongRequests
from gateway.ingress.mcp_server.legacy.requests_in_flight import LIVE_SECONDS, CancellableRequest
from gateway.ingress.mcp_server.methods import MethodTable
from gateway.ingress.mcp_server.protocol.client_wishes import PROGRESS, ClientWishes, parse_wishes
from gateway.ingress.mcp_server.protocol.disconnect import ClientDisconnected
from gateway.ingress.mcp_server.protocol.errors import json_rpc_error_of
from gateway.ingress.mcp_server.protocol.message import ClientMessage
from gateway.ingress.mcp_server.protocol.modern import BadEnvelope
from gateway.ingress.mcp_server.protocol.request_state import RequestStateCipher
from gateway.ingress.mcp_server.protocol.response import HttpResponseWriter, accepts_events
from gateway.ingress.mcp_server.protocol.sessions import McpSession, McpSessions, holder_of, owner_of
from gateway.ingress.mcp_server.subscriptions.streams import NotificationStreams
from gateway.ingress.mcp_server.upstream_requests import UpstreamRequests
from policies.delegation.kills import Kills

MULTI_ROUND_METHODS = frozenset({"tools/call", "prompts/get", "resources/read"})  # methods that may return an InputRequiredResult
FORWARDED_NOTIFICATIONS = frozenset({PROGRESS, "notifications/roots/list_changed"})  # notifications of clients that servers receive
LIVE_POLLS = 4
WORK_SECONDS = 3600.0
encode = msgspec.json.Encoder().encode
log = structlog.get_logger()
RequestKey = tuple[str, type, Any]


class DispatchParts(Struct, frozen=True):
    """The parts that handle requests."""

    upstream_requests: UpstreamRequests
    methods: MethodTable
    state_cipher: RequestStateCipher
    pending_calls: PendingCalls
    notification_streams: NotificationStreams
    legacy_context: LegacyContext


class EraDispatcher:
    """Handles requests, and knows those in flight in this process."""

    def __init__(
        self, sessions: McpSessions, parts: DispatchParts, on_change: Callable[[], None], session_upstreams: ToolServerClient
    ) -> None:
        """`on_change` wakes the open streams."""
        self.sessions = sessions
        self._upstream_requests = parts.upstream_requests
        self._methods = parts.methods
        self._state_cipher = parts.state_cipher
        self._pending_calls = parts.pending_calls
        self._notification_streams = parts.notification_streams
        self._legacy_context = parts.legacy_context
        self._on_change = on_change
        self._session_upstreams = session_upstreams
        self._in_flight: dict[RequestKey, CancellableRequest] = {}
        self._requests_to_stream = LongRequests(parts.legacy_context.stream_after_seconds)
        self._requests_to_announce = LongRequests(LIVE_SECONDS)
        self._is_shared = parts.legacy_context.mailbox.is_shared  # whether other processes may receive a cancellation

    async def handle_modern(self, message: ClientMessage, response: HttpResponseWriter) -> None:
        """Handles a request of 2026-07-28. The client cancels it by disconnecting."""
        if message.method == "subscriptions/listen":
            _check_accepts_events(message)
            work = self._notification_streams.listen(message, response)
        elif message.method in MULTI_ROUND_METHODS:
            work = self._run_round(message, response, parse_wishes(message.params, None))
        else:
            parse_wishes(message.params, None)
            await response.finish(_encode_result(message, await self._methods.method_for(message)(message, None)))
            return
        answer, left = asyncio.create_task(work), asyncio.create_task(response.wait_for_disconnect())
        try:
            await asyncio.wait([answer, left], return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                raise ClientDisconnected
        finally:
            left.cancel()
            answer.cancel()
            await asyncio.gather(answer, left, return_exceptions=True)
        await response.finish(_encode_result(message, answer.result()))

    async def initialize(self, message: ClientMessage, response: HttpResponseWriter) -> None:
        """Opens a session and answers `initialize`."""
        self._methods.check_server(message)
        params = message.params if isinstance(message.params, dict) else {}
        shown, session = await self.sessions.open(message.caller, message.resource, params)
        await response.finish(
            _encode_result(message, await self._methods.initialize_result(message, session)), headers=[(b"mcp-session-id", shown.encode())]
        )

    async def open_session(self, message: ClientMessage) -> tuple[str, McpSession]:
        """Opens a session before its `initialize`, and returns its id and the session. Raises UnknownName."""
        self._methods.check_server(message)
        return await self.sessions.open(message.caller, message.resource, {"protocolVersion": LEGACY[-1]})

    async def initialize_session(self, message: ClientMessage, response: HttpResponseWriter) -> None:
        """Answers `initialize` in a session that `open_session` opened."""
        assert message.session is not None
        session = await self.sessions.initialize(message.session, message.params if isinstance(message.params, dict) else {})
        await response.finish(_encode_result(message, await self._methods.initialize_result(message, session)))

    async def handle_legacy(self, message: ClientMessage, response: HttpResponseWriter) -> None:
        """Handles a request of the legacy era. It continues when its client disconnects, and ends when the client cancels it."""
        session = message.session
        wishes = parse_wishes(message.params, session.level if session else "")
        exchange = LegacyExchange(self._legacy_context, session, response, wishes, self._requests_to_stream)
        key, work = _request_key(session, message.id), CancellableRequest()
        if key is not None:
            self._in_flight[key] = work
            if self._is_shared:
                work.announce_if_long(self._requests_to_announce, lambda: self._cancel_when_told_remotely(key, work))
        try:
            try:
                result = await self._methods.method_for(message)(message, exchange)
            finally:
                work.stop_announcement()
                if key is not None and self._in_flight.get(key) is work:
                    del self._in_flight[key]  # from now on it can't be canceled
            await exchange.finish(_encode_result(message, result))
        except asyncio.CancelledError:
            if not work.take_cancellation():
                raise
            await exchange.abandon()
            raise ClientDisconnected from None
        except Exception as error:
            if not exchange.is_streaming:
                raise
            refusal = json_rpc_error_of(error, legacy=True)
            if refusal.reason == "internal":
                log.exception("mcp_request_failed", resource=message.resource)
            await exchange.finish(encode({"jsonrpc": "2.0", "id": message.id, "error": refusal.error}))
        finally:
            exchange.cancel_stream_start()

    async def handle_notification(self, message: ClientMessage) -> None:
        """Handles a notification of the legacy era: forwards it to servers, or cancels a request. Others are ignored."""
        params = message.params if isinstance(message.params, dict) else {}
        if message.method in FORWARDED_NOTIFICATIONS and message.session is not None:
            token = encode(params.get("progressToken")) if message.method == PROGRESS else b""
            notification = ClientNotification(
                encode({"jsonrpc": "2.0", "method": message.method, **({"params": params} if params else {})}), token
            )
            self._session_upstreams.notify(owner_of(message.session), message.session.id, notification)
        request_id = params.get("requestId")
        if message.method != "notifications/cancelled" or isinstance(request_id, bool) or not isinstance(request_id, str | int):
            return
        key = _request_key(message.session, request_id)
        work = self._in_flight.get(key) if key else None
        if work is not None:
            work.cancel()
        elif key is not None and self._is_shared:
            await self._cancel_remotely(key)

    async def accept_response(self, message: ClientMessage) -> None:
        """Passes on a client's answer to a server's request. Raises InvalidRequest without a session."""
        if message.session is None:
            raise InvalidRequest("a response needs the session of its request")
        await accept_response(self._legacy_context, message.session, message.params.get("id"), message.raw)

    async def close_session(self, session: McpSession) -> None:
        """Closes a session and cancels its requests in flight."""
        for key, work in list(self._in_flight.items()):
            if key[0] == session.id:
                work.cancel()
        await self.sessions.close(session)
        await self._session_upstreams.close_client_session(owner_of(session), session.id)
        self._on_change()

    async def close_killed(self, kills: Kills) -> None:
        """Closes the streams and sessions of killed people and agents. InFlight ends their calls."""
        self._notification_streams.close_killed(kills.is_owner_stopped)
        for owner, session_id in await self.sessions.close_killed(kills.is_owner_stopped):
            await self._session_upstreams.close_client_session(owner, session_id)

    async def serve_stream(
        self, message: ClientMessage, session: McpSession, response: HttpResponseWriter, may_resume: bool = True
    ) -> None:
        """Serves the session's GET stream, or resumes a stream after `Last-Event-ID`."""
        _check_accepts_events(message)
        last = header(message.scope, b"last-event-id") if may_resume else None
        if last:
            await self._notification_streams.serve_resumed_stream(message, session, last, response)
        else:
            await self._notification_streams.serve_get_stream(message, session, response)

    async def _run_round(self, message: ClientMessage, response: HttpResponseWriter, wishes: ClientWishes) -> bytes:
        """Runs one round of a request that may take several."""
        params, bound = message.params_object(), self._upstream_requests.states.context_of(message)
        if "requestState" in params:
            state = self._state_cipher.decrypt(params["requestState"], bound)
            if state.pending_call_id:
                self._upstream_requests.catalogue.check_still_allowed(message)
                responses = params.get("inputResponses", {})
                if not isinstance(responses, dict):
                    raise BadEnvelope(INVALID_PARAMS, "params.inputResponses must be an object")
                return await self._pending_calls.resume(state, responses, bound, response=response, wishes=wishes)
        running = PendingCall(holder_of(message.caller), message.capabilities, wishes, response)
        return await self._pending_calls.start(running, lambda peer: self._methods.method_for(message)(message, peer), bound)

    async def _cancel_when_told_remotely(self, key: RequestKey, work: CancellableRequest) -> None:
        """Cancels the request when another process receives its cancellation."""
        mailbox, live = self._legacy_context.mailbox, f"live/{_address_of(key)}"
        try:
            await mailbox.send(live, b"{}", WORK_SECONDS)
            await mailbox.wait_for(f"cancel/{_address_of(key)}", WORK_SECONDS)
        except TimeoutError:
            return
        finally:
            mailbox.delete(live)
        work.cancel()

    async def _cancel_remotely(self, key: RequestKey) -> None:
        """Sends the cancellation to the process that has the request. Does nothing for a request that is not in flight."""
        mailbox = self._legacy_context.mailbox
        for _ in range(LIVE_POLLS):
            if await mailbox.has_message(f"live/{_address_of(key)}"):
                await mailbox.send(f"cancel/{_address_of(key)}", b"{}", MAIL_SECONDS)
                return
            await asyncio.sleep(LIVE_SECONDS / 2)  # the request may have begun just now


def _check_accepts_events(message: ClientMessage) -> None:
    if not accepts_events(message.scope):
        raise BadEnvelope(-32600, "Accept must name text/event-stream", status=406)


def _request_key(session: McpSession | None, request_id: Any) -> RequestKey | None:
    return None if session is None else (session.id, type(request_id), request_id)


def _address_of(key: RequestKey) -> str:
    return f"{key[0]}/{key[1].__name__}/{hashlib.sha256(str(key[2]).encode()).hexdigest()}"


def _encode_result(message: ClientMessage, result: bytes) -> bytes:
    return b'{"jsonrpc":"2.0","id":%s,"result":%s}' % (encode(message.id), result)
