"""Calls to MCP servers over HTTP: modern ones get the envelope as it came, older ones get it inside a warm session of its owner."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from msgspec import Raw

from adapters.contract import Call, UpstreamFault
from adapters.egress import LIMIT, Egress
from adapters.mcp_http import Exchange, McpHttp
from adapters.mcp_peer import Listener, Listening
from adapters.mcp_probe import Era, Probe, probe
from adapters.mcp_sessions import IDLE_SECONDS, SESSIONS_MAX, NotLegacy, SessionKey, Sessions
from adapters.mcp_wire import (
    HEADER_MISMATCH,
    MISSING_CAPABILITY,
    UNSUPPORTED_VERSION,
    McpAnswer,
    McpRefused,
    McpRequest,
    WireError,
    legacy_body,
    modern_body,
    modern_headers,
    result_for,
)
from registry.card import Registration

PROBE_SECONDS: Final = 15.0
ASK_SECONDS: Final = 60.0  # between two probes of a server that contradicts itself
ERAS_KEPT: Final = 4096
CONTRADICTS: Final = "The server's answer is not one of its protocol"
_OTHER_ERA: Final = frozenset({400, 404, 405, 406})  # what a server of the other era answers to a request it does not know
_HEADERS_KEPT: Final = 4096

_Version = tuple[str, str, str, int]


@dataclasses.dataclass(frozen=True, slots=True)
class PoolLimits:
    """`answer`: bytes of one answer. `idle`: seconds until an unused session is closed."""

    answer: int = LIMIT
    sessions: int = SESSIONS_MAX
    idle: float = IDLE_SECONDS


class _Asked(NamedTuple):
    era: Era
    at: float


class _WrongEra(Exception):
    """The server answers as one of the other era would. Nothing was done for the call."""


class McpPool:
    """`clock` counts the seconds that deadlines are given in."""

    def __init__(self, egress: Egress, clock: Callable[[], float], limits: PoolLimits | None = None) -> None:
        limits = limits or PoolLimits()
        self._clock = clock
        self._http = McpHttp(egress, limits.answer)
        self._sessions = Sessions(self._http, clock, limits.sessions, limits.idle)
        self._eras: dict[_Version, _Asked] = {}  # what was found out since the server was registered
        self._headers: dict[tuple[str, str], Mapping[str, str]] = {}

    async def probe(self, url: str, headers: Mapping[str, str], seconds: float = PROBE_SECONDS) -> Probe:
        """Era, version and tools of a server. `headers` are credentials. Raises UpstreamFault and EgressRefused."""
        return await probe(self._http, url, headers, seconds)

    async def call(self, call: Call, request: McpRequest) -> McpAnswer:
        """Makes one call. Raises UpstreamFault, McpRefused and EgressRefused; a result with isError is an answer."""
        era = self._era(call.target)
        try:
            return await self._send(era, call, request)
        except (_WrongEra, NotLegacy) as contradiction:
            found = await self._other_era(era, call, contradiction)
        try:
            return await self._send(found, call, request)
        except (_WrongEra, NotLegacy) as contradiction:
            raise UpstreamFault(CONTRADICTS, str(contradiction)) from contradiction

    async def listen(self, call: Call, wanted: Listening, listener: Listener, session: str = "") -> None:
        """See McpTools.listen."""
        raise UpstreamFault("The server can't be listened to", "not yet")

    async def sweep(self) -> None:
        """Closes idle sessions; to be called about once a minute."""
        await self._sessions.sweep()

    async def close(self) -> None:
        await self._sessions.sweep(everything=True)

    def _era(self, target: Registration) -> Era:
        known = self._eras.get(_version(target)) if self._eras else None
        return known.era if known else ("legacy" if target.facts.get("era") == "legacy" else "modern")

    async def _other_era(self, era: Era, call: Call, contradiction: Exception) -> Era:
        """Asks the server again, seldom, and remembers. Raises UpstreamFault when it is what it was."""
        key, now = _version(call.target), self._clock()
        known = self._eras.get(key)
        if known is None or known.at + ASK_SECONDS <= now:
            found = await self.probe(call.target.url, call.headers, min(PROBE_SECONDS, call.deadline - now))
            if len(self._eras) >= ERAS_KEPT:
                self._eras.clear()
            known = self._eras[key] = _Asked(found.era, now)
        if known.era == era:
            raise UpstreamFault(CONTRADICTS, str(contradiction)) from contradiction
        return known.era

    async def _send(self, era: Era, call: Call, request: McpRequest) -> McpAnswer:
        if era == "modern":
            exchange = await self._modern(call, request)
        else:
            exchange = await self._legacy(call, request)
        return McpAnswer(result_for(request, _result(exchange, era), era == "modern"))

    async def _modern(self, call: Call, request: McpRequest) -> Exchange:
        fixed = self._headers.get((request.method, request.name)) or self._fixed(request)
        headers = {**call.headers, **request.headers, **fixed}
        return await self._http.post(call.target.url, headers, modern_body(request), request.id, call.deadline - self._clock())

    def _fixed(self, request: McpRequest) -> Mapping[str, str]:
        if len(self._headers) >= _HEADERS_KEPT:
            self._headers.clear()
        fixed = self._headers[(request.method, request.name)] = modern_headers(request.method, request.name)
        return fixed

    async def _legacy(self, call: Call, request: McpRequest) -> Exchange:
        owner = call.grant.delegation.principal.owner
        session = self._sessions.of(SessionKey(f"{call.target.tenant}|{call.target.name}", call.target.url, owner))
        session.calls += 1
        try:
            for _ in range(2):
                session_id = await self._sessions.ready(session, call.headers, call.deadline)
                number = session.number()
                headers = {**call.headers, **session.headers}
                body = legacy_body(request, number)
                exchange = await self._http.post(call.target.url, headers, body, number, call.deadline - self._clock())
                if exchange.status != 404 or not session_id:
                    return exchange
                self._sessions.lost(session, session_id)  # 2025-11-25: 404 means that the session is gone, so nothing was done
        finally:
            session.calls -= 1
            session.used = self._clock()
        raise UpstreamFault("The server forgets its sessions", "404 in a new session")


def _version(target: Registration) -> _Version:
    """One state of one registration: what was found out ends with it."""
    return (target.tenant, target.name, target.url, target.updated)


def _result(exchange: Exchange, era: Era) -> bytes:
    """The result's bytes, or the exception that the answer means."""
    answer, status = exchange.answer, exchange.status
    if answer is not None and isinstance(answer.result, Raw) and status == 200:
        return bytes(answer.result)
    error = answer.error if answer is not None and isinstance(answer.error, WireError) else None
    detail = f"status {status}" + (f", {error.code}: {error.message[:300]}" if error else "")
    if status in (401, 403):
        raise UpstreamFault("The server refuses the credentials it was shown", detail)
    if error is not None and _is_refusal(error.code, status):
        raise McpRefused(error.code, detail)
    if error is not None and error.code in (HEADER_MISMATCH, MISSING_CAPABILITY):
        raise UpstreamFault("The server finds fault with the gateway's request", detail)
    if (era == "modern" and status in _OTHER_ERA) or (error is not None and error.code == UNSUPPORTED_VERSION):
        raise _WrongEra(f"{era}, {detail}")
    raise UpstreamFault("The server is busy" if status == 429 else "The server failed", detail)


def _is_refusal(code: int, status: int) -> bool:
    """A JSON-RPC error about the call itself: any over 200, else the codes that a modern server gives with 400 and 404."""
    if code in (HEADER_MISMATCH, MISSING_CAPABILITY, UNSUPPORTED_VERSION):
        return False
    return status == 200 or code in (-32601, -32602, -32603)
