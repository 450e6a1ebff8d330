"""The lists of an MCP server: tools, prompts, resources and templates, on all pages within bounds, without unusable entries."""

import re
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from adapters.contract import Challenged, UpstreamFault
from adapters.mcp_client.exchange.http import Exchange
from adapters.mcp_client.wire.messages import WireError
from policies import strict_json

ITEMS_MAX: Final = 2000  # of one list
PAGES_MAX: Final = 2 * ITEMS_MAX  # of one list: pages may have one item or none
SIZE_MAX: Final = 16 << 20  # bytes of one list
CURSOR_MAX: Final = 4096
URI_MAX: Final = 2048
NOT_OFFERED_CODES: Final = frozenset({-32600, -32601, -32602})  # how servers refuse a method that they do not have
_HEADER_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}")
NAME_MAX: Final = 128  # characters
_SCALARS: Final = ("string", "integer", "boolean")  # compared, never hashed: an untrusted `type` may be a list
_DATA_KEYWORDS: Final = frozenset({"default", "examples", "const", "enum"})

Definition = dict[str, Any]
FetchPage = Callable[[str, dict[str, Any]], Awaitable[Exchange]]  # takes method and params


@dataclass(frozen=True, slots=True)
class ServerLists:
    """The entries of the four lists as received, without unsafe ones: `left_out` names these with the reason."""

    tools: list[Definition]
    prompts: list[Definition] = field(default_factory=list)
    resources: list[Definition] = field(default_factory=list)
    templates: list[Definition] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _ListKind:
    """One kind of list: `member` of the result has the entries, which `key` identifies. `may_be_cut`: its end may be left out.

    `find_flaw` returns why an entry is unusable; empty if it is usable.
    """

    method: str
    member: str
    key: str
    find_flaw: Callable[[Mapping[str, Any]], str]
    may_be_cut: bool = False


async def list_all(fetch_page: FetchPage) -> ServerLists:
    """All lists of the server. Raises UpstreamFault."""
    left_out: dict[tuple[str, str], None] = {}
    tools, prompts, resources, templates = [await _fetch_list(fetch_page, each, left_out) for each in LISTS]
    return ServerLists(tools, prompts, resources, templates, list(left_out))


async def _fetch_list(fetch_page: FetchPage, kind: _ListKind, left_out: dict[tuple[str, str], None]) -> list[Definition]:
    """All pages of one list; empty if the server does not have it. Adds unusable entries to `left_out`. Raises UpstreamFault."""
    found: dict[str, Definition] = {}
    params: dict[str, Any] = {}
    cursors: set[str] = set()
    size = seen = 0
    for _ in range(PAGES_MAX):
        exchange = await fetch_page(kind.method, params)
        if not params and _is_not_offered(exchange, kind):
            return []
        entries, cursor = _read_page(exchange, kind)
        count_before = len(found)
        size += len(exchange.answer.result) if exchange.answer and isinstance(exchange.answer.result, msgspec.Raw) else 0
        seen += len(entries)
        for entry in entries:
            flaw = kind.find_flaw(entry)
            if flaw:
                left_out[f"{kind.member} {str(entry.get(kind.key))[:NAME_MAX]}", flaw] = None
            else:
                found.setdefault(entry[kind.key], entry)
        stands_still = cursor in cursors and len(found) == count_before
        if seen > 2 * ITEMS_MAX or len(found) > ITEMS_MAX or size > SIZE_MAX or len(cursor) > CURSOR_MAX or stands_still:
            break
        if not cursor:
            return list(found.values())
        cursors.add(cursor)
        params = {"cursor": cursor}
    if kind.may_be_cut:
        return list(found.values())[:ITEMS_MAX]
    raise UpstreamFault(f"The server's list of {kind.member} is too long", f"{seen} {kind.member}, {size} bytes, {len(cursors)} pages")


def _is_not_offered(exchange: Exchange, kind: _ListKind) -> bool:
    answer = exchange.answer
    if answer is None:
        return kind.member != "tools" and exchange.status in (400, 404, 405, 501)
    if isinstance(answer.result, msgspec.Raw):  # a server may answer any method with another result
        return kind.member != "tools" and f'"{kind.member}"'.encode() not in bytes(answer.result)
    if not isinstance(answer.error, WireError):
        return False
    return answer.error.code == -32601 or (kind.member != "tools" and answer.error.code in NOT_OFFERED_CODES)


def _read_page(exchange: Exchange, kind: _ListKind) -> tuple[list[Definition], str]:
    """The entries of one page, and the cursor of the next or the empty string. Raises UpstreamFault."""
    missing = f"The server does not list its {kind.member}"
    if exchange.status in (401, 403):
        raise Challenged(exchange.status, exchange.headers.get("www-authenticate", ""))
    if exchange.answer is None:
        raise UpstreamFault(missing, f"status {exchange.status}")
    if isinstance(exchange.answer.error, WireError):
        raise UpstreamFault(missing, f"code {exchange.answer.error.code}")
    try:
        result = strict_json.parse(bytes(exchange.answer.result or b""))
        entries = msgspec.convert(result.get(kind.member) if isinstance(result, dict) else None, list[Definition])
        cursor = msgspec.convert(result.get("nextCursor"), str | None)
    except (msgspec.MsgspecError, strict_json.BadJson) as error:
        raise UpstreamFault(f"The server's list of {kind.member} is not valid", str(error)[:200]) from None
    return entries, cursor or ""


def tool_flaw(tool: Mapping[str, Any]) -> str:
    """Why a tool can't be called; empty if it can. A tool with invalid `x-mcp-header` marks is dropped (2026-07-28)."""
    schema = tool.get("inputSchema")
    if flaw := _name_flaw(tool):
        return flaw
    if not isinstance(schema, dict):
        return "it has no inputSchema"
    marks = list(_header_marks(schema, True))
    plain = all(isinstance(mark, str) and _HEADER_TOKEN.fullmatch(mark) for mark in marks)
    return "" if plain and len({str(mark).lower() for mark in marks}) == len(marks) else "its x-mcp-header marks are not valid"


def _name_flaw(entry: Mapping[str, Any]) -> str:
    """Why a name is unusable; empty if it is usable. Letters of any script are allowed, invisible characters are not."""
    name = entry.get("name")
    if isinstance(name, str) and 0 < len(name) <= NAME_MAX and name.isprintable() and name == name.strip():
        return ""
    return f"its name is not 1 to {NAME_MAX} printable characters"


def _address_flaw(key: str) -> Callable[[Mapping[str, Any]], str]:
    """A function that returns why an entry is no valid resource or template: `key` must be a URI or template, and it needs a name."""

    def flaw(entry: Mapping[str, Any]) -> str:
        uri, name = entry.get(key), entry.get("name")
        if not (isinstance(uri, str) and 0 < len(uri) <= URI_MAX and uri.isprintable()):
            return f"its {key} is not 1 to {URI_MAX} printable characters"
        return "" if isinstance(name, str) else "it has no name"

    return flaw


def _header_marks(schema: Any, reachable: bool, top: bool = True) -> Iterator[Any]:
    """Yields every `x-mcp-header`; None for one that is not reachable by properties alone."""
    if isinstance(schema, list):
        for item in schema:
            yield from _header_marks(item, False, False)
    if not isinstance(schema, dict):
        return
    if "x-mcp-header" in schema:
        sound = reachable and not top and schema.get("type") in _SCALARS
        yield schema["x-mcp-header"] if sound else None
    for keyword, value in schema.items():
        if keyword == "properties" and isinstance(value, dict):
            for member in value.values():
                yield from _header_marks(member, reachable, False)
        elif keyword not in _DATA_KEYWORDS and keyword != "x-mcp-header":
            yield from _header_marks(value, False, False)


LISTS: Final = (
    _ListKind("tools/list", "tools", "name", tool_flaw),
    _ListKind("prompts/list", "prompts", "name", _name_flaw),
    _ListKind("resources/list", "resources", "uri", _address_flaw("uri"), may_be_cut=True),
    _ListKind("resources/templates/list", "resourceTemplates", "uriTemplate", _address_flaw("uriTemplate")),
)
