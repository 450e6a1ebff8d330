"""When agents are looked at again: a minute later while they answer, later each time while they don't, once among all processes."""

import asyncio

import pytest
from sqlalchemy import delete

from gateway.storage.database import Database
from registry.health.checks import (
    CLAIM_SECONDS,
    DOWN_AFTER,
    DUE_AT_ONCE,
    HOST_CLAIMS_MAX,
    INTERVAL_MAX_SECONDS,
    INTERVAL_SECONDS,
    JITTER,
    EntryKey,
    Probes,
    ProbeState,
)
from registry.tables import probes as table
from tests.fakes.clock import Clock

KEY, OTHER = ("default", "sales"), ("acme", "sales")
ONE, BOTH = {KEY: "sales.example"}, {KEY: "sales.example", OTHER: "acme.example"}


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def probes(database: Database, clock: Clock) -> Probes:
    return Probes(database, clock.us, lambda: 0.0)


async def test_a_first_look_comes_an_interval_later_and_then_every_interval(probes: Probes, clock: Clock) -> None:
    assert await probes.claim_due(BOTH, 10) == []
    clock.now += INTERVAL_SECONDS - 1
    assert await probes.claim_due(BOTH, 10) == []
    clock.now += 1
    assert sorted(await probes.claim_due(BOTH, 10)) == [OTHER, KEY]
    await probes.record_success(KEY, ProbeState(place="https://sales.example/", etag='"1"'))
    found = await probes.read_state(KEY)
    assert (found.etag, found.failures, found.checked) == ('"1"', 0, clock.us())
    clock.now += INTERVAL_SECONDS
    assert await probes.claim_due(ONE, 10) == [KEY]


async def test_a_look_is_taken_by_one_process_and_comes_back_when_it_dies(probes: Probes, database: Database, clock: Clock) -> None:
    other = Probes(database, clock.us, lambda: 0.0)
    await probes.claim_due(ONE, 10)
    clock.now += INTERVAL_SECONDS
    assert await probes.claim_due(ONE, 10) == [KEY]
    assert await other.claim_due(ONE, 10) == []
    clock.now += CLAIM_SECONDS
    assert await other.claim_due(ONE, 10) == [KEY]


async def test_processes_that_claim_at_the_same_time_share_the_checks(database: Database, clock: Clock) -> None:
    hosts = {("default", f"agent-{number}"): f"{number}.example" for number in range(20)}
    processes = [Probes(database, clock.us, lambda: 0.0) for _ in range(3)]
    await processes[0].claim_due(hosts, 10)
    clock.now += INTERVAL_SECONDS
    claimed: list[EntryKey] = []
    while taken := sum(await asyncio.gather(*(each.claim_due(hosts, 5) for each in processes)), start=list[EntryKey]()):
        claimed += taken
    assert sorted(claimed) == sorted(hosts)


async def test_who_does_not_answer_is_looked_at_less_often_and_remembered_as_down(probes: Probes, clock: Clock) -> None:
    waits = []
    for number in range(1, 9):
        found = await probes.record_failure(KEY, "the upstream can't be reached")
        waits.append((found.next_at - clock.us()) / 1_000_000)
        assert found.is_down is (number >= DOWN_AFTER)
    assert waits == [60, 120, 240, 480, INTERVAL_MAX_SECONDS, INTERVAL_MAX_SECONDS, INTERVAL_MAX_SECONDS, INTERVAL_MAX_SECONDS]
    assert (await probes.read_state(KEY)).note == "the upstream can't be reached"
    back = await probes.record_success(KEY, ProbeState())
    assert (back.failures, back.note, back.is_down) == (0, "", False)


async def test_only_so_many_are_taken_at_once_and_the_longest_waiting_first(probes: Probes, clock: Clock) -> None:
    await probes.claim_due(ONE, 10)
    clock.now += 1
    await probes.claim_due(BOTH, 10)
    clock.now += INTERVAL_SECONDS
    assert await probes.claim_due(BOTH, 1) == [KEY]
    assert await probes.claim_due(BOTH, 1) == [OTHER]


async def test_entries_that_are_not_watched_keep_none_of_the_places(probes: Probes, clock: Clock) -> None:
    gone = {("default", f"gone-{number:03}"): f"{number}.example" for number in range(DUE_AT_ONCE + 1)}
    await probes.claim_due(gone, 1)
    clock.now += 1
    await probes.claim_due(ONE, 1)
    clock.now += INTERVAL_SECONDS
    assert await probes.claim_due(ONE, 1) == [KEY]


async def test_a_host_has_so_many_claims_at_most_and_the_others_get_the_rest(probes: Probes, clock: Clock) -> None:
    hosts = {("default", f"big-{number:03}"): "big.example" for number in range(DUE_AT_ONCE + 10)}
    await probes.claim_due(hosts, 1)
    clock.now += 1
    await probes.claim_due(hosts := hosts | ONE, 1)
    clock.now += INTERVAL_SECONDS
    first = await probes.claim_due(hosts, 100, {"big.example": 3})
    assert (len(first), first[-1]) == (HOST_CLAIMS_MAX - 3 + 1, KEY)
    assert await probes.claim_due(hosts, 100, {"big.example": HOST_CLAIMS_MAX}) == []
    assert len(await probes.claim_due(hosts, 10)) == 10


async def test_the_next_check_comes_up_to_a_tenth_earlier_by_chance(database: Database, clock: Clock) -> None:
    probes = Probes(database, clock.us, lambda: 0.5)
    found = await probes.record_success(KEY, ProbeState())
    assert found.next_at - clock.us() == INTERVAL_SECONDS * (1 - JITTER / 2) * 1_000_000
    assert (await probes.record_failure(KEY, "away")).next_at == found.next_at


async def test_new_entries_are_looked_for_when_the_set_of_entries_is_another_one(probes: Probes, clock: Clock) -> None:
    first, second = dict(ONE), dict(BOTH)
    for hosts in (first, second):
        await probes.claim_due(hosts, 10)
    clock.now += INTERVAL_SECONDS
    assert sorted(await probes.claim_due(second, 10)) == [OTHER, KEY]


async def test_an_entry_that_was_removed_and_came_back_is_checked_again(probes: Probes, database: Database, clock: Clock) -> None:
    await probes.claim_due(dict(ONE), 10)
    await database.write(lambda batch: batch.connection.execute(delete(table)))
    await probes.claim_due(dict(ONE), 10)
    clock.now += INTERVAL_SECONDS
    assert await probes.claim_due(dict(ONE), 10) == [KEY]
