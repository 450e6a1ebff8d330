"""What an MCP server lists: its tools, prompts, resources and templates, all pages within bounds, without what can't be used."""

import re
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from adapters.contract import Challenged, UpstreamFault
from adapters.mcp_http import Exchange
from adapters.mcp_wire import WireError
from policies import strict_json

PAGES_MAX: Final = 50
ITEMS_MAX: Final = 2000  # of one list
SIZE_MAX: Final = 16 << 20  # bytes of one list
CURSOR_MAX: Final = 4096
URI_MAX: Final = 2048
NOT_OFFERED: Final = frozenset({-32600, -32601, -32602})  # what servers answer to a method that they do not have
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}")
_NAME: Final = re.compile(r"[ -~]{1,128}")
_SCALARS: Final = ("string", "integer", "boolean")  # compared, never hashed: a stranger's `type` may be a list
_DATA: Final = frozenset({"default", "examples", "const", "enum"})

Definition = dict[str, Any]
ListPage = Callable[[str, dict[str, Any]], Awaitable[Exchange]]  # method, params


@dataclass(frozen=True, slots=True)
class Listed:
    """Entries of the four lists, verbatim, without those that can't be used safely."""

    tools: list[Definition]
    prompts: list[Definition] = field(default_factory=list)
    resources: list[Definition] = field(default_factory=list)
    templates: list[Definition] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _List:
    """One of the lists: `member` of the result has its entries, each with a `key` of its own. `open_ended`: its rest may be left out."""

    method: str
    member: str
    key: str
    usable: Callable[[Mapping[str, Any]], bool]
    open_ended: bool = False


async def list_all(page: ListPage) -> Listed:
    """Every list that the server has. Raises UpstreamFault."""
    return Listed(*[await _whole(page, each) for each in LISTS])


async def _whole(page: ListPage, wanted: _List) -> list[Definition]:
    """All pages of one list. A server without this list has nothing in it."""
    found: dict[str, Definition] = {}
    params: dict[str, Any] = {}
    size = 0
    for _ in range(PAGES_MAX):
        exchange = await page(wanted.method, params)
        if not params and _not_offered(exchange, wanted):
            return []
        entries, cursor = _page(exchange, wanted)
        size += len(exchange.answer.result) if exchange.answer and isinstance(exchange.answer.result, msgspec.Raw) else 0
        for entry in entries:
            found.setdefault(entry[wanted.key], entry)
        if len(found) > ITEMS_MAX or size > SIZE_MAX or (cursor and len(cursor) > CURSOR_MAX):
            break
        if not cursor:
            return list(found.values())
        params = {"cursor": cursor}
    if wanted.open_ended:
        return list(found.values())[:ITEMS_MAX]
    raise UpstreamFault(f"The server's list of {wanted.member} is too long", f"{len(found)} {wanted.member}, {size} bytes")


def _not_offered(exchange: Exchange, wanted: _List) -> bool:
    answer = exchange.answer
    if answer is None:
        return wanted.member != "tools" and exchange.status in (400, 404, 405, 501)
    if isinstance(answer.result, msgspec.Raw):  # a server that answers whatever it is asked, with something else
        return wanted.member != "tools" and f'"{wanted.member}"'.encode() not in bytes(answer.result)
    if not isinstance(answer.error, WireError):
        return False
    return answer.error.code == -32601 or (wanted.member != "tools" and answer.error.code in NOT_OFFERED)


def _page(exchange: Exchange, wanted: _List) -> tuple[list[Definition], str]:
    """The usable entries of one page, and the cursor of the next or nothing. Raises UpstreamFault."""
    missing = f"The server does not list its {wanted.member}"
    if exchange.status in (401, 403):
        raise Challenged(exchange.status, exchange.headers.get("www-authenticate", ""))
    if exchange.answer is None:
        raise UpstreamFault(missing, f"status {exchange.status}")
    if isinstance(exchange.answer.error, WireError):
        raise UpstreamFault(missing, f"code {exchange.answer.error.code}")
    try:
        result = strict_json.parse(bytes(exchange.answer.result or b""))
        entries = msgspec.convert(result.get(wanted.member) if isinstance(result, dict) else None, list[Definition])
        cursor = msgspec.convert(result.get("nextCursor"), str | None)
    except (msgspec.MsgspecError, strict_json.BadJson) as error:
        raise UpstreamFault(f"The server's list of {wanted.member} is not valid", str(error)[:200]) from None
    return [entry for entry in entries if wanted.usable(entry)], cursor or ""


def callable_tool(tool: Mapping[str, Any]) -> bool:
    """Whether a definition has a plain name and a schema whose `x-mcp-header` marks are sound (2026-07-28: drop it otherwise)."""
    schema = tool.get("inputSchema")
    if not _named(tool) or not isinstance(schema, dict):
        return False
    marks = list(_marks(schema, True))
    return all(isinstance(mark, str) and _TOKEN.fullmatch(mark) for mark in marks) and len({str(m).lower() for m in marks}) == len(marks)


def _named(entry: Mapping[str, Any]) -> bool:
    name = entry.get("name")
    return isinstance(name, str) and _NAME.fullmatch(name) is not None


def _addressed(key: str) -> Callable[[Mapping[str, Any]], bool]:
    """Whether `key` is a URI or a template of one, and there is a name for people."""

    def usable(entry: Mapping[str, Any]) -> bool:
        uri, name = entry.get(key), entry.get("name")
        return isinstance(uri, str) and 0 < len(uri) <= URI_MAX and uri.isprintable() and isinstance(name, str)

    return usable


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


LISTS: Final = (
    _List("tools/list", "tools", "name", callable_tool),
    _List("prompts/list", "prompts", "name", _named),
    _List("resources/list", "resources", "uri", _addressed("uri"), open_ended=True),
    _List("resources/templates/list", "resourceTemplates", "uriTemplate", _addressed("uriTemplate")),
)
