"""What an MCP server is: its era, its version and its tools, learned without trusting any of it."""

import re
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import msgspec

from adapters.contract import UpstreamFault
from adapters.mcp_http import Exchange, McpHttp
from adapters.mcp_sessions import NotLegacy, Session, SessionKey, close_session, open_session
from adapters.mcp_wire import (
    HEADER_MISMATCH,
    LEGACY,
    MISSING_CAPABILITY,
    MODERN,
    UNSUPPORTED_VERSION,
    BadAnswer,
    WireError,
    envelope_of,
    modern_headers,
    modern_params,
)
from policies import strict_json

PAGES_MAX: Final = 50
TOOLS_MAX: Final = 2000
CURSOR_MAX: Final = 4096
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}")
_NAME: Final = re.compile(r"[ -~]{1,128}")
_SCALARS: Final = frozenset({"string", "integer", "boolean"})
_DATA: Final = frozenset({"default", "examples", "const", "enum"})

Era = Literal["modern", "legacy"]
ListPage = Callable[[dict[str, Any]], Awaitable[Exchange]]


@dataclass(frozen=True, slots=True)
class Probe:
    """`tools`: entries of tools/list, verbatim, without those that can't be called safely."""

    era: Era
    protocol_version: str
    tools: list[dict[str, Any]]


class _Discovered(msgspec.Struct, frozen=True, rename="camel"):
    supported_versions: list[str]


class _Page(msgspec.Struct, frozen=True, rename="camel"):
    tools: list[dict[str, Any]]
    next_cursor: str | None = None


_discovered: Final = msgspec.json.Decoder(_Discovered).decode


async def probe(http: McpHttp, url: str, credentials: Mapping[str, str], seconds: float) -> Probe:
    """Tries 2026-07-28 and then `initialize`. Raises UpstreamFault; an outage tells nothing about the era."""
    if await _is_modern(http, url, credentials, seconds):
        return await _modern(http, url, credentials, seconds)
    try:
        return await _legacy(http, url, credentials, seconds)
    except NotLegacy as error:
        raise UpstreamFault("The server speaks no version of MCP that we know", str(error)) from error


async def _is_modern(http: McpHttp, url: str, credentials: Mapping[str, str], seconds: float) -> bool:
    headers = {**credentials, **modern_headers("server/discover")}
    body = envelope_of(0, "server/discover", modern_params({}))
    try:
        exchange = await http.post(url, headers, body, 0, seconds)
    except BadAnswer:
        return False  # what is no JSON-RPC answer is no evidence of the modern era
    if exchange.status in (401, 403):
        raise UpstreamFault("The server refuses the credentials it was shown", f"status {exchange.status}")
    if exchange.status >= 500 and exchange.answer is None:
        raise UpstreamFault("The server failed", f"status {exchange.status}")
    if exchange.answer is None:
        return False
    if isinstance(exchange.answer.error, WireError):
        return _says_modern(exchange.answer.error)
    try:
        return MODERN in _discovered(exchange.answer.result or b"").supported_versions
    except msgspec.MsgspecError:
        return False


def _says_modern(error: WireError) -> bool:
    """Only these codes prove the modern era. Raises UpstreamFault when it is one that we don't speak."""
    if error.code == UNSUPPORTED_VERSION:
        supported = error.data.get("supported") if isinstance(error.data, dict) else None
        if isinstance(supported, list) and MODERN not in supported and not set(LEGACY) & {str(version) for version in supported}:
            raise UpstreamFault("The server speaks no version of MCP that we know", str(supported)[:200])
        return isinstance(supported, list) and MODERN in supported
    return error.code in (HEADER_MISMATCH, MISSING_CAPABILITY)


async def _modern(http: McpHttp, url: str, credentials: Mapping[str, str], seconds: float) -> Probe:
    headers = {**credentials, **modern_headers("tools/list")}

    async def page(params: dict[str, Any]) -> Exchange:
        return await http.post(url, headers, envelope_of(1, "tools/list", modern_params(params)), 1, seconds)

    return Probe("modern", MODERN, await list_tools(page))


async def _legacy(http: McpHttp, url: str, credentials: Mapping[str, str], seconds: float) -> Probe:
    session = Session(SessionKey("", url, ""))
    await open_session(http, session, credentials, seconds)
    headers = {**credentials, **session.headers}

    async def page(params: dict[str, Any]) -> Exchange:
        number = session.number()
        return await http.post(url, headers, envelope_of(number, "tools/list", params), number, seconds)

    try:
        return Probe("legacy", session.headers["mcp-protocol-version"], await list_tools(page))
    finally:
        await close_session(http, session)


async def list_tools(page: ListPage) -> list[dict[str, Any]]:
    """All pages of tools/list, within bounds. A server without tools has none."""
    tools: dict[str, dict[str, Any]] = {}
    params: dict[str, Any] = {}
    for _ in range(PAGES_MAX):
        exchange = await page(params)
        if exchange.answer is None:
            raise UpstreamFault("The server does not list its tools", f"status {exchange.status}")
        if isinstance(exchange.answer.error, WireError):
            if exchange.answer.error.code == -32601 and not params:
                return []
            raise UpstreamFault("The server does not list its tools", f"code {exchange.answer.error.code}")
        try:
            listed = msgspec.convert(strict_json.parse(bytes(exchange.answer.result or b"")), _Page)
            sound = list(filter(callable_tool, listed.tools))
        except (msgspec.MsgspecError, strict_json.BadJson) as error:
            raise UpstreamFault("The server's list of tools is not valid", str(error)[:200]) from None
        for tool in sound:
            tools.setdefault(tool["name"], tool)
        if len(tools) > TOOLS_MAX:
            break
        if not listed.next_cursor:
            return list(tools.values())
        params = {"cursor": listed.next_cursor[: CURSOR_MAX + 1]}
        if len(params["cursor"]) > CURSOR_MAX:
            break
    raise UpstreamFault("The server's list of tools is too long", f"{len(tools)} tools")


def callable_tool(tool: Mapping[str, Any]) -> bool:
    """Whether a definition has a plain name and a schema whose `x-mcp-header` marks are sound (2026-07-28: drop it otherwise)."""
    name, schema = tool.get("name"), tool.get("inputSchema")
    if not isinstance(name, str) or not _NAME.fullmatch(name) or not isinstance(schema, dict):
        return False
    marks = list(_marks(schema, True))
    return all(isinstance(mark, str) and _TOKEN.fullmatch(mark) for mark in marks) and len({str(m).lower() for m in marks}) == len(marks)


def _marks(schema: Any, reachable: bool, top: bool = True) -> Iterator[Any]:
    """Every `x-mcp-header`; None for one that stands where no argument can be found by properties alone."""
    if isinstance(schema, list):
        for item in schema:
            yield from _marks(item, False, False)
    if not isinstance(schema, dict):
        return
    if "x-mcp-header" in schema:
        sound = reachable and not top and schema.get("type") in _SCALARS
        yield schema["x-mcp-header"] if sound else None
    for keyword, value in schema.items():
        if keyword == "properties" and isinstance(value, dict):
            for member in value.values():
                yield from _marks(member, reachable, False)
        elif keyword not in _DATA and keyword != "x-mcp-header":
            yield from _marks(value, False, False)
