"""HTTP+SSE, the transport of 2024-11-05: a GET stream that first names the URL for POSTs and then has all answers."""

import asyncio
from collections.abc import Iterable
from urllib.parse import parse_qs

import msgspec
import structlog

from gateway.concurrency.background import run_in_background
from gateway.ingress.http.asgi import Header, Scope, list_header
from gateway.ingress.http.error_bodies import trace_headers
from gateway.ingress.mcp_server.era_dispatch import EraDispatcher
from gateway.ingress.mcp_server.legacy.streams import POLL_SECONDS, Streams
from gateway.ingress.mcp_server.protocol.disconnect import ClientDisconnected
from gateway.ingress.mcp_server.protocol.errors import json_rpc_error_of
from gateway.ingress.mcp_server.protocol.message import ClientMessage
from gateway.ingress.mcp_server.protocol.response import EVENT_STREAM, HttpResponseWriter, frame_event
from gateway.ingress.mcp_server.protocol.sessions import McpSession, UnknownSession
from gateway.storage.database import ReadFailed, WriteFailed

SESSION_QUERY = b"sessionId="
ACCEPTED = b"Accepted"
REMOTE_ANSWERS = "line"  # the queue of answers from other processes
encode = msgspec.json.Encoder().encode
log = structlog.get_logger()


class SessionStreamResponse(HttpResponseWriter):
    """Sends the answers to a session's POSTs on its stream, through the database when another process has the stream."""

    def __init__(self, session: McpSession, streams: Streams, local_stream: HttpResponseWriter | None) -> None:
        self._session = session
        self._streams = streams
        self._local_stream = local_stream

    @property
    def is_streaming(self) -> bool:
        return True

    def send_event(self, event_bytes: bytes) -> bool:
        if self._local_stream is not None:
            return self._local_stream.send_event(event_bytes)
        return self._streams.enqueue(self._session, REMOTE_ANSWERS, event_bytes)

    async def finish(self, body: bytes, status: int = 200, headers: Iterable[Header] = (), event_id: str = "") -> None:
        if not self.send_event(frame_event(body, event_id)):
            log.warning("mcp_answer_dropped", size=len(body))

    async def end(self) -> None:
        """Does nothing, since the stream carries the answers of other requests too."""


class HttpSse:
    """The streams of this process. Each has its own session, which ends with it."""

    def __init__(self, dispatcher: EraDispatcher, streams: Streams, is_shared: bool) -> None:
        """`is_shared`: other processes may receive POSTs of a session."""
        self._dispatcher = dispatcher
        self._streams = streams
        self._is_shared = is_shared
        self._open_streams: dict[str, HttpResponseWriter] = {}

    async def open_stream(self, message: ClientMessage, response: HttpResponseWriter) -> None:
        """Serves a stream until its client disconnects. Raises UnknownName."""
        shown, session = await self._dispatcher.open_session(message)
        query = message.scope.get("query_string", b"")
        address = message.resource.encode() + b"?" + (query + b"&" if query else b"") + SESSION_QUERY + shown.encode()
        response.send_event(b"event: endpoint\ndata: %s\n\n" % address)
        self._open_streams[session.id] = response
        fetching = (
            run_in_background(self._forward_remote_answers(session, response), "mcp_answers_not_fetched") if self._is_shared else None
        )
        try:
            await self._dispatcher.serve_stream(message, session, response, may_resume=False)
        finally:
            del self._open_streams[session.id]
            if fetching is not None:
                fetching.cancel()
            await asyncio.shield(self._dispatcher.close_session(session))

    async def handle_post(self, message: ClientMessage, response: HttpResponseWriter) -> None:
        """Accepts a request or notification of a session, and answers it on the session's stream. Raises UnknownSession and MailboxFull."""
        session = message.session
        assert session is not None
        stream = self._open_streams.get(session.id)
        if stream is None and not self._is_shared:  # no process has the stream
            raise UnknownSession
        if stream is None:
            await self._streams.check_queue_limit(session, REMOTE_ANSWERS)
        line = SessionStreamResponse(session, self._streams, stream)
        if message.method == "initialize":
            await self._dispatcher.initialize_session(message, line)
            await response.finish(ACCEPTED, 202)
            return
        await response.finish(ACCEPTED, 202, trace_headers())  # an error comes on the stream, which has the trace of its own request
        try:
            if message.id is None:
                await self._dispatcher.handle_notification(message)
            else:
                await self._dispatcher.handle_legacy(message, line)
        except ClientDisconnected:
            raise
        except Exception as error:
            refusal = json_rpc_error_of(error, legacy=True)
            if refusal.reason == "internal":
                log.exception("mcp_request_failed", resource=message.resource)
            await line.finish(encode({"jsonrpc": "2.0", "id": message.id, "error": refusal.error}))

    async def _forward_remote_answers(self, session: McpSession, response: HttpResponseWriter) -> None:
        """Sends the answers of other processes on the stream."""
        while True:
            await asyncio.sleep(POLL_SECONDS)
            try:
                for framed in await self._streams.take_queued(session, REMOTE_ANSWERS):
                    await response.say_in_turn(framed)
            except (ReadFailed, WriteFailed) as error:  # the next poll tries again
                log.info("mcp_answers_delayed", error=type(error).__name__)


def wants_event_stream(scope: Scope) -> bool:
    """Returns whether a GET without a session accepts an event stream, as clients of this transport do."""
    return EVENT_STREAM in (list_header(scope, b"accept") or "")


def session_id_in_query(scope: Scope) -> str | None:
    """Returns the session id in the query of a POST, or None."""
    query = scope.get("query_string", b"")
    return parse_qs(query.decode("latin-1")).get("sessionId", [None])[-1] if SESSION_QUERY in query else None
