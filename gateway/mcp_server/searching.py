"""Search mode, for catalogues that are too big to be read: two tools, of which one finds the others and one calls them."""

import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qs

import msgspec
from msgspec import Raw

from adapters.mcp_wire import INVALID_PARAMS
from gateway.errors import UnknownTool
from gateway.mcp_server.asked import Asked
from gateway.mcp_server.modern import BadEnvelope
from gateway.mcp_server.offers import VIRTUAL, Offers
from gateway.mcp_server.tools import Tools

SEARCH, CALL = "search_tools", "call_tool"
LIMIT, LIMIT_MAX = 10, 50
QUERY_MAX = 1000
WANTED_MAX, WORD_MAX = 32, 64  # words of a query, and characters of one, that count
KEPT = 20_000  # definitions whose words are kept
WORDS = re.compile(r"[A-Z]?[a-z]+|[A-Z](?:[A-Z](?![a-z]))*|[0-9]+|[^\W\d_A-Za-z]+")
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

    def answer(self, asked: Asked, arguments: dict[str, Any]) -> bytes:
        """The result of search_tools. Raises BadEnvelope and UnknownName."""
        query, limit = arguments.get("query"), arguments.get("limit", LIMIT)
        if not isinstance(query, str) or len(query) > QUERY_MAX or arguments.keys() - {"query", "limit"}:
            raise BadEnvelope(INVALID_PARAMS, f"search_tools takes query (at most {QUERY_MAX} characters) and limit, and nothing else")
        if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= LIMIT_MAX:
            raise BadEnvelope(INVALID_PARAMS, f"limit must be an integer from 1 to {LIMIT_MAX}")
        found = ranked(self._tools.listed(asked.caller, asked.server), query)
        structured = encode({"tools": found[:limit], "total": len(found)})
        result = {"content": [{"type": "text", "text": structured.decode()}], "structuredContent": Raw(structured)}
        return encode({"resultType": "complete", **result} if asked.modern else result)


def ranked(definitions: Sequence[Raw], query: str) -> list[Raw]:
    """Those that have any word of the query, the best first; all of them, in their order, for none."""
    wanted = list(dict.fromkeys(_words(query)))[:WANTED_MAX]
    if not wanted:
        return list(definitions)
    scored = ((sum(_score(word, bytes(each)) for word in wanted), index) for index, each in enumerate(definitions))
    return [definitions[index] for score, index in sorted(((-score, index) for score, index in scored if score))]


def _score(word: str, definition: bytes) -> int:
    """A name counts most, an argument least; a word that only begins alike counts half."""
    total = 0
    for weight, words, in_order in _terms(definition):
        if word in words:
            total += 2 * weight
        elif len(word) > 2 and (_begins(word, in_order) or any(word[:size] in words for size in range(4, len(word)))):
            total += weight
    return total


def _begins(word: str, in_order: Sequence[str]) -> bool:
    """Whether any of them begins with the word."""
    place = bisect_left(in_order, word)
    return place < len(in_order) and in_order[place].startswith(word)


@lru_cache(maxsize=KEPT)
def _terms(definition: bytes) -> tuple[tuple[int, frozenset[str], Sequence[str]], ...]:
    """The words of a definition by what they weigh; also in their order."""
    tool = msgspec.json.decode(definition)
    schema = tool.get("inputSchema")
    properties = schema.get("properties") if isinstance(schema, dict) else None
    arguments = " ".join(properties) if isinstance(properties, dict) else ""
    texts = ((8, str(tool["name"])), (5, str(tool.get("title", ""))), (3, str(tool.get("description", ""))), (1, arguments))
    found = ((weight, frozenset(_words(text))) for weight, text in texts)
    return tuple((weight, words, sorted(words)) for weight, words in found)


def _words(text: str) -> Iterator[str]:
    return (found[0][:WORD_MAX].lower() for found in WORDS.finditer(text))
