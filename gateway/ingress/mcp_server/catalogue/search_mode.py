"""Search mode, for catalogues that are too big to be read: two tools, of which one finds the others and one calls them."""

import asyncio
from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qs

import msgspec
from msgspec import Raw

from adapters.mcp_client.wire.messages import INVALID_PARAMS
from gateway.ingress.http.errors import UnknownTool
from gateway.ingress.mcp_server.catalogue.tools import Tools
from gateway.ingress.mcp_server.catalogue.visible import VIRTUAL, Offers
from gateway.ingress.mcp_server.protocol.message import Asked
from gateway.ingress.mcp_server.protocol.modern import BadEnvelope
from gateway.ingress.mcp_server.search.ranking import Described, Ranking

SEARCH, CALL = "search_tools", "call_tool"
LIMIT, LIMIT_MAX = 10, 50
QUERY_MAX = 1000
KEPT = 100_000  # tools of all indexes that are kept; the index that was not used for longest leaves first
encode = msgspec.json.Encoder().encode
DEFINITIONS = [
    {
        "name": SEARCH,
        "title": "Search tools",
        "description": "Finds tools by what they are for. Use it before call_tool; each result says which arguments the tool takes.",
        "inputSchema": {
            "type": "object",
            "properties": {
                "query": {"type": "string", "description": "Words for what is to be done; empty: all tools in their order."},
                "limit": {"type": "integer", "minimum": 1, "maximum": LIMIT_MAX, "default": LIMIT},
            },
            "required": ["query"],
            "additionalProperties": False,
        },
        "outputSchema": {
            "type": "object",
            "properties": {"tools": {"type": "array", "items": {"type": "object"}}, "total": {"type": "integer"}},
            "required": ["tools", "total"],
        },
        "annotations": {"readOnlyHint": True},
    },
    {
        "name": CALL,
        "title": "Call a tool",
        "description": "Calls a tool that search_tools found, by its name, with the arguments that its inputSchema asks for.",
        "inputSchema": {
            "type": "object",
            "properties": {"name": {"type": "string"}, "arguments": {"type": "object"}},
            "required": ["name"],
            "additionalProperties": False,
        },
    },
]
LISTED = tuple(Raw(encode(definition)) for definition in DEFINITIONS)


class Searching:
    """Of the tools that a caller may call, and no others."""

    def __init__(self, offers: Offers, tools: Tools) -> None:
        self._offers = offers
        self._tools = tools
        self._indexes = Indexes()

    def applies(self, asked: Asked) -> bool:
        """Whether the client asked for it (`?mode=search`), or the virtual server is made so. Raises UnknownName."""
        if asked.server.startswith(VIRTUAL) and self._offers.selection(asked.caller, asked.server).search:
            return True
        query = asked.scope.get("query_string", b"")
        return bool(query) and parse_qs(query.decode("latin-1")).get("mode") == ["search"]

    def listed(self, asked: Asked) -> Sequence[Raw]:
        """Raises UnknownName."""
        self._tools.check(asked.caller, asked.server)
        return LISTED

    def meant(self, asked: Asked) -> Asked:
        """The call that call_tool stands for. Raises UnknownTool and BadEnvelope."""
        params = asked.object()
        arguments = params.get("arguments", {})
        if params.get("name") != CALL:
            raise UnknownTool
        inner, given = arguments.get("name"), arguments.get("arguments", {})
        if not isinstance(inner, str) or not isinstance(given, dict) or arguments.keys() - {"name", "arguments"}:
            raise BadEnvelope(INVALID_PARAMS, "call_tool takes name (text) and arguments (an object), and nothing else")
        changed = {**params, "name": inner, "arguments": given}
        raw = encode({**msgspec.json.decode(asked.raw, type=dict[str, Raw]), "params": changed})
        return msgspec.structs.replace(asked, params=changed, raw=raw, found=True)

    async def answer(self, asked: Asked, arguments: dict[str, Any]) -> bytes:
        """The result of search_tools. Raises BadEnvelope and UnknownName."""
        query, limit = arguments.get("query"), arguments.get("limit", LIMIT)
        if not isinstance(query, str) or len(query) > QUERY_MAX or arguments.keys() - {"query", "limit"}:
            raise BadEnvelope(INVALID_PARAMS, f"search_tools takes query (at most {QUERY_MAX} characters) and limit, and nothing else")
        if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= LIMIT_MAX:
            raise BadEnvelope(INVALID_PARAMS, f"limit must be an integer from 1 to {LIMIT_MAX}")
        listed = await self._tools.list(asked.caller, asked.server)
        found, total = await self._indexes.best(listed, query, limit) if query.strip() else (list(listed[:limit]), len(listed))
        structured = encode({"tools": found, "total": total})
        result = {"content": [{"type": "text", "text": structured.decode()}], "structuredContent": Raw(structured)}
        return encode({"resultType": "complete", **result} if asked.modern else result)


class Indexes:
    """Indexes over lists of definitions. Callers who may call the same tools share one. All work is done in a thread."""

    def __init__(self) -> None:
        self._kept: dict[int, tuple[Sequence[Raw], asyncio.Task[Ranking]]] = {}  # the least recently used first

    async def best(self, listed: Sequence[Raw], query: str, limit: int) -> tuple[list[Raw], int]:
        """The definitions that fit, the best first, and how many have any of the words."""
        ranking = await asyncio.shield(self._index(listed))
        numbers, total = await asyncio.to_thread(ranking.best, query, limit)
        return [listed[number] for number in numbers], total

    def _index(self, listed: Sequence[Raw]) -> asyncio.Task[Ranking]:
        """Definitions are told apart by identity: a list that is kept keeps them, so none takes another's place."""
        key = hash(tuple(map(id, listed)))
        kept = self._kept.pop(key, None)
        if kept is None or not _same(kept[0], listed) or _failed(kept[1]):
            kept = (listed, asyncio.create_task(asyncio.to_thread(ranking_of, listed)))
        self._kept[key] = kept
        while len(self._kept) > 1 and sum(len(each) for each, _ in self._kept.values()) > KEPT:
            del self._kept[next(iter(self._kept))]
        return kept[1]


def ranking_of(definitions: Sequence[Raw]) -> Ranking:
    return Ranking([_described(msgspec.json.decode(each)) for each in definitions])


def _described(tool: dict[str, Any]) -> Described:
    schema = tool.get("inputSchema")
    properties = schema.get("properties") if isinstance(schema, dict) else None
    arguments = tuple(properties) if isinstance(properties, dict) else ()
    return Described(str(tool["name"]), str(tool.get("title", "")), str(tool.get("description", "")), arguments)


def _same(before: Sequence[Raw], now: Sequence[Raw]) -> bool:
    return before is now or (len(before) == len(now) and all(one is other for one, other in zip(before, now, strict=True)))


def _failed(made: asyncio.Task[Ranking]) -> bool:
    return made.done() and (made.cancelled() or made.exception() is not None)
