"""Claims about older servers that do odd things while a call is under way, by a server of scripts."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from msgspec.structs import replace

from adapters.contract import UpstreamFault
from adapters.mcp_client.pool import McpPool
from adapters.mcp_client.wire.messages import MISSING_CAPABILITY, McpRefused
from adapters.mcp_client.wire.peer import ListenFilter
from tests.adapters.mcp_client.test_listening import listening
from tests.adapters.mcp_client.test_messages_during_calls import FRONTS, talk
from tests.adapters.mcp_client.test_pool import call_of, egress, pool, request_of, text
from tests.fakes.mcp_old import OldServer, event, result
from tests.fakes.peers import ANSWERS, ScriptedPeer
from tests.fakes.waiting import until

__all__ = ["egress", "pool"]

ELICIT = {"method": "elicitation/create", "params": {"message": "Who?", "requestedSchema": {"type": "object", "properties": {}}}}


async def asks(server: OldServer, request: dict[str, Any]) -> AsyncIterator[str]:
    yield event({"id": "q", **ELICIT})
    answer = await server.answer_to("q")
    yield event(result(request, {"content": [{"type": "text", "text": str(answer.get("result") or answer["error"]["code"])}]}))


async def general_asks(server: OldServer, _: dict[str, Any]) -> AsyncIterator[str]:
    yield event({"id": "g", **ELICIT})
    await asyncio.Event().wait()


async def waits_for_general(server: OldServer, request: dict[str, Any]) -> AsyncIterator[str]:
    answer = await server.answer_to("g")
    yield event(result(request, {"content": [{"type": "text", "text": str(answer.get("result") or answer["error"]["code"])}]}))


@FRONTS
async def test_a_question_on_the_sessions_own_stream_reaches_the_call_under_way(pool: McpPool, front: bool) -> None:
    server = OldServer(waits_for_general, general_asks)
    async with server.serve() as url:
        answer = await pool.call(call_of(url, "legacy"), talk("x", ScriptedPeer(), front))
    assert "Ada" in text(answer.result)


async def test_a_question_that_could_be_for_two_people_reaches_neither(pool: McpPool) -> None:  # attack TEN-01
    peers = [ScriptedPeer(), ScriptedPeer()]
    release = asyncio.Event()

    async def general(server: OldServer, _: dict[str, Any]) -> AsyncIterator[str]:
        await release.wait()
        yield event({"id": "g", **ELICIT})
        await asyncio.Event().wait()

    server = OldServer(waits_for_general, general)
    async with server.serve() as url:
        calls = [asyncio.create_task(pool.call(call_of(url, "legacy"), talk("x", peer, True))) for peer in peers]
        await until(lambda: sum(message["method"] == "tools/call" for message in server.asked) == 2)
        release.set()
        assert {text((await call).result) for call in calls} == {"-32601"}
    assert not peers[0].asked and not peers[1].asked


async def test_the_time_in_which_a_person_thinks_does_not_count(pool: McpPool) -> None:
    peer = ScriptedPeer()
    peer.thinks = 300.0
    async with OldServer(asks).serve() as url:
        assert "Ada" in text((await pool.call(call_of(url, "legacy", seconds=60), talk("x", peer, True))).result)


async def test_afterwards_it_counts_again(pool: McpPool) -> None:
    async def asks_and_hangs(server: OldServer, request: dict[str, Any]) -> AsyncIterator[str]:
        yield event({"id": "q", **ELICIT})
        await server.answer_to("q")
        await asyncio.Event().wait()

    async with OldServer(asks_and_hangs).serve() as url:
        with pytest.raises(UpstreamFault, match="in time"):
            await asyncio.wait_for(pool.call(call_of(url, "legacy", seconds=0.5), talk("x", ScriptedPeer(), True)), 60)


async def test_an_unpermitted_server_request_is_refused_and_the_client_told_what_it_needs(pool: McpPool) -> None:
    unable = ScriptedPeer({"sampling": {}})
    server = OldServer(asks)
    async with server.serve() as url:
        with pytest.raises(McpRefused) as refused:
            await pool.call(call_of(url, "legacy"), talk("x", unable, True))
        assert (refused.value.code, refused.value.data) == (MISSING_CAPABILITY, {"requiredCapabilities": {"elicitation": {}}})
        await until(lambda: any(message.get("method") == "notifications/cancelled" for message in server.posted))
        assert text((await pool.call(call_of(url, "legacy"), talk("x", unable, False))).result) == "-32601"
    assert not unable.asked and [message["params"]["capabilities"] for message in server.asked[:1]] == [{"sampling": {}}]


async def test_a_question_that_the_server_takes_back_is_withdrawn(pool: McpPool) -> None:
    peer = ScriptedPeer(answers={})

    async def takes_back(server: OldServer, request: dict[str, Any]) -> AsyncIterator[str]:
        yield event({"id": 5, **ELICIT})
        await peer.hanging.wait()
        yield event({"method": "notifications/cancelled", "params": {"requestId": 5}})
        yield event({"id": 6, "method": "ping"})
        await server.answer_to(6)
        yield event(result(request))

    server = OldServer(takes_back)
    async with server.serve() as url:
        assert text((await pool.call(call_of(url, "legacy"), talk("x", peer, True))).result) == "done"
    assert peer.withdrawn == 1 and [message["id"] for message in server.posted if "id" in message] == [6]


async def test_questions_are_few_at_once_and_unknown_ones_are_refused(pool: McpPool) -> None:
    peer = ScriptedPeer(answers={})

    async def floods(server: OldServer, request: dict[str, Any]) -> AsyncIterator[str]:
        for number in range(30):
            yield event({"id": 100 + number, **ELICIT})
        yield event({"id": 99, "method": "secrets/read"})
        codes = [(await server.answer_to(number))["error"]["code"] for number in (99, 129)]
        yield event(result(request, {"content": [{"type": "text", "text": str(codes)}]}))

    async with OldServer(floods).serve() as url:
        said = text((await pool.call(call_of(url, "legacy"), talk("x", peer, True))).result)
    assert said == "[-32603, -32603]" and len(peer.asked) <= 16


async def test_a_stream_that_was_cut_is_taken_up_where_it_stood(pool: McpPool) -> None:
    requests: list[dict[str, Any]] = []

    async def cut(server: OldServer, request: dict[str, Any]) -> AsyncIterator[str]:
        requests.append(request)
        yield "id: e-1\nretry: 20\ndata: \n\n"
        progress = {"progressToken": request["params"]["_meta"]["progressToken"], "progress": 1}
        yield event({"method": "notifications/progress", "params": progress}, "e-2")

    async def rest(server: OldServer, _: dict[str, Any]) -> AsyncIterator[str]:
        yield event(result(requests[0]), "e-3")

    server, peer = OldServer(cut, resumed=rest), ScriptedPeer({})
    async with server.serve() as url:
        for request in (talk("x", peer, True, {"progressToken": 9}), replace(talk("x", peer, True, {"progressToken": 9}), peer=None)):
            requests.clear()
            assert text((await pool.call(call_of(url, "legacy"), request)).result) == "done"
    assert [params["progressToken"] for _, params in peer.heard] == [9]
    assert {headers["last-event-id"] for headers in server.gets} == {"e-2"} and len(requests) == 1


async def test_a_url_that_must_be_visited_first_becomes_a_question_to_a_modern_client(pool: McpPool) -> None:
    visited: list[int] = []

    async def wants_a_visit(server: OldServer, request: dict[str, Any]) -> AsyncIterator[str]:
        if not visited:
            elicitation = {"mode": "url", "elicitationId": "e", "url": "https://x.example/", "message": "Sign in"}
            error = {"code": -32042, "message": "its words", "data": {"elicitations": [elicitation]}}
            yield event({"id": request["id"], "error": error})
        else:
            yield event(result(request))

    def accept(params: Any) -> Any:
        visited.append(1)
        return {"action": "accept"}

    peer = ScriptedPeer(answers={**ANSWERS, "elicitation/create": accept})
    async with OldServer(wants_a_visit).serve() as url:
        with pytest.raises(McpRefused) as refused:
            await pool.call(call_of(url, "legacy"), talk("x", peer, False))
        assert refused.value.code == -32042 and refused.value.data
        assert text((await pool.call(call_of(url, "legacy"), talk("x", peer, True))).result) == "done"
    assert peer.asked == [("elicitation/create", {"mode": "url", "url": "https://x.example/", "message": "Sign in"})]


async def test_a_session_lost_under_load_is_opened_again_once(pool: McpPool) -> None:
    async def plain(server: OldServer, request: dict[str, Any]) -> AsyncIterator[str]:
        yield event(result(request))

    server = OldServer(plain)
    async with server.serve() as url:
        async with listening(pool, url, "legacy", ListenFilter(uris=frozenset({"note://one"}))):
            for _ in range(3):
                server.sessions.clear()
                answers = await asyncio.gather(*(pool.call(call_of(url, "legacy"), request_of("x")) for _ in range(40)))
                assert {text(answer.result) for answer in answers} == {"done"}
        initialized = sum(message["method"] == "initialize" for message in server.asked)
        subscribed = sum(message["method"] == "resources/subscribe" for message in server.asked)
    assert initialized == subscribed == 4  # the first, and one after each loss


async def test_who_hears_late_that_a_session_was_lost_uses_the_one_that_others_opened(pool: McpPool) -> None:
    async def plain(server: OldServer, request: dict[str, Any]) -> AsyncIterator[str]:
        yield event(result(request))

    server = OldServer(plain)
    async with server.serve() as url:
        await pool.call(call_of(url, "legacy"), request_of("x"))
        server.sessions.clear()
        late = asyncio.create_task(pool.call(call_of(url, "legacy"), request_of("late")))
        assert text((await pool.call(call_of(url, "legacy"), request_of("x"))).result) == "done"
        assert text((await late).result) == "done"
    assert sum(message["method"] == "initialize" for message in server.asked) == 2


async def test_a_session_that_is_unknown_with_400_is_opened_again_too(pool: McpPool) -> None:
    class Odd(OldServer):
        async def post(self, request: Any) -> Any:
            answer = await super().post(request)
            if answer.status_code == 404:
                answer.status_code = 400
            return answer

    server = Odd(asks)
    async with server.serve() as url:
        for _ in range(2):
            server.sessions.clear()
            assert "Ada" in text((await pool.call(call_of(url, "legacy"), talk("x", ScriptedPeer(), True))).result)


async def test_the_result_may_be_large_and_has_a_bound(pool: McpPool) -> None:
    def answering(size: int) -> OldServer:
        async def large(server: OldServer, request: dict[str, Any]) -> AsyncIterator[str]:
            yield event(result(request, {"content": [{"type": "text", "text": "x" * size}]}))

        return OldServer(large)

    async with answering(7 << 20).serve() as url:
        assert len(text((await pool.call(call_of(url, "legacy"), talk("x", ScriptedPeer(), True))).result)) == 7 << 20
    async with answering(10 << 20).serve() as url:
        for peer in (ScriptedPeer(), None):
            with pytest.raises(UpstreamFault, match="too large"):
                await pool.call(call_of(url, "legacy"), replace(talk("x", ScriptedPeer(), True), peer=peer))


async def test_a_client_that_does_not_read_holds_up_only_its_own_call(pool: McpPool) -> None:
    async def chatty(server: OldServer, request: dict[str, Any]) -> AsyncIterator[str]:
        for number in range(1, 50):
            progress = {"progressToken": request["params"]["_meta"]["progressToken"], "progress": number}
            yield event({"method": "notifications/progress", "params": progress})
        yield event(result(request))

    class Stalled(ScriptedPeer):
        async def notify(self, method: str, params: Any) -> None:
            await asyncio.Event().wait()

    async with OldServer(chatty).serve() as url:
        stalled = asyncio.create_task(pool.call(call_of(url, "legacy", seconds=1), talk("x", Stalled(), True, {"progressToken": 1})))
        peer = ScriptedPeer()
        assert text((await pool.call(call_of(url, "legacy"), talk("x", peer, True, {"progressToken": 1}))).result) == "done"
        assert len(peer.heard) == 49
        with pytest.raises(UpstreamFault, match="in time"):
            await stalled


async def test_a_server_that_begins_to_report_changes_may_have_changed_before(pool: McpPool) -> None:
    async def silent(server: OldServer, _: dict[str, Any]) -> AsyncIterator[str]:
        await asyncio.Event().wait()
        yield ""

    changed = asyncio.Event()
    async with OldServer(asks, silent).serve() as url:
        watching = asyncio.create_task(pool.watch(call_of(url, "legacy").target, {}, changed.set))
        assert await asyncio.wait_for(changed.wait(), 60)
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
