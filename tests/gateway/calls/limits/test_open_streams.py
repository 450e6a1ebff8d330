"""Streams take places, of which one person has so many; a place is free again however its stream ends."""

import asyncio
import gc
from typing import Any

import pytest

from gateway.calls.limits.open_streams import PER_PERSON_MAX, OpenStreams, TooManyStreams
from tests.fakes.a2a_agents import a2a_agent, serving
from tests.fakes.a2a_doors import DOORS, ask, events, message_of, result, said
from tests.fakes.house import House
from tests.fakes.waiting import until

on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
ALICE = "default|interlock-development|alice"


async def _one() -> Any:
    yield 1


async def test_a_place_is_free_again_whether_its_stream_ended_broke_or_never_began() -> None:
    places = OpenStreams(2)
    ended, dropped = places.acquire("a").hold_during(_one()), places.acquire("a").hold_during(_one())
    with pytest.raises(TooManyStreams):
        places.acquire("a")
    places.acquire("b")
    assert [each async for each in ended] == [1]
    del ended, dropped
    gc.collect()
    assert places.total_count == 0
    with pytest.raises(ZeroDivisionError):
        _failing(places)
    assert places.total_count == 0


def _failing(places: OpenStreams) -> None:
    place = places.acquire("a")
    place.hold_during([_one()][1 // 0])


# attack PRO-08
@pytest.mark.parametrize("door", DOORS)
@on_sqlite
async def test_one_person_has_so_many_streams_and_nobody_else_suffers(home: House, door: str) -> None:
    url = await home.stack.enter_async_context(serving(a2a_agent()))
    await home.registered("sales", url, facts={"version": "1.0", "streaming": True})
    places = home.gateway.open_streams
    task = result(door, await ask(home, door, "send", {"message": message_of(door, "ask")}))["id"]
    held = [places.acquire(ALICE) for _ in range(PER_PERSON_MAX - 1)]
    watching = asyncio.create_task(ask(home, door, "subscribe", {"id": task}))
    await until(lambda: places.total_count == PER_PERSON_MAX)
    begun = len((await _tasks(home))["items"])
    for act, params in (("subscribe", {"id": task}), ("stream", {"message": message_of(door, "pieces")})):
        refused = await ask(home, door, act, params)
        assert (said(door, refused).status, said(door, refused).reason) == (429, "TOO_MANY_STREAMS")
        assert refused.headers["retry-after"]
    over = await home.http.get(f"/api/tasks/{task}/events", headers={"authorization": f"Bearer {home.token('alice')}"})
    assert (over.status_code, over.json()["reason_id"]) == (429, "too-many-streams")
    assert len((await _tasks(home))["items"]) == begun  # nothing was sent that nobody can watch
    assert len(events(await ask(home, door, "stream", {"message": message_of(door, "pieces")}, user="bob"))) > 3
    assert (await ask(home, door, "get", {"id": task})).status_code == 200
    await ask(home, door, "cancel", {"id": task})
    async with asyncio.timeout(60):
        assert events(await watching)
    del watching
    await until(lambda: places.total_count == len(held))
    assert events(await ask(home, door, "stream", {"message": message_of(door, "pieces")}))
    await until(lambda: places.total_count == len(held))
    held.clear()
    assert places.total_count == 0


async def _tasks(home: House) -> Any:
    return (await home.http.get("/api/tasks?limit=200", headers={"authorization": f"Bearer {home.token('alice')}"})).json()
