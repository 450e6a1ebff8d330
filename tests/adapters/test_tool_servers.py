"""Claims about what is the same for every server, however it is reached."""

import asyncio
from dataclasses import replace
from typing import Any

from adapters.mcp_client.pool import McpPool
from adapters.mcp_client.wire.peer import Listening
from adapters.openapi.tools import KIND
from adapters.tool_servers import McpTools
from tests.adapters.mcp_client.test_pool import call_of, egress, pool
from tests.fakes.peers import ScriptedPeer

__all__ = ["egress", "pool"]


async def test_an_http_api_never_says_anything_and_is_listened_to_without_end(pool: McpPool) -> None:
    call: Any = call_of("http://127.0.0.1:1/", "modern")
    call = type(call)(call.grant, replace(call.target, kind=KIND), call.deadline, call.headers)
    ear = ScriptedPeer()
    listening = asyncio.create_task(McpTools(pool).listen(call, Listening(tools=True, uris=frozenset({"note://1"})), ear))
    await ear.until(lambda peer: bool(peer.granted))
    await asyncio.sleep(0)
    assert ear.granted == [Listening()] and not listening.done()
    listening.cancel()
    await asyncio.gather(listening, return_exceptions=True)
    assert listening.cancelled()
