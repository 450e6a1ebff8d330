"""Probes an MCP server: its era, version and lists, none of which is trusted."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import msgspec

from adapters.contract import Challenged, UpstreamFault
from adapters.mcp_client.duplex.http_sse import SseConnection
from adapters.mcp_client.exchange.http import Exchange, McpHttp
from adapters.mcp_client.legacy.sessions import NotLegacy, ServerSession, SessionKey, close_session, open_session
from adapters.mcp_client.lists import Definition, ServerLists, list_all
from adapters.mcp_client.wire.eras import modern_params
from adapters.mcp_client.wire.messages import (
    CAPABILITIES_KEY,
    HEADER_MISMATCH,
    LEGACY,
    MISSING_CAPABILITY,
    MODERN,
    UNSUPPORTED_VERSION,
    BadAnswer,
    WireError,
    envelope_of,
    modern_headers,
)
from registry.cards.card import INSTRUCTIONS

Era = Literal["modern", "legacy", "sse"]
INSTRUCTIONS_MAX: Final = 8192  # characters
ALL_CAPABILITIES: Final[Mapping[str, Any]] = {  # declared by probes, since servers show some tools only to clients that support more
    "elicitation": {"form": {}, "url": {}},
    "roots": {"listChanged": True},
    "sampling": {"context": {}, "tools": {}},
}
ALL_CAPABILITIES_JSON: Final = msgspec.json.encode(ALL_CAPABILITIES).decode()


@dataclass(frozen=True, slots=True)
class Probe:
    """A server's lists as received, without unusable entries, which `left_out` names. `instructions`: the server's, for models."""

    era: Era
    protocol_version: str
    tools: list[Definition]
    prompts: list[Definition] = field(default_factory=list)
    resources: list[Definition] = field(default_factory=list)
    templates: list[Definition] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)
    instructions: str = ""

    @property
    def facts(self) -> dict[str, str]:
        """The facts for a registration, which McpPool uses."""
        optional_facts = {INSTRUCTIONS: self.instructions} if self.instructions else {}
        return {"era": self.era, "protocol_version": self.protocol_version, **optional_facts}


def build_probe(era: Era, version: str, listed: ServerLists, instructions: str = "") -> Probe:
    lists = (listed.tools, listed.prompts, listed.resources, listed.templates, listed.left_out)
    return Probe(era, version, *lists, instructions[:INSTRUCTIONS_MAX])


class _Discovered(msgspec.Struct, frozen=True, rename="camel"):
    supported_versions: list[str] = []
    instructions: str | None = None


_decode_discovered: Final = msgspec.json.Decoder(_Discovered).decode


async def probe_server(http: McpHttp, url: str, credentials: Mapping[str, str], seconds: float, initialize: bool = False) -> Probe:
    """Probes for 2026-07-28, `initialize`, and the transport of 2024-11-05. Raises UpstreamFault; an outage does not show the era.

    `initialize`: the operator chose the legacy era.
    """
    discovered = None if initialize else await _discover(http, url, credentials, seconds)
    if discovered is not None:
        return await _probe_modern(http, url, credentials, seconds, discovered)
    try:
        return await _probe_legacy(http, url, credentials, seconds)
    except NotLegacy as error:
        refused = str(error)
    try:
        return await _probe_sse(http, url, credentials, seconds)
    except NotLegacy as error:
        raise UpstreamFault("No server of MCP that the gateway can call answers; is this its address?", f"{refused}, {error}") from error


async def _discover(http: McpHttp, url: str, credentials: Mapping[str, str], seconds: float) -> _Discovered | None:
    """The response to `server/discover`; None for a server that is not modern. Raises UpstreamFault."""
    headers = {**credentials, **modern_headers("server/discover")}
    body = envelope_of(0, "server/discover", modern_params({}))
    try:
        exchange = await http.post(url, headers, body, 0, seconds)
    except BadAnswer:
        return None  # an invalid response does not prove the modern era
    if exchange.status in (401, 403):
        raise Challenged(exchange.status, exchange.headers.get("www-authenticate", ""))
    if exchange.status >= 500 and exchange.answer is None:
        raise UpstreamFault("The server failed", f"status {exchange.status}")
    if exchange.answer is None:
        return None
    if isinstance(exchange.answer.error, WireError):
        return _Discovered() if _is_modern_error(exchange.answer.error) else None
    try:
        found = _decode_discovered(exchange.answer.result or b"")
    except msgspec.MsgspecError:
        return None
    return found if MODERN in found.supported_versions else None


def _is_modern_error(error: WireError) -> bool:
    """Whether an error's code proves the modern era. Raises UpstreamFault for unsupported versions only."""
    if error.code == UNSUPPORTED_VERSION:
        supported = error.data.get("supported") if isinstance(error.data, dict) else None
        if isinstance(supported, list) and MODERN not in supported and not set(LEGACY) & {str(version) for version in supported}:
            raise UpstreamFault("The server supports no version of MCP that the gateway knows", str(supported)[:200])
        return isinstance(supported, list) and MODERN in supported
    return error.code in (HEADER_MISMATCH, MISSING_CAPABILITY)


async def _probe_modern(http: McpHttp, url: str, credentials: Mapping[str, str], seconds: float, discovered: _Discovered) -> Probe:
    async def fetch_page(method: str, params: dict[str, Any]) -> Exchange:
        headers = {**credentials, **modern_headers(method)}
        return await http.post(url, headers, envelope_of(1, method, with_all_capabilities(params)), 1, seconds)

    return build_probe("modern", MODERN, await list_all(fetch_page), discovered.instructions or "")


def with_all_capabilities(params: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of a modern request from a client with all capabilities."""
    made = modern_params(params)
    return {**made, "_meta": {**made["_meta"], CAPABILITIES_KEY: ALL_CAPABILITIES}}


async def knows_handshake(http: McpHttp, url: str, credentials: Mapping[str, str], seconds: float) -> bool | None:
    """Whether a modern server also knows `initialize`, which `server/discover` does not show. None: unknown now."""
    session = ServerSession(SessionKey("", url, ""))
    try:
        await open_session(http, session, credentials, seconds)
    except NotLegacy:
        return False
    except UpstreamFault:
        return None
    await close_session(http, session)
    return True


async def _probe_legacy(http: McpHttp, url: str, credentials: Mapping[str, str], seconds: float) -> Probe:
    session = ServerSession(SessionKey("", url, "", capabilities=ALL_CAPABILITIES_JSON))
    await open_session(http, session, credentials, seconds)
    headers = {**credentials, **session.headers}

    async def fetch_page(method: str, params: dict[str, Any]) -> Exchange:
        number = session.next_number()
        return await http.post(url, headers, envelope_of(number, method, params), number, seconds)

    try:
        return build_probe("legacy", session.headers["mcp-protocol-version"], await list_all(fetch_page), session.instructions)
    finally:
        await close_session(http, session)


async def _probe_sse(http: McpHttp, url: str, credentials: Mapping[str, str], seconds: float) -> Probe:
    connection = SseConnection(http, SessionKey("", url, "", capabilities=ALL_CAPABILITIES_JSON), credentials)
    duplex = await connection.open(seconds)

    async def fetch_page(method: str, params: dict[str, Any]) -> Exchange:
        return await duplex.request(method, params, seconds)

    try:
        return build_probe("sse", duplex.version, await list_all(fetch_page), duplex.instructions)
    finally:
        connection.close()
