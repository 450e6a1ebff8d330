"""Clients of the legacy era: their sessions, streams, questions and cancellations, at one process and at another."""

import asyncio
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.ingress.mcp_server.protocol import sessions
from gateway.ingress.mcp_server.subscriptions import streams as listening
from tests.fakes.house import House, open_house, two
from tests.fakes.mcp_clients import upstream
from tests.fakes.mcp_talkers import Talker
from tests.fakes.mcp_wire import ABLE, document, modern, post, session, stream
from tests.fakes.timeouts import LONG_TIMEOUTS
from tests.fakes.waiting import until

SQLITE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
ADA = {"action": "accept", "content": {"name": "Ada"}}
LISTEN = modern("subscriptions/listen", {"notifications": {}})
GREET = document("tools/call", {"name": "greet", "arguments": {}}, 7)


def called(tool: str, request_id: Any = 7, **arguments: Any) -> dict[str, Any]:
    return document("tools/call", {"name": tool, "arguments": arguments, "_meta": {"progressToken": "p"}}, request_id)


@SQLITE
@pytest.mark.parametrize("era", ["legacy", "modern"])
async def test_a_question_comes_on_the_requests_own_stream_and_its_answer_by_a_post(open_home: House, era: Any) -> None:
    await upstream(open_home, era, Talker().server)
    mine = {"mcp-session-id": await session(open_home, capabilities=ABLE)}
    async with stream(open_home, "admin", GREET, mine) as events:
        question = await events.next()
        assert question["method"] == "elicitation/create"
        answer = {"jsonrpc": "2.0", "id": question["id"], "result": ADA}
        for user, other in (("mel", mine), ("admin", {"mcp-session-id": await session(open_home)}), ("admin", {})):
            refused = await post(open_home, user, answer | {"result": {"action": "cancel"}}, other)
            assert refused.status_code in (202, 400, 404)  # a session of one's own has no such question
        taken = await post(open_home, "admin", answer, mine)
        assert (taken.status_code, taken.content) == (202, b"")
        assert (await events.next())["result"]["content"][0]["text"] == "hello Ada"
        assert await events.next() is None


@SQLITE
async def test_a_client_that_refuses_a_question_ends_the_call_and_nothing_else(open_home: House) -> None:
    await upstream(open_home, "legacy", Talker().server)
    mine = {"mcp-session-id": await session(open_home, capabilities=ABLE)}
    for odd in ({"error": {"code": -1, "message": "no"}}, {"result": 5}, {"result": None}, {"error": 7}):
        async with stream(open_home, "admin", GREET, mine) as events:
            question = await events.next()
            assert (await post(open_home, "admin", {"jsonrpc": "2.0", "id": question["id"], **odd}, mine)).status_code == 202
            ended = await events.next()
            assert "error" in ended or ended["result"]["isError"], odd
    assert (await post(open_home, "admin", document("ping", {}), mine)).json()["result"] == {}


@SQLITE
async def test_a_stream_that_broke_is_gone_on_with_from_its_last_event(open_home: House) -> None:
    talker = Talker()
    await upstream(open_home, "legacy", talker.server)
    mine = {"mcp-session-id": await session(open_home, capabilities=ABLE)}
    async with stream(open_home, "admin", called("count", to=3), mine) as events:
        first = await events.first_of("notifications/progress")
        assert first["progress"] == 1
        last = events.last_id
    foreign = {"mcp-session-id": await session(open_home)}
    async with stream(open_home, "admin", None, {**foreign, "last-event-id": last}, verb="GET") as events:
        assert await events.next() is None
    for odd in ("x", "x.1", ".", last.rpartition(".")[0] + ".-1", last.rpartition(".")[0] + ".999"):
        async with stream(open_home, "admin", None, {**mine, "last-event-id": odd}, verb="GET") as events:
            assert events.answer.status_code == 200 and await events.next() is None, odd
    async with stream(open_home, "admin", None, {**mine, "last-event-id": last}, verb="GET") as events:
        assert [(await events.first_of("notifications/progress"))["progress"] for _ in range(2)] == [2, 3]
        while (message := await events.next()) and "method" in message:
            pass
        assert message["id"] == 7 and message["result"]["content"][0]["text"] == "done"


@SQLITE
async def test_a_long_request_becomes_a_stream_and_goes_on_when_its_client_leaves(tmp_path: Path, database_url: str) -> None:
    talker, timeouts = Talker(), replace(LONG_TIMEOUTS, legacy_stream=0.05)
    async with open_house(tmp_path / "home", database_url, timeouts=timeouts) as home:
        await upstream(home, "legacy", talker.server)
        mine = {"mcp-session-id": await session(home)}
        async with stream(home, "admin", called("slow"), mine) as events:
            reading = asyncio.create_task(events.next())
            await asyncio.wait_for(talker.started.wait(), 60)
            await until(lambda: bool(events.last_id), every=0.01)
            reading.cancel()
        assert events.retry_ms == 1000  # SEP-1699: when to come back is said before it is needed
        talker.release.set()
        async with stream(home, "admin", None, {**mine, "last-event-id": events.last_id}, verb="GET") as resumed:
            assert (await resumed.next())["result"]["content"][0]["text"] == "late"
        assert not talker.cancelled.is_set()


@SQLITE
async def test_a_request_is_cancelled_by_whoever_made_it_and_by_nobody_else(open_home: House) -> None:
    talker = Talker()
    await upstream(open_home, "legacy", talker.server)
    mine, other = [{"mcp-session-id": await session(open_home)} for _ in range(2)]
    calling = asyncio.create_task(post(open_home, "admin", called("slow"), mine))
    await asyncio.wait_for(talker.started.wait(), 60)

    def cancelled(request_id: Any) -> dict[str, Any]:
        return {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": request_id}}

    for headers, request_id in ((other, 7), (mine, "7"), (mine, 8), (mine, True), (mine, None), ({}, 7)):
        assert (await post(open_home, "admin", cancelled(request_id), headers)).status_code == 202
    await asyncio.wait([calling], timeout=0.3)  # what is not to happen has its time
    assert not talker.cancelled.is_set() and not calling.done()
    await post(open_home, "admin", cancelled(7), mine)
    await asyncio.wait_for(talker.cancelled.wait(), 60)
    ended = await calling
    assert (ended.status_code, ended.content) == (202, b"")


@SQLITE
async def test_a_person_opens_so_many_sessions_and_takes_none_from_others(open_home: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "SESSIONS_PER_HOLDER", 2)
    await upstream(open_home, "legacy", Talker().server)
    theirs = await session(open_home, "mel")
    mine = [await session(open_home) for _ in range(3)]
    known = [(await post(open_home, "admin", document("ping", {}), {"mcp-session-id": each})).status_code for each in mine]
    assert known == [404, 200, 200]
    assert (await post(open_home, "mel", document("ping", {}), {"mcp-session-id": theirs})).status_code == 200


@SQLITE
async def test_a_reader_that_stalls_holds_nobody_up_but_itself(open_home: House) -> None:
    await upstream(open_home, "legacy", Talker().server)
    mine = {"mcp-session-id": await session(open_home)}
    async with stream(open_home, "admin", called("count", to=2000), mine):  # nothing of it is read
        async with asyncio.timeout(60):
            answered = await post(open_home, "admin", called("count", 8, to=1), {"mcp-session-id": await session(open_home)})
        assert answered.status_code == 200


async def test_a_session_is_known_to_every_process_until_one_ends_it(tmp_path: Path, postgres_url: str) -> None:
    async with two(tmp_path / "home", postgres_url) as (one, other):
        await upstream(one, "legacy", Talker().server)
        await other.gateway.database.refresh_epochs()
        mine = {"mcp-session-id": await session(one)}
        assert (await post(other, "admin", document("tools/list", {}), mine)).status_code == 200
        assert (await post(other, "mel", document("tools/list", {}), mine)).status_code == 404
        ended = await other.http.delete("/mcp/desk", headers={**mine, "authorization": f"Bearer {one.token('admin')}"})
        assert ended.status_code == 204

        async def forgotten() -> bool:
            return (await post(one, "admin", document("ping", {}), mine)).status_code == 404

        await until(forgotten, every=0.1)


async def test_a_question_is_answered_and_a_stream_gone_on_with_at_another_process(tmp_path: Path, postgres_url: str) -> None:
    async with two(tmp_path / "home", postgres_url) as (one, other):
        await upstream(one, "legacy", Talker().server)
        await other.gateway.database.refresh_epochs()
        mine = {"mcp-session-id": await session(one, capabilities=ABLE)}
        async with stream(one, "admin", GREET, mine) as events:
            question = await events.next()
            last = events.last_id
        assert (await post(other, "admin", {"jsonrpc": "2.0", "id": question["id"], "result": ADA}, mine)).status_code == 202
        headers = {**mine, "last-event-id": last, "authorization": f"Bearer {one.token('admin')}", "accept": "text/event-stream"}
        resumed = await asyncio.wait_for(other.http.get("/mcp/desk", headers=headers), 60)
        assert '"text":"hello Ada"' in resumed.text


async def test_a_request_is_cancelled_through_another_process(tmp_path: Path, postgres_url: str) -> None:
    talker = Talker()
    async with two(tmp_path / "home", postgres_url) as (one, other):
        await upstream(one, "legacy", talker.server)
        await other.gateway.database.refresh_epochs()
        mine = {"mcp-session-id": await session(one)}
        calling = asyncio.create_task(post(one, "admin", called("slow"), mine))
        await asyncio.wait_for(talker.started.wait(), 60)
        await post(other, "admin", {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 7}}, mine)
        await asyncio.wait_for(talker.cancelled.wait(), 60)
        assert (await calling).status_code == 202


@SQLITE
async def test_a_clients_roots_and_progress_reach_the_server_they_are_for(open_home: House) -> None:
    desk, shop = Talker(), Talker()
    await upstream(open_home, "legacy", desk.server)
    await upstream(open_home, "legacy", shop.server, "shop")
    mine, other = [{"mcp-session-id": await session(open_home, path="/mcp", capabilities=ABLE)} for _ in range(2)]
    for tool in ("shop_count", "desk_count"):
        await post(open_home, "admin", called(tool, to=1), mine, "/mcp")
    changed = {"jsonrpc": "2.0", "method": "notifications/roots/list_changed"}
    for headers in (other, {}, mine):
        assert (await post(open_home, "admin", changed, headers, "/mcp")).status_code == 202
    await until(lambda: desk.heard == ["roots"] and shop.heard == ["roots"], every=0.01)  # of the one that has sessions there

    def progress(token: Any) -> dict[str, Any]:
        return {"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": token, "progress": 1}}

    async with stream(open_home, "admin", called("desk_ponder"), mine, "/mcp") as events:
        question = await events.next()
        token = question["params"]["_meta"]["progressToken"]
        for headers, given in ((other, token), (mine, "other"), (mine, token)):
            await post(open_home, "admin", progress(given), headers, "/mcp")
        await until(lambda: desk.heard[1:] == [1.0], every=0.01)
        answer = {"role": "assistant", "content": {"type": "text", "text": "deep"}, "model": "m-1"}
        await post(open_home, "admin", {"jsonrpc": "2.0", "id": question["id"], "result": answer}, mine, "/mcp")
        assert (await events.next())["result"]["content"][0]["text"] == "m-1"
    assert shop.heard == ["roots"]


@SQLITE
async def test_a_resumed_stream_ends_with_its_client_its_session_or_its_token(open_home: House) -> None:  # attack PRO-08
    await upstream(open_home, "legacy", Talker().server)
    mine, door = {"mcp-session-id": await session(open_home)}, listening.RESUMED_MAX
    again = [{**mine, "last-event-id": f"never-said-{number}.0"} for number in range(door + 1)]
    async with AsyncExitStack() as open_streams:
        first, *others = [await open_streams.enter_async_context(stream(open_home, "admin", None, each, verb="GET")) for each in again]
        assert await asyncio.wait_for(first.next(), 60) is None  # it made room
        assert open_home.gateway.open_streams.total_count == door
        await open_home.http.delete("/mcp/desk", headers={**mine, "authorization": f"Bearer {open_home.token('admin')}"})
        for each in others[1:]:
            assert await asyncio.wait_for(each.next(), 60) is None
    await until(lambda: open_home.gateway.open_streams.total_count == 0, every=0.05)


@SQLITE
async def test_a_client_that_leaves_a_stream_leaves_nothing_behind(open_home: House) -> None:  # attack PRO-08
    await upstream(open_home, "legacy", Talker().server)
    mine = {"mcp-session-id": await session(open_home)}
    for headers in ({"last-event-id": "never-said.0"}, {}):
        async with stream(open_home, "admin", None, {**mine, **headers}, verb="GET"):
            assert open_home.gateway.open_streams.total_count == 1
        await until(lambda: open_home.gateway.open_streams.total_count == 0, every=0.05)


@SQLITE
async def test_a_person_has_so_many_streams_open_and_no_more(open_home: House, monkeypatch: pytest.MonkeyPatch) -> None:  # attack PRO-08
    monkeypatch.setattr(open_home.gateway.open_streams, "_per_person_max", 0)
    await upstream(open_home, "legacy", Talker().server)
    mine = {"mcp-session-id": await session(open_home)}
    for body, headers, verb in ((None, mine, "GET"), (None, {**mine, "last-event-id": "a.0"}, "GET"), (*LISTEN, "POST")):
        async with stream(open_home, "admin", body, headers, verb=verb) as events:
            assert events.answer.status_code == 429, headers
