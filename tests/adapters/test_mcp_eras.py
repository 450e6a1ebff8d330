"""Claims about eras: a server is spoken to in the one that it knows, of both in the client's, and what it is is found out seldom."""

import json
from dataclasses import replace
from typing import Any

from starlette.responses import JSONResponse, Response

from adapters.mcp_pool import McpPool
from tests.adapters.test_mcp_pool import call_of, egress, fault_of, pool, request_of, text
from tests.fakes.mcp_servers import mcp_server, scripted_server

__all__ = ["egress", "pool"]


async def test_a_server_of_both_eras_is_spoken_to_in_each_clients(pool: McpPool) -> None:
    async with mcp_server("both") as (url, gate):
        found = await pool.probe(url, {})
        assert (found.era, found.older, gate.count("DELETE")) == ("modern", "2025-11-25", 1)
        gate.sessions.clear()
        await pool.call(call_of(url, found.facts), request_of("note", text="stateless"))
        assert not gate.sessions
        for number in ("1", "2"):
            answer = await pool.call(call_of(url, found.facts), replace(request_of("note", False, text=number), session="s-1"))
        assert json.loads(answer.result)["structuredContent"]["result"] == ["1", "2"]  # both in one session
        assert len(gate.sessions) == 1


async def test_a_server_that_gave_up_the_handshake_is_spoken_to_without(pool: McpPool) -> None:
    async with mcp_server("modern") as (url, gate):
        for _ in range(2):
            older = replace(request_of("echo", False, text="hi"), session="s-1")
            assert text((await pool.call(call_of(url, {"era": "modern", "older": "2025-11-25"}), older)).result) == "hi"
        before = len(gate.requests)
        await pool.call(call_of(url, {"era": "modern", "older": "2025-11-25"}), older)
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
