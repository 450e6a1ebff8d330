"""HTTP+SSE, the transport of 2024-11-05: a GET opens a stream, says first where to post to, and has the answers to all that is posted."""

import asyncio
from collections.abc import Iterable
from urllib.parse import parse_qs

import msgspec
import structlog

from gateway.background import let_go
from gateway.ingress.http.asgi import Header, Scope, list_header
from gateway.ingress.mcp_server.era_dispatch import Conversations
from gateway.ingress.mcp_server.legacy.streams import LOOK_SECONDS, Streams
from gateway.ingress.mcp_server.protocol.disconnect import ClientLeft
from gateway.ingress.mcp_server.protocol.errors import refusal_of
from gateway.ingress.mcp_server.protocol.message import Asked
from gateway.ingress.mcp_server.protocol.response import EVENTS, Outlet, event
from gateway.ingress.mcp_server.protocol.sessions import Session, UnknownSession
from gateway.storage.database import NotKept, NotRead

NAMED = b"sessionId="
ACCEPTED = b"Accepted"
QUEUE = "line"  # the stream that other processes leave answers on
encode = msgspec.json.Encoder().encode
log = structlog.get_logger()


class Line(Outlet):
    """Where what is posted to a session is answered: its stream, if need be by way of the database."""

    def __init__(self, session: Session, streams: Streams, stream: Outlet | None) -> None:
        self._session = session
        self._kept = streams
        self._stream_here = stream

    @property
    def streaming(self) -> bool:
        return True

    def say(self, framed: bytes) -> bool:
        if self._stream_here is not None:
            return self._stream_here.say(framed)
        return self._kept.leave(self._session, QUEUE, framed)

    async def finish(self, body: bytes, status: int = 200, headers: Iterable[Header] = (), event_id: str = "") -> None:
        if not self.say(event(body, event_id)):
            log.warning("mcp_answer_dropped", size=len(body))

    async def end(self) -> None:
        """Others are answered on it too."""


class HttpSse:
    """The streams of this process. Each has a session of its own, which ends with it."""

    def __init__(self, conversations: Conversations, streams: Streams, shared: bool) -> None:
        """`shared`: other processes may take what is posted."""
        self._conversations = conversations
        self._streams = streams
        self._shared = shared
        self._open: dict[str, Outlet] = {}

    async def open(self, asked: Asked, outlet: Outlet) -> None:
        """Until the client leaves. Raises UnknownName."""
        shown, session = await self._conversations.begin(asked)
        query = asked.scope.get("query_string", b"")
        address = asked.resource.encode() + b"?" + (query + b"&" if query else b"") + NAMED + shown.encode()
        outlet.say(b"event: endpoint\ndata: %s\n\n" % address)
        self._open[session.id] = outlet
        fetching = let_go(self._fetch(session, outlet), "mcp_answers_not_fetched") if self._shared else None
        try:
            await self._conversations.stream(asked, session, outlet, resumes=False)
        finally:
            del self._open[session.id]
            if fetching is not None:
                fetching.cancel()
            await asyncio.shield(self._conversations.close(session))

    async def take(self, asked: Asked, outlet: Outlet) -> None:
        """A request or a notification, in its session: taken at once, answered on its stream. Raises UnknownSession, and TooMuchKept."""
        session = asked.session
        assert session is not None
        stream = self._open.get(session.id)
        if stream is None and not self._shared:  # nobody would ever read the answer
            raise UnknownSession
        if stream is None:
            await self._streams.check_room(session, QUEUE)
        line = Line(session, self._streams, stream)
        if asked.method == "initialize":
            await self._conversations.initialize_in(asked, line)
            await outlet.finish(ACCEPTED, 202)
            return
        await outlet.finish(ACCEPTED, 202)
        try:
            if asked.id is None:
                await self._conversations.notified(asked)
            else:
                await self._conversations.older(asked, line)
        except ClientLeft:
            raise
        except Exception as error:
            refusal = refusal_of(error, legacy=True)
            if refusal.reason == "internal":
                log.exception("mcp_door_failed", resource=asked.resource)
            await line.finish(encode({"jsonrpc": "2.0", "id": asked.id, "error": refusal.error}))

    async def _fetch(self, session: Session, outlet: Outlet) -> None:
        """What other processes answer."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                for framed in await self._streams.fetched(session, QUEUE):
                    await outlet.say_in_turn(framed)
            except (NotRead, NotKept) as error:  # the next look may be luckier
                log.info("mcp_answers_wait", error=type(error).__name__)


def wants_line(scope: Scope) -> bool:
    """Whether a GET without a session is for a stream, which clients of this transport say."""
    return EVENTS in (list_header(scope, b"accept") or "")


def session_named(scope: Scope) -> str | None:
    """The session that the address of a POST names."""
    query = scope.get("query_string", b"")
    return parse_qs(query.decode("latin-1")).get("sessionId", [None])[-1] if NAMED in query else None
