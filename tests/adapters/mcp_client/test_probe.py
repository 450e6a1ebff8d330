"""Claims about looking at a strange MCP server: the era needs proof, lists have an end, and bad tools are left out."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from starlette.responses import JSONResponse, Response

from adapters.contract import UpstreamFault
from adapters.mcp_client.lists import tool_flaw
from adapters.mcp_client.pool import McpPool
from adapters.upstream.egress import Egress
from tests.fakes.mcp_servers import scripted_server
from tests.fakes.timeouts import LONG_TIMEOUTS

SCHEMA = {"type": "object", "properties": {"text": {"type": "string"}}}
DISCOVERED = {"supportedVersions": ["2026-07-28"], "capabilities": {}, "resultType": "complete"}
INITIALIZED = {"protocolVersion": "2025-06-18", "capabilities": {}, "serverInfo": {"name": "x", "version": "1"}}


@pytest.fixture
async def pool() -> AsyncIterator[McpPool]:
    egress = Egress(["127.0.0.1"])
    yield McpPool(egress, asyncio.get_running_loop().time, initialize_seconds=LONG_TIMEOUTS.initialize_probe)
    await egress.close()


class Server:
    """Answers each method with what it was told: a result, or (status, error)."""

    def __init__(self, **answers: Any) -> None:
        self.answers = {name.replace("_", "/"): answer for name, answer in answers.items()}
        self.asked: list[str] = []
        self.pages = 0

    async def __call__(self, request: dict[str, Any]) -> Response:
        method = request.get("method", "")
        self.asked.append(method)
        if "id" not in request:
            return Response("", 202)
        found = self.answers.get(method, (404, -32601))
        if callable(found):
            found = found(self)
        if isinstance(found, tuple):
            error: dict[str, Any] = {"code": found[1], "message": "no", "data": found[2] if len(found) > 2 else None}
            return JSONResponse({"jsonrpc": "2.0", "id": request["id"], "error": error}, found[0])
        if isinstance(found, Response):
            return found
        return JSONResponse({"jsonrpc": "2.0", "id": request["id"], "result": found})


@pytest.mark.parametrize(
    "discover",
    [
        (400, -32600),
        (200, -32601),
        (404, -32601),
        (400, -32022, {"supported": ["2025-11-25"]}),
        {"supportedVersions": ["2025-11-25"]},
        {"hello": 1},
        lambda _: Response("<html>", 200),
        lambda _: Response("", 405),
    ],
)
async def test_without_proof_of_the_modern_era_the_handshake_is_tried(pool: McpPool, discover: Any) -> None:
    server = Server(server_discover=discover, initialize=INITIALIZED, tools_list={"tools": []})
    async with scripted_server(server) as url:
        found = await pool.probe(url, {})
    assert (found.era, found.protocol_version) == ("legacy", "2025-06-18")


@pytest.mark.parametrize("discover", [DISCOVERED, (400, -32020), (400, -32021), (400, -32022, {"supported": ["2026-07-28"]})])
async def test_a_modern_answer_is_proof_even_when_it_is_an_error(pool: McpPool, discover: Any) -> None:
    server = Server(server_discover=discover, tools_list={"tools": [{"name": "a", "inputSchema": SCHEMA}]})
    async with scripted_server(server) as url:
        assert (await pool.probe(url, {})).era == "modern"
    assert "initialize" not in server.asked


@pytest.mark.parametrize(
    ("discover", "initialize"),
    [
        ((400, -32022, {"supported": ["2030-01-01"]}), INITIALIZED),
        (lambda _: Response("", 503), INITIALIZED),
        (lambda _: Response("", 401), INITIALIZED),
        ((404, -32601), (404, -32601)),
        ((404, -32601), {**INITIALIZED, "protocolVersion": "1999-01-01"}),
        ((404, -32601), {"protocolVersion": 7}),
        ((404, -32601), (500, -32603)),
    ],
)
async def test_a_server_that_cannot_be_spoken_to_is_a_fault(pool: McpPool, discover: Any, initialize: Any) -> None:
    async with scripted_server(Server(server_discover=discover, initialize=initialize, tools_list={"tools": []})) as url:
        with pytest.raises(UpstreamFault):
            await pool.probe(url, {})


async def test_all_pages_are_read_and_a_name_counts_once(pool: McpPool) -> None:
    def page(server: Server) -> dict[str, Any]:
        server.pages += 1
        tools = [{"name": f"t{server.pages}", "inputSchema": SCHEMA}, {"name": "t1", "inputSchema": SCHEMA, "later": True}]
        return {"tools": tools, **({"nextCursor": "x"} if server.pages < 3 else {})}

    async with scripted_server(Server(server_discover=DISCOVERED, tools_list=page)) as url:
        found = await pool.probe(url, {})
    assert found.tools == [{"name": f"t{number}", "inputSchema": SCHEMA} for number in (1, 2, 3)]


async def test_a_list_without_end_is_refused(pool: McpPool) -> None:
    def page(server: Server) -> dict[str, Any]:
        server.pages += 1
        return {"tools": [], "nextCursor": "again"}

    endless = Server(server_discover=DISCOVERED, tools_list=page)
    async with scripted_server(endless) as url:
        with pytest.raises(UpstreamFault, match="too long"):
            await pool.probe(url, {})
    assert endless.pages == 2  # the cursor was the same
    deep: dict[str, Any] = {}
    for _ in range(900):
        deep = {"items": deep}
    many = {"tools": [{"name": f"t{number}", "inputSchema": {}} for number in range(2001)]}
    for listed in (
        many,
        {"tools": [], "nextCursor": "x" * 5000},
        {"tools": "none"},
        {"tools": [1]},
        {"tools": [{"name": "a", "inputSchema": deep}]},
    ):
        async with scripted_server(Server(server_discover=DISCOVERED, tools_list=listed)) as url:
            with pytest.raises(UpstreamFault, match=r"too long|not valid"):
                await pool.probe(url, {})


async def test_a_list_of_small_pages_is_read_to_its_end(pool: McpPool) -> None:
    names = [f"t{number}" for number in range(1033)]

    def page(server: Server) -> dict[str, Any]:
        server.pages += 1
        shown = names[10 * (server.pages - 1) : 10 * server.pages]
        more = {"nextCursor": f"after {shown[-1]}"} if shown[-1] != names[-1] else {}
        return {"tools": [{"name": name, "inputSchema": SCHEMA} for name in shown], **more}

    async with scripted_server(Server(server_discover=DISCOVERED, tools_list=page)) as url:
        assert [tool["name"] for tool in (await pool.probe(url, {})).tools] == names


async def test_names_of_all_scripts_are_names_and_what_is_left_out_says_why(pool: McpPool) -> None:
    names = ["größe", "在庫を調べる", "a b", "x" * 128]
    bad = ["", "x" * 129, "a\u200bb", "a\u202eb", " a", "a\n"]
    tools = [{"name": name, "inputSchema": SCHEMA} for name in (*names, *bad)] + [{"name": "odd"}]
    resources = [{"uri": "note://a", "name": "a"}, {"uri": "note://b"}]
    server = Server(server_discover=DISCOVERED, tools_list={"tools": tools}, resources_list={"resources": resources})
    async with scripted_server(server) as url:
        found = await pool.probe(url, {})
    assert [tool["name"] for tool in found.tools] == names
    reasons = dict(found.left_out)
    assert reasons.pop("tools odd") == "it has no inputSchema" and reasons.pop("resources note://b") == "it has no name"
    assert set(reasons.values()) == {"its name is not 1 to 128 printable characters"} and len(reasons) == len(bad)


@pytest.mark.parametrize("era", ["modern", "legacy"])
async def test_tools_for_clients_that_can_do_more_are_found(pool: McpPool, era: str) -> None:
    declared: dict[str, Any] = {}

    async def answer(request: dict[str, Any]) -> Response:
        params = request.get("params", {})
        if request.get("method") == "initialize":
            declared.update(params["capabilities"])
        capabilities = params.get("_meta", {}).get("io.modelcontextprotocol/clientCapabilities", declared)
        tools = [{"name": name, "inputSchema": SCHEMA} for name in ("roots", "sampling", "elicitation") if name in capabilities]
        answers = {"initialize": INITIALIZED, "tools_list": {"tools": tools}}
        return await Server(**answers, **({"server_discover": DISCOVERED} if era == "modern" else {}))(request)

    async with scripted_server(answer) as url:
        found = await pool.probe(url, {})
    assert found.era == era and [tool["name"] for tool in found.tools] == ["roots", "sampling", "elicitation"]


@pytest.mark.parametrize("initialize", [False, True])
async def test_the_operator_may_say_that_a_server_is_spoken_to_in_the_initialize_era(pool: McpPool, initialize: bool) -> None:
    said = {"instructions": "Use a before b."}
    answers = {"server_discover": {**DISCOVERED, **said}, "initialize": {**INITIALIZED, **said}, "tools_list": {"tools": []}}
    server = Server(**answers)
    async with scripted_server(server) as url:
        found = await pool.probe(url, {}, initialize=initialize)
    assert (found.era, "server/discover" in server.asked) == (("legacy", False) if initialize else ("modern", True))
    assert found.instructions == "Use a before b." and found.facts["instructions"] == "Use a before b."


async def test_a_server_without_tools_has_none(pool: McpPool) -> None:
    async with scripted_server(Server(server_discover=DISCOVERED)) as url:
        assert (await pool.probe(url, {})).tools == []


def marked(mark: Any, kind: Any = "string") -> dict[str, Any]:
    return {"type": kind, "x-mcp-header": mark}


@pytest.mark.parametrize(
    ("tool", "kept"),
    [
        ({"name": "a", "inputSchema": SCHEMA}, True),
        (
            {"name": "a", "inputSchema": {"properties": {"r": marked("Region"), "o": {"properties": {"p": marked("Zone", "integer")}}}}},
            True,
        ),
        ({"name": "a", "inputSchema": {"properties": {"x-mcp-header": {"type": "string"}}}}, True),
        ({"name": "a", "inputSchema": {"properties": {"r": {"default": {"x-mcp-header": "\n"}}}}}, True),
        ({"name": "a", "inputSchema": {"properties": {"r": marked("Region"), "s": marked("region")}}}, False),
        ({"name": "a", "inputSchema": {"properties": {"r": marked("a b\r\n")}}}, False),
        ({"name": "a", "inputSchema": {"properties": {"r": marked("R", "number")}}}, False),
        ({"name": "a", "inputSchema": {"properties": {"r": marked("R", ["string", "null"])}}}, False),
        ({"name": "a", "inputSchema": {"properties": {"r": marked("R", {})}}}, False),
        ({"name": "a", "inputSchema": {"properties": {"r": marked(7)}}}, False),
        ({"name": "a", "inputSchema": {"items": marked("R")}}, False),
        ({"name": "a", "inputSchema": {"anyOf": [{"properties": {"r": marked("R")}}]}}, False),
        ({"name": "a"}, False),
        ({"name": "", "inputSchema": {}}, False),
        ({"name": "a\nb", "inputSchema": {}}, False),
        ({"name": 1, "inputSchema": {}}, False),
    ],
)
def test_only_tools_that_can_be_called_safely_are_kept(tool: dict[str, Any], kept: bool) -> None:
    assert (not tool_flaw(tool)) == kept


async def test_an_address_that_is_no_mcp_server_is_asked_about(pool: McpPool) -> None:
    async with scripted_server(Server(server_discover=(404, -32601), initialize=(200, -32601))) as url:
        with pytest.raises(UpstreamFault, match="is this its address") as failed:
            await pool.probe(url, {})
    assert "status 200, code -32601" in failed.value.detail
