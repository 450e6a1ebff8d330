"""Warm sessions with servers of the `initialize` era: one per server and owner, re-opened when lost, closed when idle."""

import asyncio
import itertools
import re
from collections import Counter, deque
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple, Protocol

import msgspec
from msgspec import Raw

from adapters.contract import Challenged, Failure, NotSent, UpstreamFault
from adapters.mcp_client.exchange.http import LATE, Exchange, McpHttp
from adapters.mcp_client.session_room import ANYBODY, retiring
from adapters.mcp_client.wire.messages import ACCEPT, CLIENT_INFO, LEGACY, UNSUPPORTED_VERSION, BadAnswer, Envelope, envelope_of, told_of
from adapters.upstream.retry_after import with_retry_after

SESSIONS_MAX: Final = 1000
IDLE_SECONDS: Final = 1800.0
CLOSE_SECONDS: Final = 5.0
_SESSION_ID: Final = re.compile(r"[!-~]{1,1024}")
URIS_MAX: Final = 256  # of one session
EXPECTED_MAX: Final = 64  # progress tokens
_INITIALIZED: Final = told_of("notifications/initialized")


LISTS_CHANGED: Final = frozenset(f"notifications/{kind}/list_changed" for kind in ("tools", "prompts", "resources"))


class NotLegacy(Exception):
    """The server does not know `initialize`: it may have changed its era."""


class Initialized(msgspec.Struct, frozen=True, rename="camel"):
    """What a server says of itself when a session is opened."""

    protocol_version: str
    capabilities: dict[str, Any] = {}
    instructions: str | None = None


_initialized: Final = msgspec.json.Decoder(Initialized).decode


class SessionKey(NamedTuple):
    """Whose session it is and with whom; nobody else ever gets it. `owner` is tenant|issuer|subject.

    `front` is the client's own session, or empty for what a person's stateless requests share. `capabilities` are the client's,
    in canonical JSON: what it declared is declared to the server, and nothing else.
    """

    server: str
    url: str
    owner: str
    front: str = ""
    capabilities: str = "{}"


class Hears(Protocol):
    """adapters/mcp_client/exchange/server_messages.py."""

    async def heard(self, message: Envelope) -> None: ...


class Listens(Protocol):
    """adapters/mcp_client/listening.py."""

    async def changed(self, method: str, params: Raw) -> None: ...

    async def heard(self, message: Envelope) -> None:
        """What comes outside of any request."""
        ...


class Session:
    """An open session. `headers` are those of every request in it, `number()` gives its next request id.

    `level` and `uris` (how many want each) are what the server was asked for, and is asked again in a new session. `talks` are the calls
    under way whose clients can be asked, and `listeners` those who hear of changes, the latest last. `expected` are the progress tokens, as
    JSON, of what the server asked.
    """

    __slots__ = (
        "calls",
        "credentials",
        "expected",
        "headers",
        "hint",
        "id",
        "instructions",
        "key",
        "level",
        "listeners",
        "lock",
        "number",
        "offered",
        "on_close",
        "opened",
        "plain",
        "talks",
        "uris",
        "used",
    )

    def __init__(self, key: SessionKey) -> None:
        self.key = key
        self.lock = asyncio.Lock()
        self.number = itertools.count(1).__next__
        self.calls = 0  # in flight
        self.used = 0.0
        self.opened = False
        self.plain = False  # the last answer in it was no stream
        self.id = ""  # empty: the server keeps no sessions
        self.headers: Mapping[str, str] = ACCEPT
        self.offered: Mapping[str, Any] = {}  # the server's capabilities
        self.instructions = ""
        self.level = ""
        self.uris: Counter[str] = Counter()
        self.listeners: list[Listens] = []
        self.talks: list[Hears] = []
        self.on_close: Callable[[], None] | None = None
        self.credentials: Mapping[str, str] = {}  # of the last request in it
        self.expected: deque[bytes] = deque(maxlen=EXPECTED_MAX)
        self.hint: Callable[[str], None] | None = None  # told the server (`key.server`) whenever it says that something changed

    def changed(self, method: str) -> None:
        if self.hint is not None and method in LISTS_CHANGED:
            self.hint(self.key.server)


async def open_session(http: McpHttp, session: Session, credentials: Mapping[str, str], seconds: float) -> None:
    """Does `initialize` and `notifications/initialized`. Raises UpstreamFault and NotLegacy."""
    url, number = session.key.url, session.number()
    body = envelope_of(number, "initialize", initialize_params(session.key.capabilities))
    exchange = await http.post(url, {**credentials, **ACCEPT}, body, number, seconds)
    said = accepted(exchange)
    version, session.offered, session.instructions = said.protocol_version, said.capabilities, said.instructions or ""
    session.id = session_id = _session_id(exchange)
    session.headers = {**ACCEPT, "mcp-protocol-version": version, **({"mcp-session-id": session_id} if session_id else {})}
    status = await http.tell(url, {**credentials, **session.headers}, _INITIALIZED, seconds)
    if not 200 <= status < 300:
        raise UpstreamFault("The server does not open a session", f"initialized was answered with {status}")
    await _restore(http, session, credentials, seconds)
    session.opened = True


async def _restore(http: McpHttp, session: Session, credentials: Mapping[str, str], seconds: float) -> None:
    """Asks a new session for what the lost one was asked for. A server that refuses is not asked again."""
    wanted: list[tuple[str, Any]] = [("resources/subscribe", {"uri": uri}) for uri in session.uris]
    if session.level:
        wanted.append(("logging/setLevel", {"level": session.level}))
    for method, params in wanted:
        await ask(http, session, credentials, (method, params), seconds)


async def ask(http: McpHttp, session: Session, credentials: Mapping[str, str], what: tuple[str, Any], seconds: float) -> Exchange:
    """One request of our own in a session: method and parameters."""
    number = session.number()
    return await http.post(session.key.url, {**credentials, **session.headers}, envelope_of(number, *what), number, seconds)


def initialize_params(capabilities: str) -> dict[str, Any]:
    return {"protocolVersion": LEGACY[0], "capabilities": Raw(capabilities.encode()), "clientInfo": CLIENT_INFO}


def _session_id(exchange: Exchange) -> str:
    session_id = exchange.headers.get("mcp-session-id", "")
    if session_id and not _SESSION_ID.fullmatch(session_id):
        raise UpstreamFault("The server's session id is not valid")
    return session_id


def accepted(exchange: Exchange) -> Initialized:
    """A good answer to `initialize`. Raises UpstreamFault and NotLegacy."""
    answer = exchange.answer
    if answer is not None and isinstance(answer.result, msgspec.Raw) and exchange.status == 200:
        try:
            said = _initialized(answer.result)
        except msgspec.MsgspecError as error:
            raise BadAnswer("The server's answer is not JSON-RPC", str(error)[:200]) from None
        if said.protocol_version not in LEGACY:
            raise UpstreamFault("The server speaks no version of MCP that we know", said.protocol_version[:40])
        return said
    code = answer.error.code if answer is not None and isinstance(answer.error, msgspec.Struct) else 0
    if exchange.status in (401, 403):
        raise Challenged(exchange.status, exchange.headers.get("www-authenticate", ""))
    if code in (UNSUPPORTED_VERSION, -32601) or (400 <= exchange.status < 500 and exchange.status != 429):
        raise NotLegacy(f"status {exchange.status}, code {code}")
    fault = UpstreamFault("The server does not open a session", f"status {exchange.status}, code {code}")
    raise with_retry_after(fault, exchange.status, exchange.headers)


async def close_session(http: McpHttp, session: Session) -> None:
    """Tells the server, which may not listen: credentials are not kept, so a server that asks for some lets it expire."""
    if session.on_close is not None:
        session.on_close()
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
        self.hint: Callable[[str], None] | None = None

    def __len__(self) -> int:
        return len(self._sessions)

    def of(self, key: SessionKey) -> Session:
        """The owner's session with this server, perhaps not open yet. Raises NotSent when all places, or all of the owner's, are busy."""
        session = self._sessions.pop(key, None)
        if session is None:
            owners = [one.owner for one in self._sessions]
            if (whose := retiring(owners, key.owner, self._size)) is not None:
                self._retire_one(whose)
            session = Session(key)
            session.hint = self.hint
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
            raise NotSent(LATE, "waiting for a session", Failure.LATE) from error
        return session.id

    def lost(self, session: Session, session_id: str) -> None:
        """The server forgot `session_id`; whoever comes first marks it, later callers see the new one."""
        if session.id == session_id:
            session.opened = False

    def _retire_one(self, whose: str) -> None:
        for key, session in self._sessions.items():
            if not session.calls and whose in (ANYBODY, key.owner):
                del self._sessions[key]
                self._retired.append(session)
                return
        raise NotSent("Too many sessions with servers are busy", f"{self._size} sessions")

    def had_by(self, owner: str, front: str) -> list[Session]:
        """Those that a client's session has, and that are open."""
        return [one for one in self._sessions.values() if one.opened and one.key.owner == owner and one.key.front == front]

    async def leave(self, owner: str, front: str) -> None:
        """Closes the sessions that a client's session had; calls that are under way in them fail."""
        await self._close([s for s in self._sessions.values() if s.key.owner == owner and s.key.front == front])

    async def sweep(self, everything: bool = False) -> None:
        """Closes what was idle for too long or had to make room; at shutdown everything."""
        before = self._clock() - self._idle
        await self._close([s for s in self._sessions.values() if everything or (not s.calls and s.used <= before)])

    async def _close(self, idle: list[Session]) -> None:
        for session in idle:
            del self._sessions[session.key]
        closing = [*idle, *self._retired]
        self._retired.clear()
        await asyncio.gather(*(close_session(self._http, session) for session in closing))
