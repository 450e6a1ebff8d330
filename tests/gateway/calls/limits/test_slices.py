"""Long lists leave the event loop to other requests."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gateway.calls.limits import slices
from gateway.calls.limits.slices import SLICE, Slices, give_way_to
from tests.fakes.house import house
from tests.fakes.slices import StepCounter

ITEMS = 3 * SLICE
WRITE_SECONDS_MAX = 60
ENDLESS_SECONDS = 3600.0


@pytest.fixture(autouse=True)
def no_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slice ends by its items alone, however slow the machine is."""
    monkeypatch.setattr(slices, "SLICE_SECONDS", ENDLESS_SECONDS)


def counted(counter: StepCounter, items: int = ITEMS) -> Iterator[int]:
    for number in range(items):
        counter.count()
        yield number


async def read(items: Iterator[int]) -> list[int]:
    return [item async for item in Slices(items)]


async def test_a_long_list_gives_way_after_each_slice() -> None:
    counter = StepCounter()
    async with counter.watch():
        assert await read(counted(counter)) == list(range(ITEMS))
    assert counter.most_in_one_iteration <= SLICE


async def test_many_lists_at_once_share_a_slice_and_take_turns() -> None:
    counter, ends = StepCounter(), []

    async def read_and_note(name: str, items: int) -> None:
        await read(counted(counter, items))
        ends.append(name)

    async with counter.watch():
        await asyncio.gather(*(read_and_note("long", 10 * SLICE) for _ in range(5)), read_and_note("short", 10))
    assert counter.most_in_one_iteration <= SLICE
    assert ends == ["short", *["long"] * 5]


async def test_a_short_list_is_read_in_one_go() -> None:
    other_ran = asyncio.Event()
    asyncio.get_running_loop().call_soon(other_ran.set)
    assert await read(iter(range(SLICE - 1))) == list(range(SLICE - 1))
    assert not other_ran.is_set()


async def test_canceled_lists_keep_no_turn() -> None:
    reading = [asyncio.create_task(read(iter(range(10 * SLICE)))) for _ in range(3)]
    await asyncio.sleep(0)
    for each in reading[:2]:
        each.cancel()
    assert await read(iter(range(ITEMS))) == list(range(ITEMS))
    assert len(await reading[2]) == 10 * SLICE


async def test_the_last_item_of_an_abandoned_list_gives_the_quota_back() -> None:
    async for _ in Slices(range(SLICE)):
        break
    counter = StepCounter()
    async with counter.watch():
        await read(counted(counter))
    assert counter.total == ITEMS


async def test_an_iteration_begins_no_further_item_when_its_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    counter, seconds = StepCounter(), 0.005
    monkeypatch.setattr(slices, "SLICE_SECONDS", 2 * seconds)

    def slow_items() -> Iterator[int]:
        for number in range(20):
            counter.count()
            ends = time.perf_counter() + seconds
            while time.perf_counter() < ends:
                pass
            yield number

    async with counter.watch():
        assert len(await read(slow_items())) == 20
    assert counter.most_in_one_iteration <= 4


async def test_slices_have_all_items_in_order_and_at_most_the_length_asked_for() -> None:
    counter, items, taken = StepCounter(), list[int](), list[list[int]]()
    async with counter.watch():
        numbers = Slices(counted(counter))
        while part := await numbers.next_slice(7):
            taken.append(part)
            items += part
    assert items == list(range(ITEMS))
    assert max(map(len, taken)) == 7
    assert counter.most_in_one_iteration <= SLICE


class CommitUnderWay:
    """A commit that ends when the test says so, or never."""

    def __init__(self) -> None:
        self.waiting: list[Callable[[], object]] = []
        self.is_awaited = asyncio.Event()
        self.is_under_way = True

    def call_after_commit(self, callback: Callable[[], object]) -> bool:
        if self.is_under_way:
            self.waiting.append(callback)
            self.is_awaited.set()
        return self.is_under_way

    def end(self) -> None:
        self.is_under_way = False
        for callback in self.waiting:
            callback()


async def test_a_list_waits_for_the_commit_under_way_and_goes_on_at_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slices, "PAUSE_SECONDS", ENDLESS_SECONDS)
    commit, counter = CommitUnderWay(), StepCounter()
    give_way_to(commit)
    reading = asyncio.create_task(read(counted(counter)))
    await commit.is_awaited.wait()
    before = counter.total
    for _ in range(10):
        await asyncio.sleep(0)
    assert counter.total == before <= SLICE
    commit.end()
    assert await reading == list(range(ITEMS))


async def test_a_list_goes_on_beside_commits_that_never_end() -> None:
    commit = CommitUnderWay()
    give_way_to(commit)
    assert await read(iter(range(ITEMS))) == list(range(ITEMS))
    assert commit.waiting


async def test_lists_of_a_started_gateway_wait_for_its_commits(tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slices, "PAUSE_SECONDS", ENDLESS_SECONDS)
    has_begun, may_end, counter = threading.Event(), threading.Event(), StepCounter()
    async with house(tmp_path / "home", database_url) as home:
        writing = asyncio.create_task(home.gateway.database.write(lambda _: (has_begun.set(), may_end.wait(WRITE_SECONDS_MAX))))
        await asyncio.to_thread(has_begun.wait)
        reading = asyncio.create_task(read(counted(counter)))
        for _ in range(10 * ITEMS):
            await asyncio.sleep(0)
        seen = counter.total
        may_end.set()
        assert await reading == list(range(ITEMS))
        await writing
    assert 0 < seen <= SLICE
