"""Warm sessions with servers of the legacy era: one per server and owner, opened again when lost, closed when idle."""

import asyncio
import itertools
import re
from collections import Counter, deque
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

import msgspec
from msgspec import Raw

from adapters.contract import Challenged, Failure, NotSent, UpstreamFault
from adapters.mcp_client.exchange.http import LATE_TEXT, Exchange, McpHttp
from adapters.mcp_client.session_room import ANY_OWNER, owner_to_evict
from adapters.mcp_client.wire.messages import (
    ACCEPT,
    CLIENT_INFO,
    LEGACY,
    UNSUPPORTED_VERSION,
    BadAnswer,
    Envelope,
    envelope_of,
    notification_of,
)
from adapters.upstream.retry_after import add_retry_after

SESSIONS_MAX: Final = 1000
IDLE_SECONDS: Final = 1800.0
CLOSE_SECONDS: Final = 5.0
_SESSION_ID: Final = re.compile(r"[!-~]{1,1024}")
NO_CAPABILITIES: Final = "{}"  # of a client that declared none, in canonical JSON
URIS_MAX: Final = 256  # of one session
EXPECTED_TOKENS_MAX: Final = 64  # progress tokens
_INITIALIZED_NOTIFICATION: Final = notification_of("notifications/initialized")


OnServerChanged = Callable[[str], None]  # called with `SessionKey.server` on each list change
LISTS_CHANGED: Final = frozenset(f"notifications/{kind}/list_changed" for kind in ("tools", "prompts", "resources"))


class NotLegacy(Exception):
    """The server does not know `initialize`: it may have changed its era."""


class Initialized(msgspec.Struct, frozen=True, rename="camel"):
    """A server's response to `initialize`."""

    protocol_version: str
    capabilities: dict[str, Any] = {}
    instructions: str | None = None


_decode_initialized: Final = msgspec.json.Decoder(Initialized).decode


class SessionKey(msgspec.Struct, frozen=True):
    """The owner and server of a session, which is never shared with another owner. `owner` is tenant|issuer|subject.

    `client_session` is the client's own session; empty: shared by a person's stateless requests. `capabilities` are the client's, in
    canonical JSON, and the only ones declared to the server.
    """

    server: str
    url: str
    owner: str
    client_session: str = ""
    capabilities: str = NO_CAPABILITIES


def ignore_change(_server: str) -> None:
    """Ignores a list change."""


class MessageReceiver(Protocol):
    """Receives a session's messages during a request (adapters/mcp_client/exchange/server_messages.py)."""

    async def receive(self, message: Envelope) -> None: ...


class SessionListener(Protocol):
    """Listens to a session (adapters/mcp_client/listening.py)."""

    async def forward_change(self, method: str, params: Raw) -> None: ...

    async def receive(self, message: Envelope) -> None:
        """Handles a message outside of requests."""
        ...


class ServerSession:
    """A session with a server. `headers` are sent with every request; `next_number()` returns the next request id.

    `log_level` and `uris` (with the number of subscribers) were requested from the server, and are requested again in a new session.
    `receivers` are the calls in progress whose clients can be asked, `listeners` those that get changes, the latest last. `expected_tokens`
    are the progress tokens, as JSON, of the server's questions. `close_steps` are called before the session is closed.
    """

    __slots__ = (
        "_on_list_changed",
        "answers_in_json",
        "calls_in_flight",
        "close_steps",
        "credentials",
        "expected_tokens",
        "headers",
        "id",
        "instructions",
        "is_open",
        "key",
        "last_used",
        "listeners",
        "lock",
        "log_level",
        "next_number",
        "receivers",
        "server_capabilities",
        "uris",
    )

    def __init__(self, key: SessionKey, on_list_changed: OnServerChanged = ignore_change) -> None:
        self.key = key
        self._on_list_changed = on_list_changed
        self.lock = asyncio.Lock()
        self.next_number = itertools.count(1).__next__
        self.calls_in_flight = 0  # number of calls
        self.last_used = 0.0
        self.is_open = False
        self.answers_in_json = False  # the last response in it was not a stream
        self.id = ""  # empty: the server has no sessions
        self.headers: Mapping[str, str] = ACCEPT
        self.server_capabilities: Mapping[str, Any] = {}  # from `initialize`
        self.instructions = ""
        self.log_level = ""
        self.uris: Counter[str] = Counter()
        self.listeners: list[SessionListener] = []
        self.receivers: list[MessageReceiver] = []
        self.close_steps: list[Callable[[], None]] = []
        self.credentials: Mapping[str, str] = {}  # of the last request in it
        self.expected_tokens: deque[bytes] = deque(maxlen=EXPECTED_TOKENS_MAX)

    def report_change(self, method: str) -> None:
        if method in LISTS_CHANGED:
            self._on_list_changed(self.key.server)


async def open_session(http: McpHttp, session: ServerSession, credentials: Mapping[str, str], seconds: float) -> None:
    """Opens a session: sends `initialize` and `notifications/initialized`. Raises UpstreamFault and NotLegacy."""
    url, number = session.key.url, session.next_number()
    body = envelope_of(number, "initialize", initialize_params(session.key.capabilities))
    exchange = await http.post(url, {**credentials, **ACCEPT}, body, number, seconds)
    initialized = read_initialized(exchange)
    version, session.server_capabilities = initialized.protocol_version, initialized.capabilities
    session.instructions = initialized.instructions or ""
    session.id = session_id = _session_id(exchange)
    session.headers = {**ACCEPT, "mcp-protocol-version": version, **({"mcp-session-id": session_id} if session_id else {})}
    status = await http.notify(url, {**credentials, **session.headers}, _INITIALIZED_NOTIFICATION, seconds)
    if not 200 <= status < 300:
        raise UpstreamFault("The server did not open a session", f"initialized was answered with {status}")
    await _restore(http, session, credentials, seconds)
    session.is_open = True


async def _restore(http: McpHttp, session: ServerSession, credentials: Mapping[str, str], seconds: float) -> None:
    """Requests in a new session what the lost one had: subscriptions and log level. Ignores refusals."""
    wanted: list[tuple[str, Any]] = [("resources/subscribe", {"uri": uri}) for uri in session.uris]
    if session.log_level:
        wanted.append(("logging/setLevel", {"level": session.log_level}))
    for method, params in wanted:
        await request_in_session(http, session, credentials, method, params, seconds=seconds)


async def request_in_session(
    http: McpHttp, session: ServerSession, credentials: Mapping[str, str], method: str, params: Any, *, seconds: float
) -> Exchange:
    """Sends a request of the gateway's own in a session."""
    number = session.next_number()
    return await http.post(session.key.url, {**credentials, **session.headers}, envelope_of(number, method, params), number, seconds)


def initialize_params(capabilities: str) -> dict[str, Any]:
    return {"protocolVersion": LEGACY[0], "capabilities": Raw(capabilities.encode()), "clientInfo": CLIENT_INFO}


def _session_id(exchange: Exchange) -> str:
    session_id = exchange.headers.get("mcp-session-id", "")
    if session_id and not _SESSION_ID.fullmatch(session_id):
        raise UpstreamFault("The server's session id is not valid")
    return session_id


def read_initialized(exchange: Exchange) -> Initialized:
    """Parses the response to `initialize`. Raises UpstreamFault and NotLegacy."""
    answer = exchange.answer
    if answer is not None and isinstance(answer.result, msgspec.Raw) and exchange.status == 200:
        try:
            initialized = _decode_initialized(answer.result)
        except msgspec.MsgspecError as error:
            raise BadAnswer("The server's answer is not JSON-RPC", str(error)[:200]) from None
        if initialized.protocol_version not in LEGACY:
            raise UpstreamFault("The server supports no version of MCP that the gateway knows", initialized.protocol_version[:40])
        return initialized
    code = answer.error.code if answer is not None and isinstance(answer.error, msgspec.Struct) else 0
    if exchange.status in (401, 403):
        raise Challenged(exchange.status, exchange.headers.get("www-authenticate", ""))
    if code in (UNSUPPORTED_VERSION, -32601) or (400 <= exchange.status < 500 and exchange.status != 429):
        raise NotLegacy(f"status {exchange.status}, code {code}")
    fault = UpstreamFault("The server did not open a session", f"status {exchange.status}, code {code}")
    raise add_retry_after(fault, exchange.status, exchange.headers)


async def close_session(http: McpHttp, session: ServerSession) -> None:
    """Closes a session at the server. Credentials are not stored, so at a server that requires them the session just expires."""
    for step in session.close_steps:
        step()
    if session.is_open and session.id:
        session.is_open = False
        try:
            await http.delete(session.key.url, session.headers, CLOSE_SECONDS)
        except UpstreamFault:
            return


class ServerSessions:
    """At most `size` sessions. `clock` counts seconds; the caller calls `sweep` regularly."""

    def __init__(
        self,
        http: McpHttp,
        clock: Callable[[], float],
        size: int = SESSIONS_MAX,
        idle: float = IDLE_SECONDS,
        on_list_changed: OnServerChanged = ignore_change,
    ) -> None:
        self._http = http
        self._clock = clock
        self._size = size
        self._idle_seconds = idle
        self._sessions: dict[SessionKey, ServerSession] = {}  # least recently used first
        self._retired: deque[ServerSession] = deque(maxlen=size)
        self._on_list_changed = on_list_changed

    def __len__(self) -> int:
        return len(self._sessions)

    def session_for(self, key: SessionKey) -> ServerSession:
        """The owner's session with this server, possibly not open yet. Raises NotSent when all sessions are busy, or all of the owner's."""
        session = self._sessions.pop(key, None)
        if session is None:
            owners = [one.owner for one in self._sessions]
            if (whose := owner_to_evict(owners, key.owner, self._size)) is not None:
                self._retire_one(whose)
            session = ServerSession(key, self._on_list_changed)
        self._sessions[key] = session
        session.last_used = self._clock()
        return session

    async def ensure_open(self, session: ServerSession, credentials: Mapping[str, str], deadline: float) -> str:
        """Opens the session if needed and returns its id; concurrent callers wait for the same opening."""
        if session.is_open:
            return session.id
        try:
            async with asyncio.timeout(deadline - self._clock()), session.lock:
                if not session.is_open:
                    await open_session(self._http, session, credentials, deadline - self._clock())
        except TimeoutError as error:
            raise NotSent(LATE_TEXT, "waiting for a session", Failure.LATE) from error
        return session.id

    def mark_lost(self, session: ServerSession, session_id: str) -> None:
        """Marks a session as lost, if it still has the id `session_id`."""
        if session.id == session_id:
            session.is_open = False

    def _retire_one(self, owner: str) -> None:
        for key, session in self._sessions.items():
            if not session.calls_in_flight and owner in (ANY_OWNER, key.owner):
                del self._sessions[key]
                self._retired.append(session)
                return
        raise NotSent("Too many sessions with servers are busy", f"{self._size} sessions")

    def sessions_of(self, owner: str, client_session: str) -> list[ServerSession]:
        """The open sessions that belong to a client's session."""
        return [
            one for one in self._sessions.values() if one.is_open and one.key.owner == owner and one.key.client_session == client_session
        ]

    async def close_client_session(self, owner: str, client_session: str) -> None:
        """Closes the sessions of a client's session; calls in progress in them fail."""
        await self._close([s for s in self._sessions.values() if s.key.owner == owner and s.key.client_session == client_session])

    async def sweep(self, everything: bool = False) -> None:
        """Closes sessions that are idle or were evicted; with `everything`, all of them."""
        idle_since = self._clock() - self._idle_seconds
        await self._close([s for s in self._sessions.values() if everything or (not s.calls_in_flight and s.last_used <= idle_since)])

    async def _close(self, idle: list[ServerSession]) -> None:
        for session in idle:
            del self._sessions[session.key]
        closing = [*idle, *self._retired]
        self._retired.clear()
        await asyncio.gather(*(close_session(self._http, session) for session in closing))
