"""Claims about servers that go away and come back, about places that streams do not take, and about what a plain call costs."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from adapters.contract import Call, UpstreamFault
from adapters.mcp_client.pool import McpPool
from adapters.mcp_client.wire.messages import McpRefused, McpRequest
from adapters.mcp_client.wire.peer import ListenFilter
from adapters.upstream.egress import CONNECTIONS_PER_HOST, Egress
from tests.adapters.mcp_client.test_listening import TOOLS
from tests.adapters.mcp_client.test_messages_during_calls import ERAS, talk
from tests.adapters.mcp_client.test_pool import InstantEgress, call_of, egress, pool, request_of, text
from tests.fakes.mcp_servers import Gate, mcp_server, serving
from tests.fakes.mcp_talkers import Talker
from tests.fakes.peers import ScriptedPeer
from tests.fakes.timeouts import LONG_TIMEOUTS

__all__ = ["egress", "pool"]


@asynccontextmanager
async def talker_on(port: int, era: Any, talker: Talker) -> AsyncIterator[str]:
    async with serving(Gate(talker.server.streamable_http_app(), era), grace=0, port=port) as url:
        yield f"{url}/mcp"


async def outcome(pool: McpPool, call: Call, request: McpRequest) -> str:
    try:
        return text((await pool.call(call, request)).result)
    except (UpstreamFault, McpRefused) as fault:
        return type(fault).__name__


@ERAS
@pytest.mark.parametrize("plain", [True, False], ids=["plain", "heard"])
async def test_a_restart_fails_what_is_under_way_and_nothing_after(pool: McpPool, era: Any, plain: bool) -> None:
    talker = Talker()
    async with talker_on(0, era, talker) as url:
        port = int(url.split(":")[2].split("/")[0])
        request = request_of("slow") if plain else talk("slow", ScriptedPeer(), True)
        under_way = [asyncio.create_task(outcome(pool, call_of(url, era), request)) for _ in range(3)]
        await asyncio.wait_for(talker.started.wait(), 60)
    assert set(await asyncio.wait_for(asyncio.gather(*under_way), 60)) <= {"Unreachable", "UpstreamFault", "McpRefused"}
    async with talker_on(port, era, Talker()):
        requests = [request_of("count", to=1) if plain else talk("count", ScriptedPeer(), True, to=1) for _ in range(20)]
        after = await asyncio.gather(*(outcome(pool, call_of(url, era), request) for request in requests))
    assert set(after) == {"done"}


@ERAS
async def test_whoever_listens_hears_after_a_restart_that_all_may_have_changed(pool: McpPool, era: Any) -> None:
    listener = ScriptedPeer({})
    async with talker_on(0, era, Talker()) as url:
        port = int(url.split(":")[2].split("/")[0])
        listening = asyncio.create_task(pool.listen(call_of(url, era), ListenFilter(tools=True, uris=frozenset({"note://one"})), listener))
        await listener.until(lambda peer: bool(peer.granted))
        await pool.call(call_of(url, era), talk("change", ScriptedPeer({}), True))
        await listener.until(lambda peer: len(peer.heard) >= 1)
    listener.heard.clear()
    talker = Talker()
    async with talker_on(port, era, talker):
        await listener.until(lambda peer: "notifications/resources/updated" in peer.methods(), 20)
        assert era == "legacy" or TOOLS in listener.methods()
        assert talker.subscribed == (["note://one"] if era == "legacy" else [])
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)


async def test_streams_take_no_places_of_plain_calls(pool: McpPool) -> None:
    async with mcp_server("modern", False, Talker().server) as (url, _):
        listeners = [ScriptedPeer({}) for _ in range(CONNECTIONS_PER_HOST + 10)]
        tasks = [asyncio.create_task(pool.listen(call_of(url, "modern", seconds=30), ListenFilter(tools=True), one)) for one in listeners]
        await asyncio.gather(*(listener.until(lambda peer: bool(peer.granted), 30) for listener in listeners))
        assert text((await pool.call(call_of(url, "modern", seconds=60), request_of("count", to=1))).result) == "done"
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_plain_modern_call_does_no_more_than_it_needs() -> None:
    pool = McpPool(cast("Egress", InstantEgress()), asyncio.get_running_loop().time, initialize_seconds=LONG_TIMEOUTS.initialize_probe)
    call, request = call_of("http://x/mcp", "modern"), request_of("echo", text="hi")
    await pool.call(call, request)
    count = 0

    def profile(_: Any, event: str, __: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        for _ in range(10):
            await pool.call(call, request)
    finally:
        sys.setprofile(before)
    assert count <= 10 * 31  # functions, ours and others'; 30 when this was written
