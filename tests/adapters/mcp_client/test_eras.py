"""Claims about eras: a server is spoken to in the one that it knows, of both in the client's, and what it is is found out seldom."""

import asyncio
import json
from typing import Any

import pytest
from msgspec.structs import replace
from starlette.responses import JSONResponse, Response

from adapters.mcp_client.pool import McpPool
from adapters.mcp_client.wire.messages import McpRequest
from adapters.upstream.egress import Egress
from tests.adapters.mcp_client.test_pool import call_of, egress, fault_of, pool, request_of, text
from tests.fakes.mcp_servers import mcp_server, scripted_server
from tests.fakes.timeouts import LONG_TIMEOUTS

__all__ = ["egress", "pool"]


def in_session(name: str, **arguments: Any) -> McpRequest:
    return replace(request_of(name, False, **arguments), client_session="s-1")


async def test_a_server_of_both_eras_is_spoken_to_in_each_clients(pool: McpPool) -> None:
    async with mcp_server("both") as (url, gate):
        assert (await pool.probe(url, {})).era == "modern"
        for front in (True, False):
            await pool.call(call_of(url, "modern"), request_of("note", front, text="stateless"))
        assert not gate.sessions
        for number in ("1", "2"):
            answer = await pool.call(call_of(url, "modern"), in_session("note", text=number))
        assert json.loads(answer.result)["structuredContent"]["result"] == ["1", "2"]  # both in one session
        assert len(gate.sessions) == 2 and gate.count("DELETE") == 1  # the other one was opened to see whether it can be


async def test_a_modern_server_is_asked_for_the_handshake_once(pool: McpPool) -> None:
    async with mcp_server("modern") as (url, gate):
        for number in range(3):
            assert text((await pool.call(call_of(url, "modern"), in_session("echo", text="hi"))).result) == "hi"
            assert len(gate.requests) == number + 2


@pytest.mark.parametrize(("initialize", "times"), [((200, -32602), 2), ((500, -32603), 2), ((400, -32600), 1), ((200, -32601), 1)])
async def test_a_doubtful_answer_to_the_handshake_is_believed_for_a_minute(egress: Egress, initialize: tuple[int, int], times: int) -> None:
    asked: list[str] = []

    async def answer(request: dict[str, Any]) -> Response:
        asked.append(request["method"])
        if request["method"] == "initialize":
            status, code = initialize
            return JSONResponse({"jsonrpc": "2.0", "id": request["id"], "error": {"code": code, "message": "no"}}, status)
        return JSONResponse({"jsonrpc": "2.0", "id": request["id"], "result": {"content": [], "resultType": "complete"}})

    ahead = [0.0]
    loop = asyncio.get_running_loop()
    pool = McpPool(egress, lambda: loop.time() + ahead[0], initialize_seconds=LONG_TIMEOUTS.initialize_probe)
    async with scripted_server(answer) as url:
        for later in (0.0, 0.0, 100.0):
            ahead[0] = later
            await pool.call(call_of(url, "modern", seconds=later + 10), in_session("echo", text="hi"))
    assert (asked.count("initialize"), asked.count("tools/call")) == (times, 3)
    await pool.close()


async def test_a_server_that_gave_up_the_handshake_is_spoken_to_without(pool: McpPool) -> None:
    async with mcp_server("both") as (url, gate):
        await pool.call(call_of(url, "modern"), in_session("echo", text="hi"))
        gate.era = "modern"
        await pool.close_client_session("acme|https://idp|alice", "s-1")
        for _ in range(2):
            assert text((await pool.call(call_of(url, "modern"), in_session("echo", text="hi"))).result) == "hi"
        before = len(gate.requests)
        await pool.call(call_of(url, "modern"), in_session("echo", text="hi"))
        assert len(gate.requests) == before + 1


async def test_a_server_that_changed_its_era_is_asked_again_once(pool: McpPool) -> None:
    async with mcp_server("legacy") as (url, gate):
        assert text((await pool.call(call_of(url, "modern"), request_of("echo", text="hi"))).result) == "hi"
        before = len(gate.requests)
        await pool.call(call_of(url, "modern"), request_of("echo", text="hi"))
        assert len(gate.requests) == before + 1
    async with mcp_server("modern") as (url, _):
        assert text((await pool.call(call_of(url, "legacy"), request_of("echo", text="hi"))).result) == "hi"


async def test_a_server_that_contradicts_itself_is_not_asked_for_every_call(pool: McpPool) -> None:
    asked: list[str] = []

    async def answer(request: dict[str, Any]) -> Response:
        asked.append(request["method"])
        if request["method"] == "tools/call":
            return Response("what?", 400)
        versions = {"supportedVersions": ["2026-07-28"], "capabilities": {}, "tools": []}
        return JSONResponse({"jsonrpc": "2.0", "id": request["id"], "result": versions})

    async with scripted_server(answer) as url:
        for _ in range(5):
            await fault_of(pool, url)
    assert asked.count("server/discover") == 1 and asked.count("tools/call") == 5
