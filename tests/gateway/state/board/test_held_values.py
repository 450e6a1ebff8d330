"""Decisions on held values beside the pruning of another process: all of a decision is written, or nothing."""

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import Connection, select, text

from gateway.state.board.counters import BoardLimits
from gateway.state.board.held_values import rows
from gateway.state.board.held_values.rows import HeldDecision, build_held_value, decide_held, hold_value
from gateway.state.board.problems import BoardProblem, UnknownHeldValue
from gateway.state.board.pruning import DAY_US, BoardPruning
from gateway.state.board.store import BoardStore
from gateway.state.board.values import StoredValue, ValueSource
from gateway.state.board.writes import KeyRef, NewValue
from gateway.state.tables import state_held
from gateway.storage.batch import Batch
from gateway.storage.database import Database, engine_for
from tests.fakes.timeouts import LONG_TIMEOUTS
from tests.fakes.waiting import SECONDS, until

KEY = KeyRef("acme", "customer/42/status")
LIMITS = BoardLimits()
LATER = 9 * DAY_US
WAITING = text("SELECT count(*) FROM pg_locks WHERE NOT granted")
postgres_only = pytest.mark.parametrize("database_url", ["postgres"], indirect=True)


@pytest.fixture
async def elsewhere(database_url: str) -> AsyncIterator[Database]:
    """Another process of the same PostgreSQL."""
    opened = Database(engine_for(database_url), stale_seconds=LONG_TIMEOUTS.stale_epochs)
    opened.start()
    yield opened
    opened.close()


async def hold(database: Database) -> str:
    new = NewValue(KEY, "2", ValueSource("acme|i|ann"))
    held = await database.write(lambda batch: hold_value(batch, build_held_value(batch.connection, new, 0, "misses", 100)))
    return held.id


def accept(batch: Batch, held_id: str) -> StoredValue | BoardProblem | None:
    """As the board does it: a refusal is a value, so that nothing is rolled back."""
    try:
        return decide_held(batch, HeldDecision("acme", held_id, True, "acme|i|bob", "d_1"), 200, LIMITS, None)
    except BoardProblem as problem:
        return problem


def pruning_at(database: Database, now: int) -> BoardPruning:
    return BoardPruning(BoardStore(database, lambda: now, LIMITS), history_days=1)


@postgres_only
async def test_a_decision_is_whole_although_another_process_prunes(
    database: Database, elsewhere: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    held_id, set_value = await hold(database), rows.set_value
    has_begun, may_go_on = threading.Event(), threading.Event()

    def set_slowly(*given: Any) -> StoredValue:
        has_begun.set()
        assert may_go_on.wait(SECONDS)
        return set_value(*given)

    monkeypatch.setattr(rows, "set_value", set_slowly)
    deciding = asyncio.create_task(database.write(lambda batch: accept(batch, held_id)))
    await asyncio.to_thread(has_begun.wait, SECONDS)
    pruning = asyncio.create_task(pruning_at(elsewhere, LATER).run_once())
    await until(lambda: pruning.done() or count(database, WAITING) > 0)
    may_go_on.set()
    decided = await deciding
    await pruning
    found = await BoardStore(database, lambda: 200, LIMITS).find(KEY)
    assert isinstance(decided, StoredValue) == (found is not None), decided
    assert await database.read(lambda connection: connection.execute(select(state_held.c.state)).all()) in ([], [("accepted",)])


async def test_a_value_that_was_pruned_is_unknown_and_nothing_is_written(database: Database) -> None:
    held_id = await hold(database)
    await pruning_at(database, LATER).run_once()
    assert isinstance(await database.write(lambda batch: accept(batch, held_id)), UnknownHeldValue)
    assert await BoardStore(database, lambda: 200, LIMITS).find(KEY) is None


def count(database: Database, query: Any) -> int:
    def work(connection: Connection) -> int:
        return int(connection.execute(query).scalar_one())

    with database.engine.connect() as connection:
        return work(connection)
