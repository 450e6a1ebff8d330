"""Requests to servers of the `initialize` era, inside a warm session of whoever makes them, with a way back for what the server asks."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final

import msgspec
from msgspec import UNSET, Raw

from adapters.contract import Call, UpstreamFault
from adapters.mcp_client.exchange.http import Exchange, McpHttp, Posting, is_stream
from adapters.mcp_client.exchange.server_messages import Hearing
from adapters.mcp_client.legacy.get_streams import GetStreams
from adapters.mcp_client.legacy.sessions import URIS_MAX, Session, SessionKey, Sessions, ask
from adapters.mcp_client.wire.eras import legacy_body
from adapters.mcp_client.wire.messages import LEVELS, Envelope, McpRefused, McpRequest, RequestId, WireError, told_of
from adapters.mcp_client.wire.peer import Peer
from adapters.upstream.targets import EgressRefused

TELL_SECONDS: Final = 5.0
CLOSE_SECONDS: Final = 1.0
SUBSCRIBE: Final = "resources/subscribe"
UNSUBSCRIBE: Final = "resources/unsubscribe"
_canonical: Final = msgspec.json.Encoder(order="deterministic").encode


def session_key(call: Call, peer: Peer | None, front: str) -> SessionKey:
    capabilities = _canonical(peer.capabilities).decode() if peer is not None else "{}"
    return SessionKey(
        f"{call.target.tenant}|{call.target.name}", call.target.url, call.grant.delegation.principal.owner, front, capabilities
    )


class WayBack:
    """An Outlet: answers are POSTed into the session, and its listeners hear of changes."""

    def __init__(self, http: McpHttp, session: Session, credentials: Mapping[str, str]) -> None:
        self._http = http
        self._session = session
        self._credentials = credentials

    async def reply(self, body: bytes) -> None:
        headers = {**self._credentials, **self._session.headers}
        status = await self._http.tell(self._session.key.url, headers, body, TELL_SECONDS)
        if not 200 <= status < 300:
            raise UpstreamFault("The server does not take the answer that it asked for", f"status {status}")

    def expect(self, token: bytes) -> None:
        self._session.expected.append(token)

    async def changed(self, method: str, params: Raw) -> bool:
        self._session.changed(method)
        listeners = list(self._session.listeners)
        for listener in listeners:
            await listener.changed(method, params)
        return bool(listeners)


class LegacyRequests:
    def __init__(self, http: McpHttp, sessions: Sessions, streams: GetStreams, clock: Callable[[], float]) -> None:
        self._http = http
        self._sessions = sessions
        self._streams = streams
        self._clock = clock
        self._telling: set[asyncio.Task[None]] = set()

    async def once(self, call: Call, request: McpRequest, thought: float = 0.0) -> Exchange:
        """One request and its answer. A session that the server forgot is opened anew, once. Raises UpstreamFault and NotLegacy.

        `thought`: seconds that are not counted.
        """
        call = call if not thought else msgspec.structs.replace(call, deadline=call.deadline + thought)
        session = self._sessions.of(session_key(call, request.peer, request.session))
        session.calls += 1
        session.credentials = call.headers
        try:
            for _ in range(2):
                session_id = await self._sessions.ready(session, call.headers, call.deadline)
                exchange = await self._within(session, call, request)
                if not (session_id and _is_lost(exchange)):
                    return exchange
                self._sessions.lost(session, session_id)  # 2025-11-25: 404 means that the session is gone, so nothing was done
        finally:
            session.calls -= 1
            session.used = self._clock()
        raise UpstreamFault("The server forgets its sessions", "404 in a new session")

    async def close(self) -> None:
        if self._telling:
            await asyncio.wait(self._telling, timeout=CLOSE_SECONDS)

    async def _within(self, session: Session, call: Call, request: McpRequest) -> Exchange:
        number, url = session.number(), call.target.url
        headers = {**call.headers, **session.headers}
        body, left = legacy_body(request, number), call.deadline - self._clock()
        try:
            posting = Posting(url, headers, body, number, left, resumes=True)
            if request.peer is None:
                exchange = await (self._http.post(*posting[:5]) if session.plain else self._http.converse(posting, _Deaf(session)))
                session.plain = not is_stream(exchange.headers)
                return exchange
            return await self._talk(session, call, request, request.peer, posting)
        except (asyncio.CancelledError, UpstreamFault, McpRefused):
            self._cancel(session, call, number)
            raise

    async def _talk(self, session: Session, call: Call, request: McpRequest, peer: Peer, posting: Posting) -> Exchange:
        """The server may ask on the POST's own stream, or on the session's."""
        if session.key.capabilities != "{}":
            self._streams.open(session, call.headers)
        async with Hearing(request, peer, posting.expected, WayBack(self._http, session, call.headers)) as hearing:
            await self._set_level(session, call, hearing.level, shared=not request.session)
            session.talks.append(hearing)
            try:
                exchange = await self._http.converse(posting, hearing)
            finally:
                session.talks.remove(hearing)
        _remember(session, request, exchange)
        return exchange

    async def _set_level(self, session: Session, call: Call, level: str | None, shared: bool) -> None:
        """Asks for logs from `level` on; in a session of several clients for the most that any of them wanted."""
        if not level or level == session.level or "logging" not in session.offered:
            return
        if shared and session.level and LEVELS.index(session.level) < LEVELS.index(level):
            return
        before, session.level = session.level, level
        exchange = await ask(self._http, session, call.headers, ("logging/setLevel", {"level": level}), call.deadline - self._clock())
        if exchange.answer is None or exchange.answer.error is not UNSET:
            session.level = before

    def tell(self, session: Session, body: bytes) -> None:
        """A notification that nobody waits for."""
        self._spawn(self._tell(session.key.url, {**session.credentials, **session.headers}, body))

    def _cancel(self, session: Session, call: Call, number: RequestId) -> None:
        """2025-11-25: a closed connection is no cancellation, so the server is told."""
        body = told_of("notifications/cancelled", {"requestId": number, "reason": "the client no longer waits"})
        self._spawn(self._tell(call.target.url, {**call.headers, **session.headers}, body))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    async def _tell(self, url: str, headers: Mapping[str, str], body: bytes) -> None:
        try:
            await self._http.tell(url, headers, body, TELL_SECONDS)
        except (UpstreamFault, EgressRefused):
            return


class _Deaf:
    """For a client that wants nothing but the answer."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.limit: asyncio.Timeout | None = None

    async def heard(self, message: Envelope) -> None:
        self._session.changed(str(message.method))
        if message.id is not None and message.method != "ping":
            raise UpstreamFault("The server asks back, which this connection did not offer", str(message.method)[:100])


def _is_lost(exchange: Exchange) -> bool:
    """404 by the specification; some servers say 400 and that they do not know the session."""
    if exchange.status != 400:
        return exchange.status == 404
    error = exchange.answer.error if exchange.answer is not None else None
    return isinstance(error, WireError) and error.code in (-32000, -32600) and "session" in error.message.lower()


def _remember(session: Session, request: McpRequest, exchange: Exchange) -> None:
    """What a new session would have to be asked for again."""
    if exchange.answer is None or exchange.answer.result is UNSET:
        return
    if request.method == SUBSCRIBE and len(session.uris) < URIS_MAX:
        session.uris[request.name] = 1
    elif request.method == UNSUBSCRIBE:
        session.uris.pop(request.name, None)
