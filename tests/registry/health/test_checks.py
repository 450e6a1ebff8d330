"""When agents are looked at again: a minute later while they answer, later each time while they don't, once among all processes."""

import pytest

from gateway.storage.database import Database
from registry.health.checks import CLAIMED, DOWN_AFTER, EVERY, SLOWEST, Health, Probes
from tests.fakes.clock import Clock

KEY, OTHER = ("default", "sales"), ("acme", "sales")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def probes(database: Database, clock: Clock) -> Probes:
    return Probes(database, clock.us)


async def test_a_first_look_comes_an_interval_later_and_then_every_interval(probes: Probes, clock: Clock) -> None:
    assert await probes.due([KEY, OTHER], 10) == []
    clock.now += EVERY - 1
    assert await probes.due([KEY, OTHER], 10) == []
    clock.now += 1
    assert sorted(await probes.due([KEY, OTHER], 10)) == [OTHER, KEY]
    await probes.seen(KEY, Health(place="https://sales.example/", etag='"1"'))
    found = await probes.health(KEY)
    assert (found.etag, found.failures, found.checked) == ('"1"', 0, clock.us())
    clock.now += EVERY
    assert await probes.due([KEY], 10) == [KEY]


async def test_a_look_is_taken_by_one_process_and_comes_back_when_it_dies(probes: Probes, database: Database, clock: Clock) -> None:
    other = Probes(database, clock.us)
    await probes.due([KEY], 10)
    clock.now += EVERY
    assert await probes.due([KEY], 10) == [KEY]
    assert await other.due([KEY], 10) == []
    clock.now += CLAIMED
    assert await other.due([KEY], 10) == [KEY]


async def test_who_does_not_answer_is_looked_at_less_often_and_remembered_as_down(probes: Probes, clock: Clock) -> None:
    waits = []
    for number in range(1, 9):
        found = await probes.missed(KEY, "the upstream can't be reached")
        waits.append((found.next_at - clock.us()) / 1_000_000)
        assert found.down is (number >= DOWN_AFTER)
    assert waits == [60, 120, 240, 480, SLOWEST, SLOWEST, SLOWEST, SLOWEST]
    assert (await probes.health(KEY)).note == "the upstream can't be reached"
    back = await probes.seen(KEY, Health())
    assert (back.failures, back.note, back.down) == (0, "", False)


async def test_only_so_many_are_taken_at_once_and_the_longest_waiting_first(probes: Probes, clock: Clock) -> None:
    await probes.due([KEY], 10)
    clock.now += 1
    await probes.due([KEY, OTHER], 10)
    clock.now += EVERY
    assert await probes.due([KEY, OTHER], 1) == [KEY]
    assert await probes.due([KEY, OTHER], 1) == [OTHER]
