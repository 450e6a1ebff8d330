"""Search mode for large catalogues: search_tools finds tools, and call_tool calls them."""

import asyncio
from collections.abc import Sequence
from operator import is_
from typing import Any

import msgspec
from msgspec import Raw

from adapters.mcp_client.wire.messages import INVALID_PARAMS
from gateway.calls.limits.slices import Slices
from gateway.ingress.http.errors import UnknownTool
from gateway.ingress.mcp_server.catalogue.tools import ToolCatalogue
from gateway.ingress.mcp_server.catalogue.visible import VisibleEntries
from gateway.ingress.mcp_server.protocol.message import VIRTUAL_PREFIX, ClientMessage, modes_in_query
from gateway.ingress.mcp_server.protocol.modern import BadEnvelope
from gateway.ingress.mcp_server.search.ranking import Ranking, ToolDocuments, ToolText

SEARCH_TOOL, CALL_TOOL = "search_tools", "call_tool"
DEFAULT_LIMIT, LIMIT_MAX = 10, 50
QUERY_MAX = 1000
INDEXED_TOOLS_MAX = 100_000  # tools in all cached indexes; the least recently used index is dropped first
encode = msgspec.json.Encoder().encode
DEFINITIONS = [
    {
        "name": SEARCH_TOOL,
        "title": "Search tools",
        "description": "Finds tools by their purpose. Use it before call_tool; each result has the arguments that the tool takes.",
        "inputSchema": {
            "type": "object",
            "properties": {
                "query": {"type": "string", "description": "Words that describe the task; empty: all tools in their order."},
                "limit": {"type": "integer", "minimum": 1, "maximum": LIMIT_MAX, "default": DEFAULT_LIMIT},
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
        "name": CALL_TOOL,
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
ENCODED_DEFINITIONS = tuple(Raw(encode(definition)) for definition in DEFINITIONS)


class SearchMode:
    """Searches and calls the tools that the caller may call."""

    def __init__(self, visible_entries: VisibleEntries, tools: ToolCatalogue) -> None:
        self._visible_entries = visible_entries
        self._tools = tools
        self._indexes = SearchIndexes()

    def is_on(self, message: ClientMessage) -> bool:
        """Returns whether the client requested search mode (`?mode=search`), or the virtual server has it. Raises UnknownName."""
        if (
            message.server_path.startswith(VIRTUAL_PREFIX)
            and self._visible_entries.find_selection(message.caller, message.server_path).search
        ):
            return True
        return modes_in_query(message.scope) == ["search"]

    def list_definitions(self, message: ClientMessage) -> Sequence[Raw]:
        """Returns the definitions of the two tools. Raises UnknownName."""
        self._tools.check_visible(message.caller, message.server_path)
        return ENCODED_DEFINITIONS

    def resolve_call_tool(self, message: ClientMessage) -> ClientMessage:
        """Returns the tools/call that a call of call_tool contains. Raises UnknownTool and BadEnvelope."""
        params = message.params_object()
        arguments = params.get("arguments", {})
        if params.get("name") != CALL_TOOL:
            raise UnknownTool
        inner, inner_arguments = arguments.get("name"), arguments.get("arguments", {})
        if not isinstance(inner, str) or not isinstance(inner_arguments, dict) or arguments.keys() - {"name", "arguments"}:
            raise BadEnvelope(INVALID_PARAMS, "call_tool takes name (string) and arguments (object), and nothing else")
        changed = {**params, "name": inner, "arguments": inner_arguments}
        raw = encode({**msgspec.json.decode(message.raw, type=dict[str, Raw]), "params": changed})
        return msgspec.structs.replace(message, params=changed, raw=raw, is_rewritten=True)

    async def search(self, message: ClientMessage, arguments: dict[str, Any]) -> bytes:
        """Returns the result of search_tools. Raises BadEnvelope and UnknownName."""
        query, limit = arguments.get("query"), arguments.get("limit", DEFAULT_LIMIT)
        if not isinstance(query, str) or len(query) > QUERY_MAX or arguments.keys() - {"query", "limit"}:
            raise BadEnvelope(INVALID_PARAMS, f"search_tools takes query (at most {QUERY_MAX} characters) and limit, and nothing else")
        if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= LIMIT_MAX:
            raise BadEnvelope(INVALID_PARAMS, f"limit must be an integer from 1 to {LIMIT_MAX}")
        listed = await self._tools.list_definitions(message.caller, message.server_path)
        found, total = await self._indexes.find_best(listed, query, limit) if query.strip() else (list(listed[:limit]), len(listed))
        structured = encode({"tools": found, "total": total})
        result = {"content": [{"type": "text", "text": structured.decode()}], "structuredContent": Raw(structured)}
        return encode({"resultType": "complete", **result} if message.is_modern else result)


class SearchIndexes:
    """Search indexes over lists of definitions. Callers with equal lists share one. They are built and queried in slices."""

    def __init__(self) -> None:
        self._cached: dict[int, tuple[Sequence[Raw], asyncio.Task[Ranking]]] = {}  # the least recently used first

    async def find_best(self, definitions: Sequence[Raw], query: str, limit: int) -> tuple[list[Raw], int]:
        """Returns the best `limit` definitions, best first, and how many definitions match any of the words."""
        ranking = await asyncio.shield(self._find_or_build(definitions))
        numbers, total = await ranking.find_best(query, limit)
        return [definitions[number] for number in numbers], total

    def _find_or_build(self, definitions: Sequence[Raw]) -> asyncio.Task[Ranking]:
        """Finds the index by the identity of the definitions. The cached list holds references to them, so no id is reused."""
        key = hash(tuple(map(id, definitions)))
        cached = self._cached.pop(key, None)
        if cached is None or not _is_same_list(cached[0], definitions) or _has_failed(cached[1]):
            cached = (definitions, asyncio.create_task(build_ranking(definitions)))
        self._cached[key] = definitions, cached[1]  # the same list is found at once the next time
        while len(self._cached) > 1 and sum(len(each) for each, _ in self._cached.values()) > INDEXED_TOOLS_MAX:
            del self._cached[next(iter(self._cached))]
        return cached[1]


async def build_ranking(definitions: Sequence[Raw]) -> Ranking:
    """Builds an index in slices: a thread that computes for a second would keep the event loop waiting for the interpreter's lock."""
    documents = ToolDocuments()
    async for definition in Slices(definitions):
        documents.add(_tool_text(msgspec.json.decode(definition)))
    return await asyncio.to_thread(Ranking, documents)


def _tool_text(tool: dict[str, Any]) -> ToolText:
    schema = tool.get("inputSchema")
    properties = schema.get("properties") if isinstance(schema, dict) else None
    arguments = tuple(properties) if isinstance(properties, dict) else ()
    return ToolText(str(tool["name"]), str(tool.get("title", "")), str(tool.get("description", "")), arguments)


def _is_same_list(cached: Sequence[Raw], current: Sequence[Raw]) -> bool:
    return cached is current or (len(cached) == len(current) and all(map(is_, cached, current)))


def _has_failed(index_task: asyncio.Task[Ranking]) -> bool:
    return index_task.done() and (index_task.cancelled() or index_task.exception() is not None)
