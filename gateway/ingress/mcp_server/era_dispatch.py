"""Requests that are more than a question and its answer: with things said and asked meanwhile, in the manner of either era."""

import asyncio
import hashlib
from collections.abc import Callable
from typing import Any, Protocol

import msgspec
import structlog
from msgspec import Struct

from adapters.mcp_client.wire.messages import INVALID_PARAMS, LEGACY, Said
from adapters.mcp_client.wire.peer import Peer
from gateway.background import let_go
from gateway.ingress.http.asgi import header
from gateway.ingress.http.errors import InvalidRequest
from gateway.ingress.mcp_server.elicitation.pending_calls import Parked, Running
from gateway.ingress.mcp_server.legacy.exchange import LETTER_SECONDS, Exchange, Line, take
from gateway.ingress.mcp_server.methods import Methods
from gateway.ingress.mcp_server.protocol.client_wishes import PROGRESS, Wanted, wanted
from gateway.ingress.mcp_server.protocol.disconnect import ClientLeft
from gateway.ingress.mcp_server.protocol.errors import refusal_of
from gateway.ingress.mcp_server.protocol.message import Asked
from gateway.ingress.mcp_server.protocol.modern import BadEnvelope
from gateway.ingress.mcp_server.protocol.request_state import Seal
from gateway.ingress.mcp_server.protocol.response import Outlet, takes_events
from gateway.ingress.mcp_server.protocol.sessions import Session, Sessions, holder, owner_of
from gateway.ingress.mcp_server.subscriptions.streams import Listeners
from gateway.ingress.mcp_server.upstream_requests import Relay
from policies.delegation.kills import Kills

ROUNDS = frozenset({"tools/call", "prompts/get", "resources/read"})  # what a modern server may answer with questions
PASSED_ON = frozenset({PROGRESS, "notifications/roots/list_changed"})  # what servers of this era hear from clients
LIVE_SECONDS = 0.5  # after which other processes are told of a request that is still under way
LIVE_LOOKS = 4
WORK_SECONDS = 3600.0
encode = msgspec.json.Encoder().encode
log = structlog.get_logger()
Key = tuple[str, type, Any]


class Parts(Struct, frozen=True):
    """What requests are served with."""

    relay: Relay
    methods: Methods
    seal: Seal
    parked: Parked
    listeners: Listeners
    line: Line


class Upstreams(Protocol):
    """adapters/tool_servers.py."""

    async def leave(self, owner: str, session: str) -> None: ...

    def tell(self, owner: str, session: str, said: Said) -> None: ...


class Conversations:
    """Those under way in this process, and their parts."""

    def __init__(self, sessions: Sessions, parts: Parts, changed: Callable[[], None], upstreams: Upstreams) -> None:
        """`changed` wakes the streams that are open."""
        self.sessions = sessions
        self._relay = parts.relay
        self._methods = parts.methods
        self._seal = parts.seal
        self._parked = parts.parked
        self._listeners = parts.listeners
        self._line = parts.line
        self._changed = changed
        self._upstreams = upstreams
        self._under_way: dict[Key, asyncio.Task[bytes]] = {}

    async def modern(self, asked: Asked, outlet: Outlet) -> None:
        """A request of 2026-07-28. The client cancels it by leaving."""
        if asked.method == "subscriptions/listen":
            _check_streams(asked)
            work = self._listeners.listen(asked, outlet)
        elif asked.method in ROUNDS:
            work = self._round(asked, outlet, wanted(asked.params, None))
        else:
            wanted(asked.params, None)
            await outlet.finish(_result(asked, await self._answer(asked, None)))
            return
        answer, left = asyncio.create_task(work), asyncio.create_task(outlet.left())
        try:
            await asyncio.wait([answer, left], return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                raise ClientLeft
        finally:
            left.cancel()
            answer.cancel()
            await asyncio.gather(answer, left, return_exceptions=True)
        await outlet.finish(_result(asked, answer.result()))

    async def initialize(self, asked: Asked, outlet: Outlet) -> None:
        """Opens a session."""
        self._methods.check_server(asked)
        params = asked.params if isinstance(asked.params, dict) else {}
        shown, session = await self.sessions.open(asked.caller, asked.resource, params)
        await outlet.finish(_result(asked, self._methods.initialized(asked, session)), headers=[(b"mcp-session-id", shown.encode())])

    async def begin(self, asked: Asked) -> tuple[str, Session]:
        """A session that `initialize` comes into later; first, what names it. Raises UnknownName."""
        self._methods.check_server(asked)
        return await self.sessions.open(asked.caller, asked.resource, {"protocolVersion": LEGACY[-1]})

    async def initialize_in(self, asked: Asked, outlet: Outlet) -> None:
        """`initialize` in such a session."""
        assert asked.session is not None
        session = await self.sessions.adopt(asked.session, asked.params if isinstance(asked.params, dict) else {})
        await outlet.finish(_result(asked, self._methods.initialized(asked, session)))

    async def older(self, asked: Asked, outlet: Outlet) -> None:
        """A request of the initialize era. It goes on when its client leaves, and ends when the client says so."""
        session = asked.session
        exchange = Exchange(self._line, session, outlet, wanted(asked.params, session.level if session else ""))
        work = asyncio.create_task(self._answer(asked, exchange))
        key = _key(session, asked.id)
        if key is not None:
            self._under_way[key] = work
        stopping = let_go(self._canceled_elsewhere(key, work), "mcp_cancellation_missed") if self._line.mailbox.shared and key else None
        try:
            await asyncio.wait([work])
            if work.cancelled():
                await exchange.abandon()
                raise ClientLeft
            await self._finish(asked, exchange, work)
        finally:
            exchange.stop()
            work.cancel()
            if stopping is not None:
                stopping.cancel()
            if key is not None and self._under_way.get(key) is work:
                del self._under_way[key]

    async def notified(self, asked: Asked) -> None:
        """A notification of the initialize era; those that mean nothing to us are taken all the same."""
        params = asked.params if isinstance(asked.params, dict) else {}
        if asked.method in PASSED_ON and asked.session is not None:
            token = encode(params.get("progressToken")) if asked.method == PROGRESS else b""
            said = Said(encode({"jsonrpc": "2.0", "method": asked.method, **({"params": params} if params else {})}), token)
            self._upstreams.tell(owner_of(asked.session), asked.session.id, said)
        request_id = params.get("requestId")
        if asked.method != "notifications/cancelled" or isinstance(request_id, bool) or not isinstance(request_id, str | int):
            return
        key = _key(asked.session, request_id)
        work = self._under_way.get(key) if key else None
        if work is not None:
            work.cancel()
        elif key is not None and self._line.mailbox.shared:
            await self._cancel_there(key)

    async def take(self, asked: Asked) -> None:
        """An answer to what a client was asked. Raises InvalidRequest where nobody can have asked."""
        if asked.session is None:
            raise InvalidRequest("an answer needs the session that it was asked in")
        await take(self._line, asked.session, asked.params.get("id"), asked.raw)

    async def close(self, session: Session) -> None:
        """Ends a session with all that goes on in it."""
        for key, work in list(self._under_way.items()):
            if key[0] == session.id:
                work.cancel()
        await self.sessions.close(session)
        await self._upstreams.leave(owner_of(session), session.id)
        self._changed()

    async def expel(self, kills: Kills) -> None:
        """Closes the streams and sessions of people and agents that were stopped; their calls are ended by the broker."""
        self._listeners.expel(kills.holder)
        for owner, session_id in await self.sessions.expel(kills.holder):
            await self._upstreams.leave(owner, session_id)

    async def stream(self, asked: Asked, session: Session, outlet: Outlet, resumes: bool = True) -> None:
        """GET: the session's own stream, or one that broke."""
        _check_streams(asked)
        last = header(asked.scope, b"last-event-id") if resumes else None
        if last:
            await self._listeners.resumed(asked, session, last, outlet)
        else:
            await self._listeners.general(asked, session, outlet)

    async def _answer(self, asked: Asked, peer: Peer | None) -> bytes:
        return await self._methods.of(asked)(asked, peer)

    async def _round(self, asked: Asked, outlet: Outlet, heard: Wanted) -> bytes:
        """One round of a request that may take several."""
        params, bound = asked.object(), self._relay.bound(asked)
        if "requestState" in params:
            state = self._seal.open(params["requestState"], bound)
            if state.parked:
                self._relay.check(asked)
                responses = params.get("inputResponses", {})
                if not isinstance(responses, dict):
                    raise BadEnvelope(INVALID_PARAMS, "params.inputResponses must be an object")
                return await self._parked.resume(state, responses, (outlet, heard), bound)
        running = Running(holder(asked.caller), asked.capabilities, heard, outlet)
        return await self._parked.begin(running, lambda peer: self._answer(asked, peer), bound)

    async def _finish(self, asked: Asked, exchange: Exchange, work: asyncio.Task[bytes]) -> None:
        error = work.exception()
        if error is None:
            await exchange.finish(_result(asked, work.result()))
        elif exchange.streaming and isinstance(error, Exception):
            refusal = refusal_of(error, legacy=True)
            if refusal.reason == "internal":
                log.error("mcp_door_failed", resource=asked.resource, exc_info=error)
            await exchange.finish(encode({"jsonrpc": "2.0", "id": asked.id, "error": refusal.error}))
        else:
            raise error

    async def _canceled_elsewhere(self, key: Key, work: asyncio.Task[bytes]) -> None:
        """Another process may be told; it is not looked for while most requests end anyway."""
        await asyncio.sleep(LIVE_SECONDS)
        mailbox, live = self._line.mailbox, f"live/{_name(key)}"
        try:
            await mailbox.send(live, b"{}", WORK_SECONDS)
            await mailbox.wait(f"cancel/{_name(key)}", WORK_SECONDS)
        except TimeoutError:
            return
        finally:
            mailbox.drop(live)
        work.cancel()

    async def _cancel_there(self, key: Key) -> None:
        """Tells the process that has the request, if one has: nothing is kept for requests that are not under way."""
        mailbox = self._line.mailbox
        for _ in range(LIVE_LOOKS):
            if await mailbox.has(f"live/{_name(key)}"):
                await mailbox.send(f"cancel/{_name(key)}", b"{}", LETTER_SECONDS)
                return
            await asyncio.sleep(LIVE_SECONDS / 2)  # it may have begun just now


def _check_streams(asked: Asked) -> None:
    if not takes_events(asked.scope):
        raise BadEnvelope(-32600, "Accept must name text/event-stream", status=406)


def _key(session: Session | None, request_id: Any) -> Key | None:
    return None if session is None else (session.id, type(request_id), request_id)


def _name(key: Key) -> str:
    return f"{key[0]}/{key[1].__name__}/{hashlib.sha256(str(key[2]).encode()).hexdigest()}"


def _result(asked: Asked, result: bytes) -> bytes:
    return b'{"jsonrpc":"2.0","id":%s,"result":%s}' % (encode(asked.id), result)
