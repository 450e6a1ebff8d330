"""Claims about what is the same for every server, however it is reached."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, cast

import pytest

from adapters.contract import UpstreamFault
from adapters.mcp_client.pool import McpPool
from adapters.mcp_client.wire.peer import ListenFilter
from adapters.openapi.tools import OPENAPI_KIND
from adapters.tool_servers import ToolServerClient
from registry.cards.card import BUILT_IN_KIND, Registration
from tests.adapters.mcp_client.test_pool import call_of, egress, pool
from tests.fakes.peers import ScriptedPeer

__all__ = ["egress", "pool"]


@pytest.mark.parametrize("kind", [OPENAPI_KIND, BUILT_IN_KIND])
async def test_an_http_api_and_a_built_in_server_are_listened_to_without_end(pool: McpPool, kind: str) -> None:
    call: Any = call_of("http://127.0.0.1:1/", "modern")
    call = type(call)(call.grant, replace(call.target, kind=kind), call.deadline, call.headers)
    ear = ScriptedPeer()
    listening = asyncio.create_task(ToolServerClient(pool).listen(call, ListenFilter(tools=True, uris=frozenset({"note://1"})), ear))
    await ear.until(lambda peer: bool(peer.granted))
    await asyncio.sleep(0)
    assert ear.granted == [ListenFilter()] and not listening.done()
    listening.cancel()
    await asyncio.gather(listening, return_exceptions=True)
    assert listening.cancelled()


class EchoingPool:
    """A pool whose server puts the credential that it was sent into the error of each request."""

    async def probe(self, url: str, headers: Mapping[str, str], *, initialize: bool) -> None:
        raise UpstreamFault("no", f"said {headers['X-Api-Key']}")

    async def watch(self, target: Registration, headers: Mapping[str, str], changed: Callable[[], None]) -> None:
        raise UpstreamFault("no", f"said {headers['X-Api-Key']}")


# attack LOG-02
async def test_what_a_server_says_to_the_gateway_itself_has_no_credential_of_the_operator() -> None:
    client, headers = ToolServerClient(cast("McpPool", EchoingPool())), {"X-Api-Key": "operators-key-0001"}
    target = call_of("http://127.0.0.1:1/", "modern").target
    for request in (client.probe("crm", target.url, headers), client.watch(target, headers, lambda: None)):
        with pytest.raises(UpstreamFault) as fault:
            await request
        assert fault.value.detail == "said ***"
