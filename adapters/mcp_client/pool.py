"""Calls MCP servers over HTTP: modern ones get the client's envelope, older ones get it inside a warm session of its owner."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from adapters.contract import Call, NotSent, Unreachable, UpstreamFault
from adapters.mcp_client.duplex.http_sse import SseSessions
from adapters.mcp_client.exchange.http import Exchange, McpHttp, PostRequest, WrongEra, client_answer
from adapters.mcp_client.exchange.rounds import InputRound, client_answer_off_loop, run_rounds
from adapters.mcp_client.exchange.server_messages import ServerMessages
from adapters.mcp_client.legacy.get_streams import GetStreams
from adapters.mcp_client.legacy.requests import SUBSCRIBE, UNSUBSCRIBE, LegacyRequests
from adapters.mcp_client.legacy.sessions import IDLE_SECONDS, SESSIONS_MAX, NotLegacy, OnServerChanged, ServerSessions, ignore_change
from adapters.mcp_client.listening import LegacyListening, LegacySubscriptions, ModernListening
from adapters.mcp_client.probe import Era, Probe, knows_handshake, probe_server
from adapters.mcp_client.watching import OnListChanged, watch_legacy, watch_modern, watch_sse
from adapters.mcp_client.wire.eras import modern_body, retry_body
from adapters.mcp_client.wire.messages import ClientNotification, McpAnswer, McpRefused, McpRequest, modern_headers
from adapters.mcp_client.wire.peer import ListenFilter, McpListener, McpPeer
from adapters.upstream.breaker import Breaker
from adapters.upstream.egress import BODY_MAX, Egress
from registry.cards.card import Registration

PROBE_SECONDS: Final = 15.0
PROBE_AGAIN_SECONDS: Final = 60.0  # between two probes of a server that contradicts itself
ERAS_MAX: Final = 4096
_HEADERS_MAX: Final = 4096
ERA_OPTION: Final = "era"  # in `upstream` of a server
INITIALIZE: Final = "initialize"
CONTRADICTION_TEXT: Final = "The server's answer violates its protocol"
_ERAS_BY_FACT: Final[Mapping[Any, Era]] = {"legacy": "legacy", "sse": "sse"}
_EMPTY_ANSWER: Final = McpAnswer(b"{}")

_RegistrationVersion = tuple[str, str, str, int]


@dataclasses.dataclass(frozen=True, slots=True)
class PoolLimits:
    """Limits of the pool. `answer`: bytes of one response. `idle`: seconds until an unused session is closed."""

    answer: int = BODY_MAX
    sessions: int = SESSIONS_MAX
    idle: float = IDLE_SECONDS


class _ProbedEra(NamedTuple):
    era: Era
    probed_at: float


class _Handshake(NamedTuple):
    """Whether a modern server also knows `initialize`; probed again after `valid_until`."""

    knows_initialize: bool
    valid_until: float


class ModernRequests:
    """Requests to servers of the stateless era: the client's own envelope, the matching headers, and a stream if needed."""

    def __init__(self, http: McpHttp, clock: Callable[[], float]) -> None:
        self._http = http
        self._clock = clock
        self._method_headers: dict[tuple[str, str], Mapping[str, str]] = {}

    async def send(self, call: Call, request: McpRequest) -> Exchange:
        """Sends one request and returns its response. Raises UpstreamFault."""
        fixed = self._method_headers.get((request.method, request.name)) or self._remember_headers(request)
        headers = {**call.headers, **request.headers, **fixed}
        body = request.raw if request.is_modern else modern_body(request)
        return await self._http.post(call.target.url, headers, body, request.id, call.deadline - self._clock())

    async def send_and_receive(self, call: Call, request: McpRequest, peer: McpPeer, input_round: InputRound) -> Exchange:
        """Like `send`, but passes the messages before the response to `peer`."""
        number, answers, paused_seconds = input_round
        body = retry_body(request, number, answers) if number else modern_body(request)
        expected = f"{request.id}/{number}" if number else request.id
        fixed = self._method_headers.get((request.method, request.name)) or self._remember_headers(request)
        posting = PostRequest(
            call.target.url, {**call.headers, **request.headers, **fixed}, body, expected, call.deadline + paused_seconds - self._clock()
        )
        with ServerMessages(request, peer) as messages:
            return await self._http.post_and_receive(posting, messages)

    def _remember_headers(self, request: McpRequest) -> Mapping[str, str]:
        if len(self._method_headers) >= _HEADERS_MAX:
            self._method_headers.clear()
        fixed = self._method_headers[(request.method, request.name)] = modern_headers(request.method, request.name)
        return fixed


class McpPool:
    """The pool of sessions and calls. `clock` counts the seconds of deadlines."""

    def __init__(
        self,
        egress: Egress,
        clock: Callable[[], float],
        limits: PoolLimits | None = None,
        *,
        initialize_seconds: float,
        on_list_changed: OnServerChanged = ignore_change,
    ) -> None:
        """`initialize_seconds`: how long a modern server may take to show whether it also knows `initialize`.

        `on_list_changed` is called with the server (tenant|name) whenever it announces a changed list in any session.
        """
        limits = limits or PoolLimits()
        self._clock = clock
        self._initialize_seconds = initialize_seconds
        self._http = McpHttp(egress, limits.answer)
        self._sessions = ServerSessions(self._http, clock, limits.sessions, limits.idle, on_list_changed)
        self._streams = GetStreams(self._http, self._sessions, clock)
        self._legacy = LegacyRequests(self._http, self._sessions, self._streams, clock)
        self._legacy_listening = LegacyListening(self._http, self._sessions, self._streams, clock)
        self._modern = ModernRequests(self._http, clock)
        self._sse = SseSessions(self._http, clock, limits.sessions, limits.idle, on_list_changed)
        self._legacy_subscriptions = LegacySubscriptions()
        self._breaker = Breaker(clock)
        self._eras: dict[_RegistrationVersion, _ProbedEra] = {}  # found since the server was registered
        self._handshakes: dict[_RegistrationVersion, _Handshake] = {}

    @property
    def ejected_count(self) -> int:
        """The number of servers with an open breaker."""
        return sum(state.is_open for state in self._breaker.states.values())

    async def probe(self, url: str, headers: Mapping[str, str], seconds: float = PROBE_SECONDS, initialize: bool = False) -> Probe:
        """Probes a server's era, version and lists. `headers` are credentials. Raises UpstreamFault and EgressRefused.

        `initialize`: the operator chose the legacy era.
        """
        return await probe_server(self._http, url, headers, seconds, initialize)

    async def call(self, call: Call, request: McpRequest) -> McpAnswer:
        """Sends one request. Raises UpstreamFault, McpRefused and EgressRefused; a result with isError is returned."""
        server, era = call.target.url, self._era(call.target)
        if self._breaker.states:
            self._breaker.acquire(server)
        try:
            if request.client_session and era == "modern":
                era = await self._session_era(call)
            try:
                answer = await self._send(era, call, request)
            except (WrongEra, NotLegacy) as contradiction:
                answer = await self._send_in_other_era(era, call, request, contradiction)
        except NotSent:
            self._breaker.release(server)
            raise
        except Unreachable:
            (self._breaker.release if call.ran_out_of_callers_time else self._breaker.record_failure)(server)
            raise
        except (UpstreamFault, McpRefused):  # it responded
            self._breaker.record_success(server)
            raise
        except BaseException:  # canceled, or never sent: the server's state is unknown
            self._breaker.release(server)
            raise
        if self._breaker.states:
            self._breaker.record_success(server)
        return answer

    async def _send_in_other_era(self, era: Era, call: Call, request: McpRequest, contradiction: Exception) -> McpAnswer:
        """Repeats the request in the era that the server supports now."""
        found = await self._other_era(era, call, contradiction)
        try:
            return await self._send(found, call, request)
        except (WrongEra, NotLegacy) as contradiction:
            raise UpstreamFault(CONTRADICTION_TEXT, str(contradiction)) from contradiction

    async def listen(self, call: Call, wanted: ListenFilter, listener: McpListener, session: str = "") -> None:
        """See McpTools.listen."""
        era = self._era(call.target)
        if session and era == "modern":
            era = await self._session_era(call)
        try:
            await self._listen(era, call, wanted, listener, session)
        except (WrongEra, NotLegacy) as contradiction:
            found = await self._other_era(era, call, contradiction)
            try:
                await self._listen(found, call, wanted, listener, session)
            except (WrongEra, NotLegacy) as second_error:
                raise UpstreamFault(CONTRADICTION_TEXT, str(second_error)) from second_error

    async def watch(self, target: Registration, headers: Mapping[str, str], changed: OnListChanged) -> None:
        """See McpTools.watch."""
        watch = {"modern": watch_modern, "legacy": watch_legacy, "sse": watch_sse}[self._era(target)]
        try:
            await watch(self._http, target.url, headers, changed)
        except (WrongEra, NotLegacy) as contradiction:
            raise UpstreamFault(CONTRADICTION_TEXT, str(contradiction)) from contradiction

    def notify(self, owner: str, session: str, notification: ClientNotification) -> None:
        """See McpTools.notify."""
        for one in self._sessions.sessions_of(owner, session):
            if notification.is_for(one.expected_tokens):
                self._legacy.send_in_background(one, notification.body)
        for duplex in self._sse.channels_of(owner, session):
            if notification.is_for(duplex.expected_tokens):
                duplex.send_in_background(notification.body)

    async def close_client_session(self, owner: str, session: str) -> None:
        """Closes a client session's sessions with servers; `owner` is tenant|issuer|subject."""
        self._legacy_subscriptions.remove_session(owner, session)
        await self._sse.close_client_session(owner, session)
        await self._sessions.close_client_session(owner, session)

    async def sweep(self) -> None:
        """Closes idle sessions; the caller calls it about once a minute."""
        await self._sse.sweep()
        await self._sessions.sweep()

    async def close(self) -> None:
        await self._legacy.close()
        self._streams.close()
        await self._sse.sweep(everything=True)
        await self._sessions.sweep(everything=True)

    def _era(self, target: Registration) -> Era:
        known = self._eras.get(_registration_version(target)) if self._eras else None
        return known.era if known else _ERAS_BY_FACT.get(target.facts.get("era", ""), "modern")

    async def _session_era(self, call: Call) -> Era:
        """The era for a client with a session: the older one where a modern server also supports it, since it needs sessions to ask."""
        key, now = _registration_version(call.target), self._clock()
        known = self._handshakes.get(key)
        if known is None or known.valid_until <= now:
            seconds = min(self._initialize_seconds, call.deadline - now)
            knows = await knows_handshake(self._http, call.target.url, call.headers, seconds)
            if len(self._handshakes) >= ERAS_MAX:
                self._handshakes.clear()
            known = self._handshakes[key] = _Handshake(bool(knows), math.inf if knows is not None else now + PROBE_AGAIN_SECONDS)
        return "legacy" if known.knows_initialize else "modern"

    async def _other_era(self, era: Era, call: Call, contradiction: Exception) -> Era:
        """Probes the server again, rarely, and caches its era. Raises UpstreamFault when it is unchanged."""
        key, now = _registration_version(call.target), self._clock()
        known = self._eras.get(key)
        if known is None or known.probed_at + PROBE_AGAIN_SECONDS <= now:
            seconds = min(PROBE_SECONDS, call.deadline - now)
            found = await self.probe(call.target.url, call.headers, seconds, speaks_initialize(call.target.upstream))
            if len(self._eras) >= ERAS_MAX:
                self._eras.clear()
            known = self._eras[key] = _ProbedEra(found.era, now)
        if known.era == era:
            raise UpstreamFault(CONTRADICTION_TEXT, str(contradiction)) from contradiction
        if known.era == "modern":
            self._handshakes[key] = _Handshake(False, math.inf)  # whatever it supported before
        return known.era

    async def _listen(self, era: Era, call: Call, wanted: ListenFilter, listener: McpListener, session: str) -> None:
        if era == "modern":
            await ModernListening(self._http, self._clock, self._legacy_subscriptions).listen(call, wanted, listener, session)
        elif era == "sse":
            await self._sse.listen(call, wanted, listener, session)
        else:
            await self._legacy_listening.listen(call, wanted, listener, session)

    async def _send(self, era: Era, call: Call, request: McpRequest) -> McpAnswer:
        peer = request.peer
        if era == "modern":
            if peer is None:
                exchange = await self._modern.send(call, request)
                return (
                    client_answer(request, exchange, True) if request.is_modern else await client_answer_off_loop(request, exchange, True)
                )
            return await self._send_modern(peer, call, request)
        requests = self._legacy if era == "legacy" else self._sse
        if peer is None or not request.is_modern:  # a client of the server's era gets what the server asks as it is
            return await client_answer_off_loop(request, await requests.send(call, request), False)
        return await run_rounds(
            request, peer, False, lambda round_input: requests.send(call, request, round_input.paused_seconds), self._clock
        )

    async def _send_modern(self, peer: McpPeer, call: Call, request: McpRequest) -> McpAnswer:
        if not request.is_modern and request.method in (SUBSCRIBE, UNSUBSCRIBE):
            self._legacy_subscriptions.record_request(call, request)
            return _EMPTY_ANSWER
        if not request.is_modern and request.method == "logging/setLevel":
            return _EMPTY_ANSWER  # in the modern era each request has its own level
        return await run_rounds(
            request, peer, True, lambda round_input: self._modern.send_and_receive(call, request, peer, round_input), self._clock
        )


def speaks_initialize(upstream: Mapping[str, Any]) -> bool:
    """Whether the operator chose the legacy era for a server."""
    return upstream.get(ERA_OPTION) == INITIALIZE


def _registration_version(target: Registration) -> _RegistrationVersion:
    """Identifies one state of a registration: cached findings become invalid with it."""
    return (target.tenant, target.name, target.url, target.updated)
