"""Requests to servers of the legacy era, in a warm session of their owner, with a channel for the server's questions."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final

import msgspec
from msgspec import UNSET, Raw

from adapters.contract import Call, UpstreamFault
from adapters.mcp_client.exchange.http import Exchange, McpHttp, PostRequest, is_stream
from adapters.mcp_client.exchange.server_messages import ServerMessages
from adapters.mcp_client.legacy.get_streams import GetStreams
from adapters.mcp_client.legacy.sessions import NO_CAPABILITIES, URIS_MAX, ServerSession, ServerSessions, SessionKey, request_in_session
from adapters.mcp_client.wire.eras import legacy_body
from adapters.mcp_client.wire.messages import LOG_LEVELS, Envelope, McpRefused, McpRequest, RequestId, WireError, notification_of
from adapters.mcp_client.wire.peer import McpPeer
from adapters.upstream.targets import EgressRefused

SEND_SECONDS: Final = 5.0
CLOSE_SECONDS: Final = 1.0
SUBSCRIBE: Final = "resources/subscribe"
UNSUBSCRIBE: Final = "resources/unsubscribe"
SUBSCRIPTION_METHODS: Final = frozenset({SUBSCRIBE, UNSUBSCRIBE})
_encode_canonical: Final = msgspec.json.Encoder(order="deterministic").encode


def session_key(call: Call, peer: McpPeer | None, client_session: str) -> SessionKey:
    capabilities = _encode_canonical(peer.capabilities).decode() if peer is not None and peer.capabilities else NO_CAPABILITIES
    return SessionKey(
        f"{call.target.tenant}|{call.target.name}", call.target.url, call.grant.delegation.principal.owner_key, client_session, capabilities
    )


class SessionReplyChannel:
    """A ReplyChannel: POSTs replies into the session, and passes changes to its listeners."""

    def __init__(self, http: McpHttp, session: ServerSession, credentials: Mapping[str, str]) -> None:
        self._http = http
        self._session = session
        self._credentials = credentials

    async def reply(self, body: bytes) -> None:
        headers = {**self._credentials, **self._session.headers}
        status = await self._http.notify(self._session.key.url, headers, body, SEND_SECONDS)
        if not 200 <= status < 300:
            raise UpstreamFault("The server did not accept the reply to its question", f"status {status}")

    def expect_progress(self, token: bytes) -> None:
        self._session.expected_tokens.append(token)

    async def publish_change(self, method: str, params: Raw) -> bool:
        self._session.report_change(method)
        listeners = list(self._session.listeners)
        for listener in listeners:
            await listener.forward_change(method, params)
        return bool(listeners)


class LegacyRequests:
    def __init__(self, http: McpHttp, sessions: ServerSessions, streams: GetStreams, clock: Callable[[], float]) -> None:
        self._http = http
        self._sessions = sessions
        self._streams = streams
        self._clock = clock
        self._background_sends: set[asyncio.Task[None]] = set()

    async def send(self, call: Call, request: McpRequest, paused_seconds: float = 0.0) -> Exchange:
        """Sends one request and returns its response. Opens a lost session again, once. Raises UpstreamFault and NotLegacy.

        `paused_seconds` extend the deadline.
        """
        call = call if not paused_seconds else msgspec.structs.replace(call, deadline=call.deadline + paused_seconds)
        session = self._sessions.session_for(session_key(call, request.peer, request.client_session))
        session.calls_in_flight += 1
        session.credentials = call.headers
        try:
            for _ in range(2):
                session_id = session.id if session.is_open else await self._sessions.ensure_open(session, call.headers, call.deadline)
                exchange = await self._send_in_session(session, call, request)
                if not (session_id and _is_session_lost(exchange)):
                    return exchange
                self._sessions.mark_lost(session, session_id)  # 2025-11-25: 404 means that the session has ended, so nothing was done
        finally:
            session.calls_in_flight -= 1
            session.last_used = self._clock()
        raise UpstreamFault("The server loses its sessions", "404 in a new session")

    async def close(self) -> None:
        if self._background_sends:
            await asyncio.wait(self._background_sends, timeout=CLOSE_SECONDS)

    async def _send_in_session(self, session: ServerSession, call: Call, request: McpRequest) -> Exchange:
        number, url = session.next_number(), call.target.url
        headers = {**call.headers, **session.headers}
        body, left = legacy_body(request, number), call.deadline - self._clock()
        try:
            if request.peer is None and session.answers_in_json:
                exchange = await self._http.post(url, headers, body, number, left)
            else:
                posting = PostRequest(url, headers, body, number, left, can_resume=True)
                if request.peer is not None:
                    return await self._send_and_receive(session, call, request, request.peer, posting)
                exchange = await self._http.post_and_receive(posting, _NullSink(session))
            session.answers_in_json = not is_stream(exchange.headers)
            return exchange
        except (asyncio.CancelledError, UpstreamFault, McpRefused):
            self._send_cancelled(session, call, number)
            raise

    async def _send_and_receive(
        self, session: ServerSession, call: Call, request: McpRequest, peer: McpPeer, post_request: PostRequest
    ) -> Exchange:
        """Sends a request whose server may ask on the POST's own stream, or on the session's."""
        if session.key.capabilities != NO_CAPABILITIES:
            self._streams.open(session, call.headers)
        with ServerMessages(request, peer, post_request.answer_id, SessionReplyChannel(self._http, session, call.headers)) as messages:
            if messages.log_level:
                await self._set_level(session, call, messages.log_level, shared=not request.client_session)
            session.receivers.append(messages)
            try:
                exchange = await self._http.post_and_receive(post_request, messages)
            finally:
                session.receivers.remove(messages)
        if request.method in SUBSCRIPTION_METHODS:
            _remember_subscription(session, request, exchange)
        return exchange

    async def _set_level(self, session: ServerSession, call: Call, level: str, shared: bool) -> None:
        """Requests logs from `level` on; in a shared session, of the lowest level that any client wanted."""
        if level == session.log_level or "logging" not in session.server_capabilities:
            return
        if shared and session.log_level and LOG_LEVELS.index(session.log_level) < LOG_LEVELS.index(level):
            return
        previous_level, session.log_level = session.log_level, level
        exchange = await request_in_session(
            self._http, session, call.headers, "logging/setLevel", {"level": level}, seconds=call.deadline - self._clock()
        )
        if exchange.answer is None or exchange.answer.error is not UNSET:
            session.log_level = previous_level

    def send_in_background(self, session: ServerSession, body: bytes) -> None:
        """Sends a notification without waiting."""
        self._run_in_background(self._send_if_possible(session.key.url, {**session.credentials, **session.headers}, body))

    def _send_cancelled(self, session: ServerSession, call: Call, number: RequestId) -> None:
        """Notifies the server of a cancellation, since a closed connection is none (2025-11-25)."""
        body = notification_of("notifications/cancelled", {"requestId": number, "reason": "the client no longer waits"})
        self._run_in_background(self._send_if_possible(call.target.url, {**call.headers, **session.headers}, body))

    def _run_in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._background_sends.add(task)
        task.add_done_callback(self._background_sends.discard)

    async def _send_if_possible(self, url: str, headers: Mapping[str, str], body: bytes) -> None:
        try:
            await self._http.notify(url, headers, body, SEND_SECONDS)
        except (UpstreamFault, EgressRefused):
            return


class _NullSink:
    """The sink of a client that only wants the response."""

    def __init__(self, session: ServerSession) -> None:
        self._session = session
        self.timeout: asyncio.Timeout | None = None

    async def receive(self, message: Envelope) -> None:
        self._session.report_change(str(message.method))
        if message.id is not None and message.method != "ping":
            raise UpstreamFault("The server sent a request, which this connection does not support", str(message.method)[:100])


def _is_session_lost(exchange: Exchange) -> bool:
    """Whether the server lost the session: 404 by the specification; some servers respond with 400 and an error."""
    if exchange.status != 400:
        return exchange.status == 404
    error = exchange.answer.error if exchange.answer is not None else None
    return isinstance(error, WireError) and error.code in (-32000, -32600) and "session" in error.message.lower()


def _remember_subscription(session: ServerSession, request: McpRequest, exchange: Exchange) -> None:
    """Notes a subscription for the case that the session has to be opened again."""
    if exchange.answer is None or exchange.answer.result is UNSET:
        return
    if request.method == SUBSCRIBE and len(session.uris) < URIS_MAX:
        session.uris[request.name] = 1
    elif request.method == UNSUBSCRIBE:
        session.uris.pop(request.name, None)
