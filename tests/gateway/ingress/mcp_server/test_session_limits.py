"""What a session's holder can make the gateway keep: what belongs to real questions and requests, and not too much of that."""

import asyncio
import itertools
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from gateway.ingress.mcp_server import http_sse
from gateway.ingress.mcp_server.legacy import exchange
from gateway.ingress.mcp_server.legacy import stream_quota as allowance
from gateway.ingress.mcp_server.legacy import streams as kept_streams
from gateway.ingress.mcp_server.legacy.question_ids import QuestionIds
from gateway.ingress.mcp_server.legacy.streams import Streams
from gateway.ingress.mcp_server.protocol.sessions import McpSession
from gateway.storage import mailbox as mailboxes
from gateway.storage.database import Database
from gateway.storage.mailbox import MailboxFull, ProcessMailbox
from gateway.storage.tables import mail, mcp_events
from policies.keys.signing import SigningKeys
from tests.fakes.house import House, house, open_house
from tests.fakes.mcp_clients import upstream
from tests.fakes.mcp_talkers import Talker
from tests.fakes.mcp_wire import ABLE, document, post, session, stream

MINE = McpSession("s" * 64, "default|dev|mel\nmel", "/mcp", "2025-11-25", {})


async def rows(database: Database, table: Any) -> int:
    await database.write(lambda batch: None)  # whatever was posted before is there now
    return int(await database.read(lambda connection: connection.execute(select(func.count()).select_from(table)).scalar()) or 0)


def test_an_id_is_known_in_every_process_and_good_for_one_session(tmp_path: Path) -> None:  # attack PRO-12
    keys = SigningKeys.open(tmp_path)
    here, there = QuestionIds(keys), QuestionIds(keys)
    mark = here.new_id("session-1")
    assert there.is_issued(mark, "session-1") and mark != here.new_id("session-1")
    number, _, proof = mark.partition(".")
    for other in ("", "q_1", number, f"{number}.", f"{number}.{proof[:-1]}", f"q_1.{proof}", f"{number}.ß", mark + "0" * 100):
        assert not there.is_issued(other, "session-1")
    assert not there.is_issued(mark, "session-2")
    keys.rotate()
    assert there.is_issued(mark, "session-1") and there.is_issued(here.new_id("session-1"), "session-1")


async def test_what_is_an_answer_to_nothing_and_cancels_nothing_is_not_kept(open_home: House) -> None:  # attack PRO-12
    await upstream(open_home, "legacy", Talker().server)
    mine = {"mcp-session-id": await session(open_home, capabilities=ABLE)}
    made_up = [{"jsonrpc": "2.0", "id": f"q_{number:024x}.{'0' * 32}", "result": {"x": "y" * 1000}} for number in range(10)]
    cancels = [{"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": number}} for number in range(10)]
    answers = await asyncio.gather(*(post(open_home, "admin", each, mine) for each in (*made_up, *cancels)))
    assert {answer.status_code for answer in answers} == {202}
    assert await rows(open_home.gateway.database, mail) == 0


async def test_a_real_question_takes_one_answer_of_a_size(open_home: House, monkeypatch: pytest.MonkeyPatch) -> None:  # attack PRO-12
    monkeypatch.setattr(exchange, "ANSWER_BYTES_MAX", 10_000)
    await upstream(open_home, "legacy", Talker().server)
    mine = {"mcp-session-id": await session(open_home, capabilities=ABLE)}
    other = {"mcp-session-id": await session(open_home, capabilities=ABLE)}
    async with stream(open_home, "admin", document("tools/call", {"name": "greet", "arguments": {}}, 7), mine) as events:
        async with asyncio.timeout(60):
            while "method" not in (question := await events.next()):
                pass
        large = {"jsonrpc": "2.0", "id": question["id"], "result": {"x": "y" * 20_000}}
        assert (await post(open_home, "admin", large, mine)).status_code == 400
        ada = {"jsonrpc": "2.0", "id": question["id"], "result": {"action": "accept", "content": {"name": "Ada"}}}
        assert (await post(open_home, "admin", ada, other)).status_code == 202  # another session's, which means nothing there
        assert await rows(open_home.gateway.database, mail) <= 1  # that the request is under way
        for _ in range(3):
            assert (await post(open_home, "admin", ada, mine)).status_code == 202
        async with asyncio.timeout(60):
            assert (await events.next())["result"]["content"][0]["text"] == "hello Ada"
    assert await rows(open_home.gateway.database, mail) <= 2


async def test_letters_to_one_session_are_so_many_and_no_more(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:  # attack PRO-12
    monkeypatch.setattr(mailboxes, "FOLDER_BYTES_MAX", 1000)
    box = ProcessMailbox(database, lambda: 0)
    sizes = [b"1" * 300] * 4 if box.is_shared else []
    for number, body in enumerate(sizes[:3]):
        await box.send(f"answer/a/{number}", body, 60, folder="answer/a/")
    for body in sizes[3:]:
        with pytest.raises(MailboxFull):
            await box.send("answer/a/4", body, 60, folder="answer/a/")
    for number in range(mailboxes.FOLDER_ROWS_MAX):
        await box.send(f"answer/b/{number}", b"1", 60, folder="answer/b/")
    if box.is_shared:
        with pytest.raises(MailboxFull):
            await box.send("answer/b/more", b"1", 60, folder="answer/b/")
    await box.send("answer/c/1", b"1", 60, folder="answer/c/")  # somebody else's
    assert await rows(database, mail) == (3 + mailboxes.FOLDER_ROWS_MAX + 1 if box.is_shared else 0)


@pytest.mark.parametrize(
    ("limit", "most"), [("SESSION_ROWS_MAX", 5), ("SESSION_BYTES_MAX", 500), ("HOLDER_ROWS_MAX", 5), ("HOLDER_BYTES_MAX", 500)]
)
async def test_what_is_said_on_streams_is_kept_as_far_as_there_is_room(  # attack PRO-12
    database: Database, monkeypatch: pytest.MonkeyPatch, limit: str, most: int
) -> None:
    monkeypatch.setattr(allowance, limit, most)
    now = itertools.count(1)
    streams = Streams(database, lambda: next(now))
    framed = []
    for _ in range(20):
        one = streams.open(MINE)  # each request has a stream of its own
        framed.append(one.record_event(b"x" * 100))
    assert [each.startswith(b"id: ") for each in framed] == [True] * 5 + [False] * 15
    assert await rows(database, mcp_events) == 5
    assert streams.open(MINE).record_last_event(b"y" * 1000) == ""
    if limit.startswith("SESSION"):
        assert Streams(database, lambda: next(now)).open(MINE).record_last_event(b"y") != ""


async def test_what_waits_for_a_stream_that_nobody_reads_has_an_end(  # attack PRO-12
    tmp_path: Path, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_streams, "QUEUED_ROWS_MAX", 5)
    monkeypatch.setattr(http_sse, "POLL_SECONDS", 3600)  # the process that has the stream does not look
    async with (
        open_house(tmp_path / "home", postgres_url) as one,
        house(tmp_path / "home", postgres_url, server={"public_url": one.url}) as other,
    ):
        await upstream(one, "legacy", Talker().server)
        await other.gateway.database.refresh_epochs()
        async with stream(one, "admin", None, {}, "/mcp/desk", "GET") as events:
            address = await events.address()
            taken = [(await post(other, "admin", document("ping", {}, number), {}, address)).status_code for number in range(12)]
            assert taken[:5] == [202] * 5 and taken[6:] == [429] * 6  # the last one may not be counted yet
            refused = await post(other, "admin", document("ping", {}, 13), {}, address)
            assert (refused.json()["error"]["code"], refused.json()["error"]["data"]["reason_id"]) == (-32012, "too-much-kept")
