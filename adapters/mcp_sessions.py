"""Warm sessions with servers of the `initialize` era: one per server and owner, re-opened when lost, closed when idle."""

import asyncio
import itertools
import re
from collections import deque
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

import msgspec

from adapters.contract import UpstreamFault
from adapters.mcp_http import LATE, Exchange, McpHttp
from adapters.mcp_wire import ACCEPT, CLIENT_INFO, LEGACY, UNSUPPORTED_VERSION, BadAnswer, encode, envelope_of

SESSIONS_MAX: Final = 1000
IDLE_SECONDS: Final = 1800.0
CLOSE_SECONDS: Final = 5.0
_SESSION_ID: Final = re.compile(r"[!-~]{1,1024}")
_INITIALIZED: Final = encode({"jsonrpc": "2.0", "method": "notifications/initialized"})


class NotLegacy(Exception):
    """The server does not know `initialize`: it may have changed its era."""


class _Initialized(msgspec.Struct, frozen=True, rename="camel"):
    protocol_version: str


_initialized: Final = msgspec.json.Decoder(_Initialized).decode


class SessionKey(NamedTuple):
    """Whose session it is and with whom; nobody else ever gets it. `owner` is tenant|issuer|subject."""

    server: str
    url: str
    owner: str


class Session:
    """An open session. `headers` are those of every request in it, `number()` gives its next request id."""

    __slots__ = ("calls", "headers", "id", "key", "lock", "number", "opened", "used")

    def __init__(self, key: SessionKey) -> None:
        self.key = key
        self.lock = asyncio.Lock()
        self.number = itertools.count(1).__next__
        self.calls = 0  # in flight
        self.used = 0.0
        self.opened = False
        self.id = ""  # empty: the server keeps no sessions
        self.headers: Mapping[str, str] = ACCEPT


async def open_session(http: McpHttp, session: Session, credentials: Mapping[str, str], seconds: float) -> None:
    """Does `initialize` and `notifications/initialized`. Raises UpstreamFault and NotLegacy."""
    url, number = session.key.url, session.number()
    params = {"protocolVersion": LEGACY[0], "capabilities": {}, "clientInfo": CLIENT_INFO}
    body = envelope_of(number, "initialize", params)
    exchange = await http.post(url, {**credentials, **ACCEPT}, body, number, seconds)
    version, session_id = _accepted(exchange)
    session.id = session_id
    session.headers = {**ACCEPT, "mcp-protocol-version": version, **({"mcp-session-id": session_id} if session_id else {})}
    status = await http.tell(url, {**credentials, **session.headers}, _INITIALIZED, seconds)
    if not 200 <= status < 300:
        raise UpstreamFault("The server does not open a session", f"initialized was answered with {status}")
    session.opened = True


def _accepted(exchange: Exchange) -> tuple[str, str]:
    """Protocol version and session id (may be empty) of a good answer to `initialize`."""
    answer = exchange.answer
    if answer is not None and isinstance(answer.result, msgspec.Raw) and exchange.status == 200:
        try:
            version = _initialized(answer.result).protocol_version
        except msgspec.MsgspecError as error:
            raise BadAnswer("The server's answer is not JSON-RPC", str(error)[:200]) from None
        if version not in LEGACY:
            raise UpstreamFault("The server speaks no version of MCP that we know", version[:40])
        session_id = exchange.headers.get("mcp-session-id", "")
        if session_id and not _SESSION_ID.fullmatch(session_id):
            raise UpstreamFault("The server's session id is not valid")
        return version, session_id
    code = answer.error.code if answer is not None and isinstance(answer.error, msgspec.Struct) else 0
    if exchange.status in (401, 403):
        raise UpstreamFault("The server refuses the credentials it was shown", f"status {exchange.status}")
    if code in (UNSUPPORTED_VERSION, -32601) or (400 <= exchange.status < 500 and exchange.status != 429):
        raise NotLegacy(f"status {exchange.status}, code {code}")
    raise UpstreamFault("The server does not open a session", f"status {exchange.status}, code {code}")


async def close_session(http: McpHttp, session: Session) -> None:
    """Tells the server, which may not listen: credentials are not kept, so a server that asks for some lets it expire."""
    if session.opened and session.id:
        session.opened = False
        try:
            await http.delete(session.key.url, session.headers, CLOSE_SECONDS)
        except UpstreamFault:
            return


class Sessions:
    """At most `size` sessions. `clock` counts seconds; `sweep` is to be called now and then."""

    def __init__(self, http: McpHttp, clock: Callable[[], float], size: int = SESSIONS_MAX, idle: float = IDLE_SECONDS) -> None:
        self._http = http
        self._clock = clock
        self._size = size
        self._idle = idle
        self._sessions: dict[SessionKey, Session] = {}  # the least recently used first
        self._retired: deque[Session] = deque(maxlen=size)

    def __len__(self) -> int:
        return len(self._sessions)

    def of(self, key: SessionKey) -> Session:
        """The owner's session with this server, perhaps not open yet. Raises UpstreamFault when all places are busy."""
        session = self._sessions.pop(key, None)
        if session is None:
            if len(self._sessions) >= self._size:
                self._retire_one()
            session = Session(key)
        self._sessions[key] = session
        session.used = self._clock()
        return session

    async def ready(self, session: Session, credentials: Mapping[str, str], deadline: float) -> str:
        """Opens the session where it is not; concurrent callers wait for one opening. Gives its id."""
        if session.opened:
            return session.id
        try:
            async with asyncio.timeout(deadline - self._clock()), session.lock:
                if not session.opened:
                    await open_session(self._http, session, credentials, deadline - self._clock())
        except TimeoutError as error:
            raise UpstreamFault(LATE, "waiting for a session") from error
        return session.id

    def lost(self, session: Session, session_id: str) -> None:
        """The server forgot `session_id`; whoever comes first marks it, later callers see the new one."""
        if session.id == session_id:
            session.opened = False

    def _retire_one(self) -> None:
        for key, session in self._sessions.items():
            if not session.calls:
                del self._sessions[key]
                self._retired.append(session)
                return
        raise UpstreamFault("Too many sessions with servers are busy", f"{self._size} sessions")

    async def sweep(self, everything: bool = False) -> None:
        """Closes what was idle for too long or had to make room; at shutdown everything."""
        before = self._clock() - self._idle
        idle = [s for s in self._sessions.values() if everything or (not s.calls and s.used <= before)]
        for session in idle:
            del self._sessions[session.key]
        closing = [*idle, *self._retired]
        self._retired.clear()
        await asyncio.gather(*(close_session(self._http, session) for session in closing))
