"""Claims about listening to MCP servers: what was wanted and granted arrives, in either era, and a broken stream is taken up again."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from starlette.responses import JSONResponse, Response, StreamingResponse

from adapters.contract import UpstreamFault
from adapters.mcp_client.pool import McpPool
from adapters.mcp_client.wire.messages import McpRefused, McpRequest
from adapters.mcp_client.wire.peer import ListenFilter
from tests.adapters.mcp_client.test_messages_during_calls import talk
from tests.adapters.mcp_client.test_pool import call_of, egress, ok, pool
from tests.fakes.mcp_servers import mcp_server, scripted_server
from tests.fakes.mcp_talkers import Talker
from tests.fakes.peers import ScriptedPeer
from tests.fakes.waiting import until

__all__ = ["egress", "pool"]

ERAS = pytest.mark.parametrize("era", ["modern", "legacy"])
TOOLS = "notifications/tools/list_changed"
UPDATED = "notifications/resources/updated"
ALL = ListenFilter(tools=True, prompts=True, resources=True, uris=frozenset({"note://one"}))


@asynccontextmanager
async def listening(pool: McpPool, url: str, era: str, wanted: ListenFilter, session: str = "") -> AsyncIterator[ScriptedPeer]:
    """Somebody who listens, once it was acknowledged."""
    listener = ScriptedPeer({})
    task = asyncio.create_task(pool.listen(call_of(url, era), wanted, listener, session))
    try:
        acknowledged = asyncio.create_task(listener.until(lambda peer: bool(peer.granted)))
        await asyncio.wait({task, acknowledged}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            acknowledged.cancel()
            task.result()
        yield listener
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@ERAS
async def test_changes_that_were_wanted_arrive_and_others_do_not(pool: McpPool, era: Any) -> None:
    talker = Talker()
    async with (
        mcp_server(era, False, talker.server) as (url, gate),
        listening(pool, url, era, ALL) as everything,
        listening(pool, url, era, ListenFilter(uris=frozenset({"note://one"}))) as one,
        listening(pool, url, era, ListenFilter(uris=frozenset({"note://other"}))) as other,
    ):
        if era == "legacy":
            await until(lambda: gate.count("GET") > 0)
        await pool.call(call_of(url, era), talk("change", ScriptedPeer({}), True))
        await everything.until(lambda peer: UPDATED in peer.methods())
        await one.until(lambda peer: bool(peer.heard))
    assert one.heard == [(UPDATED, {"uri": "note://one"})] and not other.heard
    assert everything.granted[0].uris == {"note://one"}
    if era == "modern":
        assert everything.methods()[0] == TOOLS and everything.granted[0].tools


@ERAS
async def test_several_listeners_of_one_person_share_what_an_older_server_says(pool: McpPool, era: Any) -> None:
    async with mcp_server(era, False, Talker().server) as (url, gate):
        async with listening(pool, url, era, ALL) as first, listening(pool, url, era, ALL) as second:
            if era == "legacy":
                await until(lambda: gate.count("GET") > 0)
            await pool.call(call_of(url, era), talk("change", ScriptedPeer({}), True))
            for listener in (first, second):
                await listener.until(lambda peer: UPDATED in peer.methods())
        if era == "legacy":
            assert gate.count("GET") == 1 and len(gate.sessions) == 1


async def test_nobody_left_to_listen_ends_the_subscription(pool: McpPool) -> None:
    talker = Talker()
    async with mcp_server("legacy", False, talker.server) as (url, _):
        async with listening(pool, url, "legacy", ALL), listening(pool, url, "legacy", ALL):
            assert talker.subscribed == ["note://one"]
        await until(lambda: not talker.subscribed)


@ERAS
async def test_an_older_client_subscribes_in_its_session_and_hears(pool: McpPool, era: Any) -> None:
    def asked(method: str) -> McpRequest:
        params = b'{"uri":"note://one"}'
        return McpRequest(3, "note://one", b"", params, False, method, peer=ScriptedPeer({}), client_session="s-1")

    async with (
        mcp_server(era, False, Talker().server) as (url, gate),
        listening(pool, url, era, ListenFilter(tools=True), "s-1") as listener,
    ):
        assert json.loads((await pool.call(call_of(url, era), asked("resources/subscribe"))).result) == {}
        if era == "legacy":
            await until(lambda: gate.count("GET") > 0)
        async with asyncio.timeout(60):
            while UPDATED not in listener.methods():  # the modern stream is opened again with the new address
                await pool.call(call_of(url, era), talk("change", ScriptedPeer({}), False))
        assert json.loads((await pool.call(call_of(url, era), asked("resources/unsubscribe"))).result) == {}


class Line:
    """A modern server's listen stream by script: each opening sends what the next list says."""

    def __init__(self, *scripts: list[str]) -> None:
        self.scripts = list(scripts)
        self.asked: list[Any] = []

    async def __call__(self, request: dict[str, Any]) -> Response:
        self.asked.append(request)
        script = self.scripts.pop(0) if len(self.scripts) > 1 else self.scripts[0]

        async def events() -> AsyncIterator[str]:
            for line in script:
                if line == "wait":
                    await asyncio.Event().wait()
                yield f"data: {line.replace('ID', json.dumps(request['id']))}\n\n"

        return StreamingResponse(events(), media_type="text/event-stream")


def told(method: str, **params: Any) -> str:
    return json.dumps({"jsonrpc": "2.0", "method": method, "params": params})


ACK = told("notifications/subscriptions/acknowledged", notifications={"toolsListChanged": True, "promptsListChanged": True})
END = '{"jsonrpc":"2.0","id":ID,"result":{"resultType":"complete"}}'


async def test_a_broken_stream_is_taken_up_again_and_what_was_missed_counts_as_changed(pool: McpPool) -> None:
    line = Line([ACK], [ACK, "wait"])
    async with (
        scripted_server(line) as url,
        listening(pool, url, "modern", ListenFilter(tools=True)) as listener,
    ):
        await listener.until(lambda peer: bool(peer.heard))
    assert listener.heard == [(TOOLS, {})] and len(listener.granted) == 1
    assert line.asked[0]["params"]["notifications"] == {"toolsListChanged": True}


async def test_a_server_that_ends_the_stream_in_order_ends_the_listening(pool: McpPool) -> None:
    meta = {"io.modelcontextprotocol/subscriptionId": 1, "other": 2}
    line = Line(
        [ACK, told(TOOLS, _meta=meta), told("notifications/prompts/list_changed"), told("notifications/message", level="info"), END]
    )
    listener = ScriptedPeer({})
    async with scripted_server(line) as url:
        await pool.listen(call_of(url, "modern"), ListenFilter(tools=True), listener)
    assert listener.granted == [ListenFilter(tools=True)]  # what was acknowledged without being wanted is not granted
    assert listener.heard == [(TOOLS, {"_meta": {"other": 2}})]


async def test_what_the_server_did_not_take_on_is_not_believed_from_it(pool: McpPool) -> None:
    granted = told("notifications/subscriptions/acknowledged", notifications={"resourceSubscriptions": ["note://a", "note://c"]})
    line = Line([granted, *(told(UPDATED, uri=f"note://{name}") for name in ("a", "b", "c", "a/part")), END])
    listener = ScriptedPeer({})
    async with scripted_server(line) as url:
        await pool.listen(call_of(url, "modern"), ListenFilter(uris=frozenset({"note://a", "note://b"})), listener)
    assert listener.granted == [ListenFilter(uris=frozenset({"note://a"}))]
    assert [params["uri"] for _, params in listener.heard] == ["note://a", "note://a/part"]


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ([told(TOOLS), ACK], UpstreamFault),
        (["nonsense"], UpstreamFault),
        ([], UpstreamFault),
        (["wait"], UpstreamFault),
        (['{"jsonrpc":"2.0","id":ID,"error":{"code":-32601,"message":"its secret"}}'], McpRefused),
        ([told("notifications/subscriptions/acknowledged", notifications=7)], UpstreamFault),
    ],
)
async def test_a_stream_that_is_not_acknowledged_is_a_fault(pool: McpPool, script: list[str], expected: type[Exception]) -> None:
    async with scripted_server(Line(script)) as url:
        with pytest.raises(expected) as fault:
            await pool.listen(call_of(url, "modern", seconds=0.5 if script == ["wait"] else 60), ListenFilter(tools=True), ScriptedPeer({}))
    assert "secret" not in str(fault.value)


async def test_a_server_without_the_method_refuses(pool: McpPool) -> None:
    async def answer(request: dict[str, Any]) -> Response:
        return JSONResponse({"jsonrpc": "2.0", "id": request["id"], "error": {"code": -32601, "message": "no"}}, 404)

    async with scripted_server(answer) as url:
        with pytest.raises(McpRefused) as refused:
            await pool.listen(call_of(url, "modern"), ALL, ScriptedPeer({}))
    assert refused.value.code == -32601


async def test_an_older_server_without_a_stream_still_tells_through_its_answers(pool: McpPool) -> None:
    async def answer(request: dict[str, Any]) -> Response:
        if request.get("method") == "initialize":
            result = {"protocolVersion": "2025-06-18", "capabilities": {"tools": {"listChanged": True}}, "serverInfo": {}}
            return JSONResponse({"jsonrpc": "2.0", "id": request["id"], "result": result})
        if request.get("method") == "tools/call":

            async def events() -> AsyncIterator[str]:
                yield f"data: {told(TOOLS)}\n\n"
                yield f"data: {json.dumps(ok(request))}\n\n"

            return StreamingResponse(events(), media_type="text/event-stream")
        return Response(status_code=202)

    async with scripted_server(answer) as url, listening(pool, url, "legacy", ListenFilter(tools=True)) as listener:
        assert listener.granted == [ListenFilter(tools=True)]
        await pool.call(call_of(url, "legacy"), talk("change", ScriptedPeer({}), True))
        await listener.until(lambda peer: bool(peer.heard))
    assert listener.methods() == [TOOLS]
