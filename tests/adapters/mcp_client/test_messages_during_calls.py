"""Claims about what is said and asked while a call is under way: either era's client hears and answers either era's server."""

import asyncio
import json
from typing import Any

import pytest
from msgspec.structs import replace

from adapters.mcp_client.pool import McpPool
from adapters.mcp_client.wire.messages import MISSING_CAPABILITY, McpRefused, McpRequest
from adapters.mcp_client.wire.peer import PeerRefused
from tests.adapters.mcp_client.test_pool import META, call_of, egress, pool, request_of, text
from tests.fakes.mcp_servers import mcp_server
from tests.fakes.mcp_talkers import Talker
from tests.fakes.peers import ANSWERS, ScriptedPeer

__all__ = ["egress", "pool"]

ERAS = pytest.mark.parametrize("era", ["modern", "legacy"])
FRONTS = pytest.mark.parametrize("front", [True, False], ids=["modern-front", "legacy-front"])


def talk(name: str, peer: ScriptedPeer, front: bool, meta: dict[str, Any] | None = None, **arguments: Any) -> McpRequest:
    """A call whose client hears and answers; an older client has a session."""
    declared = {**META, "io.modelcontextprotocol/clientCapabilities": peer.capabilities} if front else {}
    params = {"name": name, "arguments": arguments, "_meta": {**declared, **(meta or {})}}
    raw = json.dumps({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": params}).encode()
    return McpRequest(7, name, raw, json.dumps(params).encode(), front, peer=peer, client_session="" if front else "s-1")


@pytest.mark.parametrize(
    ("tool", "said", "asked"),
    [
        ("greet", "hello Ada", ["elicitation/create"]),
        ("think", "deep", ["sampling/createMessage"]),
        ("roots", "file:///home", ["roots/list"]),
        ("all_of_it", "Ada 1 m-1", ["elicitation/create", "roots/list", "sampling/createMessage"]),
    ],
)
@pytest.mark.parametrize(("era", "front"), [("modern", False), ("legacy", True), ("legacy", False)])
async def test_what_a_server_asks_reaches_the_client_and_its_answer_the_server(
    pool: McpPool, era: Any, front: bool, tool: str, said: str, asked: list[str]
) -> None:
    peer = ScriptedPeer()
    async with mcp_server(era, False, Talker().server) as (url, _):
        answer = await pool.call(call_of(url, era), talk(tool, peer, front))
    assert text(answer.result) == said
    assert sorted(method for method, _ in peer.asked) == asked
    assert ("resultType" in json.loads(answer.result)) == front


async def test_a_modern_client_is_asked_by_a_modern_server_through_the_result(pool: McpPool) -> None:
    peer = ScriptedPeer()
    async with mcp_server("modern", False, Talker().server) as (url, _):
        answer = json.loads((await pool.call(call_of(url, "modern"), talk("greet", peer, True))).result)
    assert answer["resultType"] == "input_required" and answer["inputRequests"] and not peer.asked


@ERAS
@FRONTS
async def test_progress_comes_under_the_clients_own_token_and_in_order(pool: McpPool, era: Any, front: bool) -> None:
    peers = [ScriptedPeer(), ScriptedPeer()]
    async with mcp_server(era, False, Talker().server) as (url, _):
        # two clients of one person that chose the same token, one of them with a token that is a number
        await asyncio.gather(
            pool.call(call_of(url, era), talk("count", peers[0], front, {"progressToken": "t"}, to=3)),
            pool.call(call_of(url, era), talk("count", peers[1], front, {"progressToken": "t"}, to=2)),
        )
    for peer, last in zip(peers, (3, 2), strict=True):
        progress = [params for method, params in peer.heard if method == "notifications/progress"]
        assert [params["progress"] for params in progress] == list(range(1, last + 1))
        assert {params["progressToken"] for params in progress} == {"t"}


@ERAS
@FRONTS
async def test_without_a_token_nobody_hears_of_progress(pool: McpPool, era: Any, front: bool) -> None:
    peer = ScriptedPeer()
    async with mcp_server(era, False, Talker().server) as (url, _):
        await pool.call(call_of(url, era), talk("count", peer, front, to=3))
    assert "notifications/progress" not in peer.methods()


@ERAS
@FRONTS
async def test_logs_come_from_the_level_that_the_client_asked_for(pool: McpPool, era: Any, front: bool) -> None:
    peer, talker = ScriptedPeer(), Talker()
    async with mcp_server(era, False, talker.server) as (url, _):
        request = talk("count", peer, front, {"io.modelcontextprotocol/logLevel": "warning"} if front else None, to=1)
        await pool.call(call_of(url, era), replace(request, log_level="" if front else "warning"))
        logs = [params["data"] for method, params in peer.heard if method == "notifications/message"]
    assert logs == ["a warning"]
    assert talker.levels == (["warning"] if era == "legacy" else [])


@ERAS
async def test_a_modern_client_that_asked_for_no_logs_gets_none(pool: McpPool, era: Any) -> None:
    peer = ScriptedPeer()
    async with mcp_server(era, False, Talker().server) as (url, _):
        await pool.call(call_of(url, era), talk("count", peer, True, to=1))
    assert not peer.heard


@ERAS
@FRONTS
async def test_a_call_that_is_given_up_is_cancelled_at_the_server(pool: McpPool, era: Any, front: bool) -> None:
    talker = Talker()
    async with mcp_server(era, False, talker.server) as (url, _):
        for peer in (ScriptedPeer(), None):
            talker.started.clear()
            talker.cancelled.clear()
            request = replace(talk("slow", ScriptedPeer(), front), peer=peer)
            under_way = asyncio.create_task(pool.call(call_of(url, era), request))
            await asyncio.wait_for(talker.started.wait(), 60)
            under_way.cancel()
            await asyncio.wait_for(talker.cancelled.wait(), 60)
            with pytest.raises(asyncio.CancelledError):
                await under_way


@pytest.mark.parametrize(("era", "front"), [("modern", False), ("legacy", True), ("legacy", False)])
async def test_a_question_is_withdrawn_when_the_call_is_given_up(pool: McpPool, era: Any, front: bool) -> None:
    peer = ScriptedPeer(answers={})
    async with mcp_server(era, False, Talker().server) as (url, _):
        under_way = asyncio.create_task(pool.call(call_of(url, era), talk("greet", peer, front)))
        await asyncio.wait_for(peer.hanging.wait(), 60)
        under_way.cancel()
        with pytest.raises(asyncio.CancelledError):
            await under_way
        await asyncio.sleep(0)
    assert peer.withdrawn == 1


async def test_a_client_that_refuses_to_answer_ends_the_call_without_harm_to_others(pool: McpPool) -> None:
    refusing = ScriptedPeer(answers={**ANSWERS, "elicitation/create": PeerRefused(-1, "no")})
    for era, front in (("modern", False), ("legacy", True)):
        async with mcp_server(era, False, Talker().server) as (url, _):  # type: ignore[arg-type]  # an era from a tuple
            try:
                answer = json.loads((await pool.call(call_of(url, era), talk("greet", refusing, front))).result)
                assert answer["isError"]
            except McpRefused as refused:
                assert refused.code == {"modern": -32603, "legacy": -1}[era]  # an older server passes the client's code on
            assert text((await pool.call(call_of(url, era), talk("greet", ScriptedPeer(), front))).result) == "hello Ada"


async def test_a_question_that_the_client_did_not_declare_never_reaches_it(pool: McpPool) -> None:
    unable = ScriptedPeer(capabilities={"sampling": {}})
    async with mcp_server("legacy", False, Talker().server) as (url, _):
        for front in (True, False):  # this server looks at what was declared before it asks
            with pytest.raises(McpRefused) as refused:
                await pool.call(call_of(url, "legacy"), talk("greet", unable, front))
            assert refused.value.code == MISSING_CAPABILITY
            assert refused.value.data == {"requiredCapabilities": {"elicitation": {"form": {}}}}
    assert not unable.asked


async def test_a_client_declares_to_an_older_server_what_it_can_do_and_no_more(pool: McpPool) -> None:
    async with mcp_server("legacy", False, Talker().server) as (url, gate):
        for peer in (ScriptedPeer(), ScriptedPeer({"sampling": {}}), ScriptedPeer()):
            await pool.call(call_of(url, "legacy"), talk("count", peer, True, to=1))
        assert len(gate.sessions) == 2  # one for each set of capabilities


async def test_each_session_of_an_older_client_has_its_own_with_an_older_server(pool: McpPool) -> None:
    async with mcp_server("legacy", False, Talker().server) as (url, gate):
        for session in ("a", "b", "a"):
            await pool.call(call_of(url, "legacy"), replace(talk("count", ScriptedPeer(), False, to=1), client_session=session))
        assert len(gate.sessions) == 2
        await pool.close_client_session(call_of(url, "legacy").grant.delegation.principal.owner_key, "a")
        assert gate.count("DELETE") == 1


async def test_the_plain_call_still_sends_what_it_was_given(pool: McpPool) -> None:
    async with mcp_server("modern", False, Talker().server) as (url, _):
        answer = json.loads((await pool.call(call_of(url, "modern"), request_of("count", text="x"))).result)
    assert answer["isError"]
