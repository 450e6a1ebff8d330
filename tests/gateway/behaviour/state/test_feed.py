"""The feed of changes: server-sent events that go on where they broke, in every process."""

import json
from pathlib import Path
from typing import Any

import pytest

from gateway.state.board import feed
from gateway.state.tables import state_changes
from tests.fakes.board import KEY, ROLES, USERS, BoardHome
from tests.fakes.house import two
from tests.gateway.ingress.admin.test_delegated_administration import ticket

sqlite_only = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
postgres_only = pytest.mark.parametrize("database_url", ["postgres"], indirect=True)


@pytest.fixture(autouse=True)
def _short_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "STREAM_ROUNDS", 1)
    monkeypatch.setattr(feed, "POLL_SECONDS", 0)


async def events(board: BoardHome, query: str, user: str = "ann", last: str = "0") -> list[dict[str, Any]]:
    answer = await board.ask("GET", query, user, accept="text/event-stream", last_event_id=last)
    assert answer.status_code == 200, answer.text
    found = [json.loads(line.removeprefix("data: ")) for line in answer.text.splitlines() if line.startswith("data: ")]
    assert [f"id: {each['id']}" for each in found] == [line for line in answer.text.splitlines() if line.startswith("id: ")]
    return found


async def test_a_follower_goes_on_after_the_event_it_saw_last(board: BoardHome) -> None:
    await board.put(KEY, "open")
    await board.put(KEY, "closed", if_match='"1"')
    await board.ask("DELETE", f"/{KEY}", if_match="*")
    seen = await events(board, "?prefix=customer/42")
    assert [(each["kind"], each["version"], each.get("value")) for each in seen] == [
        ("set", 1, "open"),
        ("set", 2, "closed"),
        ("deleted", 3, None),
    ]
    assert [each["version"] for each in await events(board, "?prefix=customer/42", last=seen[1]["id"])] == [3]


@sqlite_only
async def test_a_follower_sees_only_changes_that_it_may_read(board: BoardHome) -> None:
    for key in ("customer/4/status", KEY, "customer/42", "customer/43/status"):
        await board.put(key, 1, "admin")
    assert [each["key"] for each in await events(board, "?prefix=customer/42")] == [KEY, "customer/42"]
    assert [each["key"] for each in await events(board, "?prefix=customer/4", "fay")] == ["customer/4/status"]
    assert [each["key"] for each in await events(board, "?prefix=customer", "stu")] == [
        "customer/4/status",
        KEY,
        "customer/42",
        "customer/43/status",
    ]
    refused = await board.ask("GET", "?prefix=customer", "ann", accept="text/event-stream")
    assert (refused.status_code, refused.json()["reason_id"]) == (403, "user-lacks-permission")


@sqlite_only
async def test_a_follower_learns_of_changes_that_were_deleted_for_their_age(board: BoardHome) -> None:
    await board.put(KEY, 1)
    await board.put(KEY, 2, if_match="*")
    database, pruning = board.home.gateway.database, board.home.gateway.board._pruning
    await database.write(lambda batch: batch.connection.execute(state_changes.update().where(state_changes.c.seq == 1).values(at=1)))
    await pruning.run_once()
    assert [each["kind"] for each in await events(board, "?prefix=customer/42")] == ["gap", "set"]
    assert [each["kind"] for each in await events(board, "?prefix=customer/42", last="1")] == ["set"]


@postgres_only
async def test_changes_of_another_process_are_followed(tmp_path: Path, database_url: str) -> None:
    async with two(tmp_path / "home", database_url, roles=ROLES, users=USERS) as (first, second):
        writer, reader = BoardHome(first), BoardHome(second)
        await writer.put(KEY, "open")
        assert [each["value"] for each in await events(reader, "?prefix=customer/42")] == ["open"]
        assert (await reader.value(KEY))["version"] == 1
        assert (await reader.put(KEY, "closed", if_match='"1"')).status_code == 200
        assert (await writer.put(KEY, "lost", if_match='"1"')).status_code == 412


@sqlite_only
async def test_an_agent_follows_changes_without_their_values(board: BoardHome) -> None:
    await board.put(KEY, "secret", "admin")
    headers = {**await ticket(board.home), "accept": "text/event-stream", "last-event-id": "0"}
    answer = await board.home.http.get("/api/state?prefix=customer/42", headers=headers)
    assert answer.status_code == 200 and KEY in answer.text and "secret" not in answer.text
    assert "secret" in (await board.home.http.get(f"/api/state/{KEY}", headers={**headers, "accept": "*/*"})).text


@sqlite_only
async def test_a_new_follower_learns_its_place_first(board: BoardHome) -> None:
    await board.put(KEY, 1)
    answer = await board.ask("GET", "?prefix=customer/42", accept="text/event-stream")
    assert answer.text.startswith("id: 1\nevent: begin\n") and "event: set" not in answer.text
