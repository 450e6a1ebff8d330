"""Clients of the first two revisions: HTTP+SSE of 2024-11-05, and the batches of 2025-03-26."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from mcp.client.session import ClientSession
from mcp.client.sse import sse_client
from mcp.shared.exceptions import MCPError

from tests.fakes.house import House, house, open_house
from tests.fakes.mcp_clients import Person, text, upstream
from tests.fakes.mcp_talkers import Talker
from tests.fakes.mcp_wire import ABLE, document, post, session, stream
from tests.fakes.waiting import until

SQLITE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
ERAS = pytest.mark.parametrize("era", ["modern", "legacy"])
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@asynccontextmanager
async def sse(home: House, user: str = "admin", path: str = "/mcp/desk", **able: Any) -> AsyncIterator[ClientSession]:
    """The reference client of HTTP+SSE."""
    headers = {"Authorization": f"Bearer {home.token(user)}"}
    async with (
        sse_client(f"{home.url}{path}", headers=headers, timeout=60, sse_read_timeout=60) as (read, write),
        ClientSession(read, write, **able) as client,
    ):
        await client.initialize()
        yield client


@SQLITE
@ERAS
async def test_the_reference_client_of_http_sse_does_what_newer_ones_do(open_home: House, era: Any) -> None:
    await upstream(open_home, era, Talker().server)
    person = Person()
    async with sse(open_home, **person.able(), logging_callback=person.logged) as client:
        assert "greet" in [tool.name for tool in (await client.list_tools()).tools]
        assert text(await client.call_tool("greet", {})) == "hello Ada"
        assert text(await client.call_tool("count", {"to": 3}, progress_callback=person.progressed)) == "done"
        await client.send_ping()
    assert person.asked == ["Who are you?"] and person.progress == [1, 2, 3] and "a warning" in person.logs


# attack: somebody else posts to the address of a stream
@SQLITE
async def test_a_refusal_says_on_the_stream_what_it_says_elsewhere(open_home: House) -> None:
    async with sse(open_home, path="/mcp") as client:
        with pytest.raises(MCPError) as refused:
            await client.call_tool("nothing", {})
    data = refused.value.error.data
    assert data == {"reason_id": "unknown", "trace_id": data["trace_id"]}


async def test_a_stream_is_its_holders_alone_and_ends_with_its_session(open_home: House) -> None:
    await upstream(open_home, "modern", Talker().server)
    async with stream(open_home, "admin", None, {}, "/mcp/desk?mode=all", "GET") as events:
        address = await events.address()
        assert address.startswith("/mcp/desk?mode=all&sessionId=")
        for user, path in (("mel", address), ("admin", address[:-4] + "AAAA"), ("admin", address.replace("/desk", ""))):
            assert (await post(open_home, user, document("ping", {}), {}, path)).status_code == 404
        taken = await post(open_home, "admin", document("ping", {}, 5), {}, address)
        assert (taken.status_code, taken.content) == (202, b"Accepted")
        assert await events.next() == {"jsonrpc": "2.0", "id": 5, "result": {}}
        await post(open_home, "admin", document("nothing", {}, 6), {}, address)
        assert (await events.next())["error"]["code"] == -32601

    async def ended() -> bool:
        return (await post(open_home, "admin", document("ping", {}), {}, address)).status_code == 404

    await until(ended, every=0.05)
    async with stream(open_home, "alice", None, {}, "/mcp/desk", "GET") as events:
        assert events.answer.status_code == 404


@SQLITE
async def test_each_answer_on_a_stream_has_an_id_to_resume_after(open_home: House) -> None:
    async with stream(open_home, "admin", None, {}, "/mcp", "GET") as events:
        address, ids = await events.address(), set()
        for number in range(2):
            await post(open_home, "admin", document("ping", {}, number), {}, address)
            assert (await events.next())["id"] == number
            ids.add(events.last_id)
    assert len(ids - {""}) == 2


async def test_what_another_process_takes_is_answered_on_the_stream(tmp_path: Path, postgres_url: str) -> None:
    async with (
        open_house(tmp_path / "home", postgres_url) as one,
        house(tmp_path / "home", postgres_url, server={"public_url": one.url}) as other,
    ):
        await upstream(one, "legacy", Talker().server)
        await other.gateway.database.refresh_epochs()
        async with stream(one, "admin", None, {}, "/mcp/desk", "GET") as events:
            address = await events.address()
            params = {"protocolVersion": "2024-11-05", "capabilities": ABLE, "clientInfo": {"name": "t", "version": "1"}}
            for home, body in ((other, document("initialize", params, 1)), (one, document("tools/list", {}, 2))):
                assert (await post(home, "admin", body, {}, address)).status_code == 202
                assert (await asyncio.wait_for(events.next(), 60))["id"] == body["id"]
            called = document("tools/call", {"name": "greet", "arguments": {}}, 3)
            calling = asyncio.create_task(post(other, "admin", called, {}, address))
            question = await asyncio.wait_for(events.next(), 60)
            answer = {"jsonrpc": "2.0", "id": question["id"], "result": {"action": "accept", "content": {"name": "Ada"}}}
            assert (await post(one, "admin", answer, {}, address)).status_code == 202
            assert (await asyncio.wait_for(events.next(), 60))["result"]["content"][0]["text"] == "hello Ada"
            assert (await calling).status_code == 202


BATCH = [
    document("ping", {}, 1),
    {"jsonrpc": "2.0", "method": "notifications/initialized"},
    document("tools/call", {"name": "count", "arguments": {"to": 2}}, "two"),
    document("nothing", {}, 3),
    {"jsonrpc": "2.0"},
    document("initialize", {}, 4),
]


@SQLITE
async def test_a_batch_is_answered_together_message_by_message(open_home: House) -> None:
    await upstream(open_home, "legacy", Talker().server)
    mine = {"mcp-session-id": await session(open_home, version="2025-03-26"), "accept": "application/json"}
    answer = await post(open_home, "admin", BATCH, mine)
    found = {each["id"]: each for each in answer.json()}
    assert list(found) == [1, "two", 3, None, 4]
    assert found[1]["result"] == {} and found["two"]["result"]["content"][0]["text"] == "done"
    assert [found[each]["error"]["code"] for each in (3, None, 4)] == [-32601, -32600, -32600]
    told = await post(open_home, "admin", BATCH[1:2], mine)
    assert (told.status_code, told.content) == (202, b"")


@SQLITE
async def test_what_is_said_and_asked_within_a_batch_comes_on_its_stream(open_home: House) -> None:
    await upstream(open_home, "legacy", Talker().server)
    mine = {"mcp-session-id": await session(open_home, capabilities=ABLE, version="2025-03-26")}
    batch = [document("tools/call", {"name": "greet", "arguments": {}}, 1), document("ping", {}, 2)]
    async with stream(open_home, "admin", batch, mine) as events:
        question = await events.next()
        answer = {"jsonrpc": "2.0", "id": question["id"], "result": {"action": "accept", "content": {"name": "Ada"}}}
        assert (await post(open_home, "admin", [answer], mine)).status_code == 202
        both = {message["id"]: message["result"] for message in [await events.next(), await events.next()]}
        assert both[1]["content"][0]["text"] == "hello Ada" and both[2] == {}
        assert await events.next() is None


@SQLITE
@pytest.mark.parametrize("version", ["2025-11-25", "2025-06-18", "2024-11-05"])
async def test_no_other_revision_has_batches(open_home: House, version: str) -> None:
    await upstream(open_home, "legacy", Talker().server)
    mine = {"mcp-session-id": await session(open_home, version=version)}
    for headers, body in ((mine, BATCH[:1]), ({}, BATCH[:1])):
        refused = await post(open_home, "admin", body, headers)
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, -32600)
    right = {"mcp-session-id": await session(open_home, version="2025-03-26")}
    for body in ([], [document("ping", {}, number) for number in range(51)]):
        assert (await post(open_home, "admin", body, right)).json()["error"]["code"] == -32600


@SQLITE
async def test_one_message_that_is_wrong_costs_no_other_its_answer(open_home: House) -> None:
    await upstream(open_home, "modern", Talker().server)
    mine = {"mcp-session-id": await session(open_home, version="2025-03-26")}
    wrong = document("ping", {"_meta": {"progressToken": True}}, 2)
    answer = await post(open_home, "admin", [document("ping", {}, 1), wrong, document("ping", {}, 3)], mine)
    one, bad, three = answer.json()
    assert (one["result"], bad["id"], bad["error"]["code"], three["result"]) == ({}, 2, -32602, {})


@SQLITE
async def test_what_is_posted_to_no_stream_is_not_taken(open_home: House) -> None:  # attack PRO-12
    await upstream(open_home, "modern", Talker().server)
    mine = await session(open_home)
    answer = await post(open_home, "admin", document("tools/list", {}), {}, f"/mcp/desk?sessionId={mine}")
    assert answer.status_code == 404
