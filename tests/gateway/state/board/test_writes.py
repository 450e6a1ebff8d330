"""Values grow by versions, and no change is lost: the laws of the board, on both databases."""

import asyncio

import pytest

from gateway.state.board.counters import BoardLimits
from gateway.state.board.problems import BoardFull, BoardValueTooLarge, StaleVersion, UnknownValue, VersionRequired
from gateway.state.board.store import BoardStore
from gateway.state.board.values import ANY_VERSION, NO_PRECONDITION, Precondition, StoredValue, ValueSource
from gateway.state.board.writes import KeyRef, NewValue, delete_value, set_value
from gateway.storage.database import Database, engine_for
from tests.fakes.subject_versions import read_subject_version

ANN = ValueSource("acme|issuer|ann", ("sales",), "t_1", "d_1", 1)
KEY = KeyRef("acme", "customer/42/status")
LIMITS = BoardLimits(keys_max=5, bytes_max=1000, changes_per_key=3)
NO_VALUE = Precondition(no_value=True)


async def put(database: Database, value: str, ref: KeyRef = KEY, condition: Precondition = NO_PRECONDITION, **more: int) -> StoredValue:
    new = NewValue(ref, value, ANN, condition, more.get("expires"))
    return await database.write(lambda batch: set_value(batch, new, more.get("now", 100), LIMITS))


async def remove(database: Database, condition: Precondition = NO_PRECONDITION, ref: KeyRef = KEY) -> int:
    return await database.write(lambda batch: delete_value(batch, ref, ANN, condition, 200))


def store_at(database: Database, now: int) -> BoardStore:
    return BoardStore(database, lambda: now, LIMITS)


async def test_a_value_has_its_source_and_grows_by_one_version(database: Database) -> None:
    first = await put(database, '"open"')
    second = await put(database, '"closed"', condition=Precondition((1,)))
    found = await store_at(database, 0).find(KEY)
    assert (first.version, second.version) == (1, 2)
    assert found == second and found is not None and found.source == ANN and found.decode() == "closed"


async def test_a_change_of_a_value_names_the_version_that_it_replaces(database: Database) -> None:
    await put(database, "1")
    for condition, refusal in (
        (NO_PRECONDITION, VersionRequired),
        (NO_VALUE, StaleVersion),
        (Precondition((2, 3)), StaleVersion),
    ):
        with pytest.raises(refusal):
            await put(database, "2", condition=condition)
    with pytest.raises(VersionRequired):
        await remove(database)
    assert (await put(database, "2", condition=ANY_VERSION)).version == 2


async def test_a_key_without_value_meets_no_version(database: Database) -> None:
    for condition in (Precondition((1,)), ANY_VERSION):
        with pytest.raises(StaleVersion):
            await put(database, "1", condition=condition)
        with pytest.raises(StaleVersion):
            await remove(database, condition)
    with pytest.raises(UnknownValue):
        await remove(database)
    assert await store_at(database, 0).find(KEY) is None


async def test_a_deleted_key_goes_on_counting_versions(database: Database) -> None:
    await put(database, "1")
    assert await remove(database, Precondition((1,))) == 2
    assert (await put(database, "1", condition=NO_VALUE)).version == 3


async def test_an_expired_value_is_gone_before_any_sweep(database: Database) -> None:
    await put(database, "1", expires=500)
    assert await store_at(database, 499).find(KEY) is not None
    assert await store_at(database, 500).find(KEY) is None
    again = await put(database, "2", condition=NO_VALUE, now=500)
    kinds = [(change.version, change.kind) for change in await store_at(database, 0).history(KEY, None, 10)]
    assert again.version == 3 and kinds == [(3, "set"), (2, "expired"), (1, "set")]


async def test_the_history_of_a_key_keeps_its_newest_changes(database: Database) -> None:
    for number in range(6):
        await put(database, str(number), condition=Precondition((number,)) if number else NO_VALUE)
    history = await store_at(database, 0).history(KEY, None, 10)
    assert [(change.version, change.value) for change in history] == [(6, "5"), (5, "4"), (4, "3")]


async def test_a_tenant_has_quotas_of_keys_and_bytes(database: Database) -> None:
    for number in range(5):
        await put(database, "1", KeyRef("acme", f"k/{number}"))
    with pytest.raises(BoardFull, match="keys_max"):
        await put(database, "1", KeyRef("acme", "k/5"))
    with pytest.raises(BoardFull, match="bytes_max"):
        await put(database, f'"{"x" * 1000}"', KeyRef("acme", "k/0"), ANY_VERSION)
    assert (await put(database, "1", KeyRef("other", "k/5"))).version == 1
    await remove(database, ANY_VERSION, KeyRef("acme", "k/0"))
    assert (await put(database, "1", KeyRef("acme", "k/5"))).version == 1


async def test_a_value_of_256_kib_is_the_largest(database: Database) -> None:
    with pytest.raises(BoardValueTooLarge, match="262145"):
        await put(database, f'"{"x" * (262_145 - 2)}"')
    assert await store_at(database, 0).find(KEY) is None


async def test_each_change_raises_the_version_of_its_subject_alone(database: Database) -> None:
    await put(database, "1")
    await put(database, "2", condition=Precondition((1,)))
    await remove(database, ANY_VERSION)
    await put(database, "1", KeyRef("acme", "alone"))
    seen = [await database.read(lambda c, s=s: read_subject_version(c, "acme", s)) for s in ("customer:42", "customer:4", "alone")]
    assert seen == [3, 0, 0]


async def test_no_update_is_lost_under_contention(database: Database) -> None:
    await put(database, "0")

    async def add_one() -> None:
        while True:
            current = await store_at(database, 0).find(KEY)
            assert current is not None
            try:
                await put(database, str(current.decode() + 1), condition=Precondition((current.version,)))
            except StaleVersion:
                continue
            return

    await asyncio.gather(*(add_one() for _ in range(20)))
    found = await store_at(database, 0).find(KEY)
    assert found is not None and (found.decode(), found.version) == (20, 21)


async def test_a_list_holds_the_prefix_and_what_is_below_it(database: Database) -> None:
    for key in ("customer/4", "customer/4/a", "customer/42", "customer/4-2"):
        await put(database, "1", KeyRef("acme", key))
    store = store_at(database, 0)
    assert [value.key for value in (await store.list_below("acme", "customer/4", "", 10)).values] == ["customer/4", "customer/4/a"]
    assert [value.key for value in (await store.list_below("acme", "", "customer/4", 2)).values] == ["customer/4-2", "customer/4/a"]
    assert (await store.list_below("other", "", "", 10)).values == ()


@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
async def test_no_update_is_lost_between_processes(database: Database, database_url: str) -> None:
    other = Database(engine_for(database_url))
    other.start()
    await put(database, "0")

    async def add_one(by: Database) -> None:
        while True:
            current = await store_at(by, 0).find(KEY)
            assert current is not None
            try:
                await put(by, str(current.decode() + 1), condition=Precondition((current.version,)))
            except StaleVersion:
                continue
            return

    await asyncio.gather(*(add_one(by) for by in (database, other) for _ in range(8)))
    changes = await store_at(other, 0).history(KEY, None, 100)
    found = await store_at(database, 0).find(KEY)
    other.close()
    assert found is not None and (found.decode(), found.version) == (16, 17)
    assert sorted(change.seq for change in changes) == sorted({change.seq for change in changes})
