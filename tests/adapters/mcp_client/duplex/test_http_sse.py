"""Claims about the transport of 2024-11-05: found, called, asked and listened to like any other, and never led astray."""

import asyncio
import gc
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from mcp.server.mcpserver import MCPServer
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from adapters.contract import UpstreamFault
from adapters.mcp_client.duplex.channel import DuplexChannel
from adapters.mcp_client.duplex.http_sse import SseConnection, resolve_endpoint
from adapters.mcp_client.legacy.sessions import SessionKey
from adapters.mcp_client.pool import McpPool
from adapters.mcp_client.wire.messages import McpRefused
from adapters.mcp_client.wire.peer import ListenFilter
from tests.adapters.mcp_client.test_listening import TOOLS, UPDATED, listening
from tests.adapters.mcp_client.test_messages_during_calls import FRONTS, talk
from tests.adapters.mcp_client.test_pool import call_of, egress, fault_of, pool, request_of, text
from tests.fakes.mcp_servers import serving, tools
from tests.fakes.mcp_talkers import Talker
from tests.fakes.peers import ScriptedPeer

__all__ = ["egress", "pool"]


@asynccontextmanager
async def sse_server(server: MCPServer | None = None) -> AsyncIterator[str]:
    async with serving((server or tools()).sse_app(), grace=0) as url:
        yield f"{url}/sse"


async def test_a_server_of_the_oldest_transport_is_found_and_called(pool: McpPool) -> None:
    async with sse_server() as url:
        found = await pool.probe(url, {})
        assert (found.era, [tool["name"] for tool in found.tools]) == ("sse", ["echo", "note", "fail"])
        answers = await asyncio.gather(
            *(pool.call(call_of(url, "sse", user), request_of("echo", True, 1, text=f"{user} {n}")) for user in "ab" for n in range(5))
        )
        assert [text(answer.result) for answer in answers] == [f"{user} {n}" for user in "ab" for n in range(5)]
        assert json.loads(answers[0].result)["resultType"] == "complete"


async def test_a_registration_of_another_era_leads_there_too(pool: McpPool) -> None:
    async with sse_server() as url:
        assert text((await pool.call(call_of(url, "legacy"), request_of("echo", text="hi"))).result) == "hi"


@FRONTS
async def test_its_server_asks_and_tells_of_progress(pool: McpPool, front: bool) -> None:
    peer = ScriptedPeer()
    async with sse_server(Talker().server) as url:
        assert text((await pool.call(call_of(url, "sse"), talk("all_of_it", peer, front))).result) == "Ada 1 m-1"
        await pool.call(call_of(url, "sse"), talk("count", peer, front, {"progressToken": "t"}, to=2))
    assert [params["progress"] for method, params in peer.heard if method == "notifications/progress"] == [1, 2]


async def test_its_server_is_told_of_a_cancellation(pool: McpPool) -> None:
    talker = Talker()
    async with sse_server(talker.server) as url:
        under_way = asyncio.create_task(pool.call(call_of(url, "sse"), talk("slow", ScriptedPeer(), True)))
        await asyncio.wait_for(talker.started.wait(), 60)
        under_way.cancel()
        assert await asyncio.wait_for(talker.cancelled.wait(), 60)


async def test_its_changes_are_heard(pool: McpPool) -> None:
    wanted = ListenFilter(tools=True, uris=frozenset({"note://one"}))
    async with sse_server(Talker().server) as url, listening(pool, url, "sse", wanted) as listener:
        await pool.call(call_of(url, "sse"), talk("change", ScriptedPeer({}), True))
        await listener.until(lambda peer: UPDATED in peer.methods())
    assert set(listener.methods()) <= {TOOLS, UPDATED}


async def test_a_connection_that_ended_fails_what_is_under_way_and_is_opened_again(pool: McpPool) -> None:
    talker = Talker()
    async with sse_server(talker.server) as url:
        port = int(url.split(":")[2].split("/")[0])
        under_way = asyncio.create_task(fault_of_slow(pool, url))
        await asyncio.wait_for(talker.started.wait(), 60)
    assert (await under_way).public
    async with serving(tools().sse_app(), grace=0, port=port) as again:
        assert text((await pool.call(call_of(f"{again}/sse", "sse"), request_of("echo", text="back"))).result) == "back"


async def fault_of_slow(pool: McpPool, url: str) -> UpstreamFault | McpRefused:
    with pytest.raises((UpstreamFault, McpRefused)) as fault:  # this server still says goodbye
        await pool.call(call_of(url, "sse"), request_of("slow"))
    return fault.value


@pytest.mark.parametrize(
    "endpoint", ["http://evil.example/post", "//evil.example/post", "https://127.0.0.1/x", "http://user@{host}/x", "//[x"]
)
async def test_credentials_are_not_led_to_another_address(endpoint: str) -> None:  # attack EGR-01
    with pytest.raises(UpstreamFault):
        resolve_endpoint("http://127.0.0.1:8000/sse", endpoint.replace("{host}", "127.0.0.1:8000"))
    assert resolve_endpoint("http://127.0.0.1:8000/a/sse", "/messages?s=1") == "http://127.0.0.1:8000/messages?s=1"


async def test_an_endpoint_that_comes_when_nobody_waits_any_more_harms_nobody(pool: McpPool) -> None:
    line = SseConnection(pool._http, SessionKey("", "http://127.0.0.1:8000/sse", ""), {})
    duplex = DuplexChannel(line._send, has_one_client=True)
    line._channel_opened.cancel()  # as the time limit of whoever opens it does, at the moment when the endpoint arrives
    await line._receive_event(duplex, "endpoint", b"/post")
    assert line._channel_opened.cancelled() and line._endpoint == "http://127.0.0.1:8000/post"


@pytest.mark.parametrize(
    "lines",
    [
        [],
        ["data: {}\n\n"],
        ["event: endpoint\ndata: http://evil.example/\n\n"],
        ["event: endpoint\ndata: /post\n\n", "data: junk\n\n"],
    ],
)
async def test_a_lying_stream_is_a_fault(pool: McpPool, lines: list[str]) -> None:
    async def get(request: Request) -> Response:
        async def events() -> AsyncIterator[str]:
            for line in lines:
                yield line

        return StreamingResponse(events(), media_type="text/event-stream")

    async def post(request: Request) -> Response:
        return Response(status_code=202 if request.url.path == "/post" else 405)

    posts = [Route(path, post, methods=["POST"]) for path in ("/mcp", "/post")]
    app = Starlette(routes=[Route("/mcp", get, methods=["GET"]), *posts])
    async with serving(app, grace=0) as url:
        fault = await fault_of(pool, f"{url}/mcp", "sse", 2)
    assert fault.public


async def test_nothing_is_held_for_who_could_not_be_connected(pool: McpPool) -> None:
    async with serving(Starlette(), grace=0) as url:
        for user in "abc":
            with pytest.raises(UpstreamFault):
                await pool.call(call_of(f"{url}/sse", "sse", user), request_of("echo", text="hi"))
    gc.collect()  # what was raised leads to frames
    assert not pool._sse._connections
    assert not pool._sse._locks
