"""Periodic work on the board: expired values become changes, and old history goes."""

from gateway.state.board.counters import BoardLimits, lock_counters
from gateway.state.board.held_values.rows import build_held_value, hold_value, list_held
from gateway.state.board.pruning import DAY_US, BoardPruning
from gateway.state.board.store import BoardStore
from gateway.state.board.values import ANY_VERSION, NO_PRECONDITION, ValueSource
from gateway.state.board.writes import KeyRef, NewValue, delete_value, set_value
from gateway.storage.database import Database
from tests.fakes.subject_versions import read_subject_version

KEY = KeyRef("acme", "customer/42/status")
SOURCE = ValueSource("acme|issuer|ann")
LIMITS = BoardLimits()


def pruning_at(database: Database, now: int) -> BoardPruning:
    return BoardPruning(BoardStore(database, lambda: now, LIMITS), history_days=1)


async def put(database: Database, ref: KeyRef, expires: int | None = None, now: int = 100) -> None:
    condition = NO_PRECONDITION if expires else ANY_VERSION
    await database.write(lambda batch: set_value(batch, NewValue(ref, "1", SOURCE, condition, expires), now, LIMITS))


async def test_an_expired_value_becomes_a_change_of_its_subject(database: Database) -> None:
    await put(database, KEY, expires=500)
    await put(database, KeyRef("acme", "customer/42/later"), expires=5000)
    assert await pruning_at(database, 499).run_once() == 0
    assert await pruning_at(database, 500).run_once() == 1
    assert await pruning_at(database, 501).run_once() == 0
    changes = await BoardStore(database, lambda: 0, LIMITS).history(KEY, None, 10)
    assert [(change.version, change.kind, change.source.owner) for change in changes] == [(2, "expired", ""), (1, "set", SOURCE.owner)]
    counters = await database.write(lambda batch: lock_counters(batch, "acme"))
    assert (counters.seq, counters.key_count, counters.byte_count) == (3, 1, 1)
    assert await database.read(lambda connection: read_subject_version(connection, "acme", "customer:42")) == 3


async def test_old_changes_and_held_values_are_deleted_and_values_stay(database: Database) -> None:
    store = BoardStore(database, lambda: 0, LIMITS)
    await put(database, KEY, expires=10 * DAY_US)
    await put(database, KEY, now=2 * DAY_US)
    new = NewValue(KEY, "2", SOURCE)
    await database.write(lambda batch: hold_value(batch, build_held_value(batch.connection, new, 1, "misses", 100)))
    assert await database.read(lambda connection: len(list_held(connection, "acme", 101, None, 10))) == 1
    await pruning_at(database, 2 * DAY_US).run_once()
    assert [change.version for change in await store.history(KEY, None, 10)] == [2]
    assert await database.read(lambda connection: list_held(connection, "acme", 101, None, 10)) == []
    await pruning_at(database, 9 * DAY_US).run_once()
    assert await store.history(KEY, None, 10) == []
    found = await store.find(KEY)
    assert found is not None and found.version == 2


async def delete(database: Database, ref: KeyRef, now: int) -> int:
    return await database.write(lambda batch: delete_value(batch, ref, SOURCE, ANY_VERSION, now))


async def test_no_version_of_a_deleted_key_comes_back_after_its_history_is_pruned(database: Database) -> None:
    store = BoardStore(database, lambda: 0, LIMITS)
    await put(database, KEY, expires=9_000)
    for _ in range(2):
        await put(database, KEY)
    deleted = await delete(database, KEY, 100)
    await put(database, KeyRef("acme", "customer/43/status"), expires=90 * DAY_US)
    await put(database, KeyRef("other", "customer/42/status"), expires=90 * DAY_US)
    await pruning_at(database, 9 * DAY_US).run_once()
    assert await store.history(KEY, None, 10) == []
    await database.write(lambda batch: set_value(batch, NewValue(KEY, "2", SOURCE), 10 * DAY_US, LIMITS))
    found = await store.find(KEY)
    assert found is not None and found.version > deleted == 4
    assert await delete(database, KeyRef("other", "customer/42/status"), 100) == 2
    await database.write(lambda batch: set_value(batch, NewValue(KeyRef("other", "new"), "2", SOURCE), 10 * DAY_US, LIMITS))
    fresh = await store.find(KeyRef("other", "new"))
    assert fresh is not None and fresh.version == 1  # in another tenant nothing was deleted long ago
