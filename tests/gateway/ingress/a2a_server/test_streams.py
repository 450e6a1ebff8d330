"""Streams at each door: numbered, taken up again where they broke, and the same for everyone."""

import asyncio
from typing import Any

import pytest

from tests.fakes.a2a_agents import a2a_agent, serving
from tests.fakes.a2a_doors import DOORS, ask, events, message_of, result, state_of
from tests.fakes.house import House
from tests.fakes.waiting import until

every_door = pytest.mark.parametrize("door", DOORS)
on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
RESUMPTION = "urn:interlock:a2a:resumption:1"


async def scripted(home: House) -> None:
    url = await home.stack.enter_async_context(serving(a2a_agent()))
    await home.registered("sales", url, facts={"version": "1.0", "streaming": True})


def kind(event: Any) -> str:
    """task, status or artifact, in the words of any version."""
    if "kind" in event:
        return str(event["kind"]).removesuffix("-update")
    return str(next(iter(event))).removesuffix("Update")


async def streamed(home: House, door: str, text: str) -> tuple[str, list[tuple[int, Any]]]:
    """The id of the task, and what was streamed of it."""
    found = events(await ask(home, door, "stream", {"message": message_of(door, text)}))
    first = found[0][1]
    return str(first.get("id") or first["task"]["id"]), found


async def again(home: House, door: str, task: str, after: int) -> list[tuple[int, Any]]:
    return events(await ask(home, door, "subscribe", {"id": task}, headers={"Last-Event-ID": str(after)}))


async def watched_by(home: House, task: str, count: int) -> None:
    tails = home.gateway.stores.tasks._live_events  # nothing else tells who waits

    def waiting() -> int:
        tail = tails.find("default", task)
        return len(tail._waiters) if tail else 0

    await until(lambda: waiting() == count)


@every_door
@on_sqlite
async def test_a_stream_is_numbered_and_taken_up_anywhere(home: House, door: str) -> None:
    await scripted(home)
    task, seen = await streamed(home, door, "pieces")
    numbers = [number for number, _ in seen]
    assert numbers == list(range(numbers[0], numbers[0] + len(seen))) and kind(seen[0][1]) == "task"
    assert [kind(event) for _, event in seen[1:]].count("artifact") == 3
    for number in numbers:
        assert await again(home, door, task, number) == [each for each in seen if each[0] > number]
    for other in DOORS:
        assert [n for n, _ in await again(home, other, task, numbers[2])] == numbers[3:], other


@every_door
@on_sqlite
async def test_who_waits_with_a_task_sees_it_to_its_end(home: House, door: str) -> None:
    await scripted(home)
    task, seen = await streamed(home, door, "ask")
    last = seen[-1][1]
    assert state_of(last if "kind" in last else last["statusUpdate"]) == "INPUT_REQUIRED"
    watching = asyncio.create_task(ask(home, door, "subscribe", {"id": task}))
    resuming = asyncio.create_task(again(home, door, task, seen[-1][0]))
    await watched_by(home, task, 2)
    await ask(home, door, "send", {"message": message_of(door, "XL", taskId=task)})
    async with asyncio.timeout(60):
        watched, resumed = events(await watching), await resuming
    assert [kind(event) for _, event in watched] == ["task", *(kind(event) for number, event in resumed if number > watched[0][0])]
    assert [kind(event) for _, event in resumed] == ["status", "artifact", "status"]


@on_sqlite
async def test_a_number_that_the_task_has_not_reached_begins_with_a_snapshot(home: House) -> None:
    await scripted(home)
    task = result("rest-1.0", await ask(home, "rest-1.0", "send", {"message": message_of("rest-1.0", "ask")}))["id"]
    watching = asyncio.create_task(again(home, "rest-1.0", task, 999))
    await watched_by(home, task, 1)
    await ask(home, "rest-1.0", "cancel", {"id": task})
    async with asyncio.timeout(60):
        first, *_ = await watching
    assert kind(first[1]) == "task" and first[0] < 999


@on_sqlite
@pytest.mark.parametrize("text", ["-1", "one", "1.5", "9" * 16])
async def test_an_id_that_is_none_of_ours_is_refused(home: House, text: str) -> None:
    await scripted(home)
    answer = await ask(home, "rest-1.0", "subscribe", {"id": "t_1"}, headers={"Last-Event-ID": text})
    assert (answer.status_code, answer.json()["error"]["details"][0]["reason"]) == (400, "BAD_HEADER")


@every_door
@on_sqlite
async def test_who_asks_for_it_is_told_numbers_in_the_events_too(home: House, door: str) -> None:
    await scripted(home)
    headers = {"A2A-Extensions": RESUMPTION}
    answer = await ask(home, door, "stream", {"message": message_of(door, "pieces")}, headers=headers)
    assert answer.headers["a2a-extensions"] == RESUMPTION
    for number, event in events(answer):
        inner = event if "kind" in event else next(iter(event.values()))
        assert inner["metadata"][RESUMPTION] == {"event": number}
    plain = await ask(home, door, "stream", {"message": message_of(door, "pieces")})
    assert RESUMPTION not in plain.text and "a2a-extensions" not in plain.headers


@on_sqlite
async def test_several_subscribers_get_the_same_bytes(home: House) -> None:
    await scripted(home)
    task = result("rest-1.0", await ask(home, "rest-1.0", "send", {"message": message_of("rest-1.0", "ask")}))["id"]
    watching = [asyncio.create_task(ask(home, "rest-1.0", "subscribe", {"id": task})) for _ in range(5)]
    await watched_by(home, task, 5)
    await ask(home, "rest-1.0", "send", {"message": message_of("rest-1.0", "XL", taskId=task)})
    async with asyncio.timeout(60):
        seen = {(await each).content for each in watching}
    assert len(seen) == 1
