"""One of the processes that share a database does what only one has to do, and another one after its end."""

import re
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import Engine, text

from gateway.calls.limits.budgets import BUDGETS_LOCK
from gateway.storage.database import Database, engine_for
from gateway.storage.processes import Election
from tests.house.source import product

_LOCK_KEY = re.compile(r"\b4_242_\d{3}\b")
_END_SESSIONS = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"


@pytest.fixture
async def engines(postgres_url: str) -> AsyncIterator[list[Engine]]:
    """Of two processes."""
    opened = [engine_for(postgres_url, name) for name in ("p_1", "p_2")]
    yield opened
    for engine in opened:
        engine.dispose()


async def test_one_process_is_elected_and_stays_it(engines: list[Engine]) -> None:
    first, second = map(Election, engines)
    assert [await each.is_won() for each in (first, second, first, second)] == [True, False, True, False]
    second.give_up()  # of what it does not have
    assert await first.is_won()
    first.give_up()


async def test_another_process_is_elected_after_the_end_of_the_first(engines: list[Engine]) -> None:
    first, second = map(Election, engines)
    assert await first.is_won() and not await second.is_won()
    first.give_up()
    assert await second.is_won() and not await first.is_won()
    second.give_up()


async def test_a_lost_connection_loses_the_election(engines: list[Engine], postgres_url: str) -> None:
    first, second = map(Election, engines)
    assert await first.is_won()
    admin = engine_for(postgres_url)
    with admin.begin() as connection:
        connection.execute(text(_END_SESSIONS))
    admin.dispose()
    assert await second.is_won()
    assert not await first.is_won()
    second.give_up()
    assert await first.is_won()
    first.give_up()


async def test_calls_take_the_lock_of_budgets_while_a_process_is_elected(engines: list[Engine]) -> None:
    elected, charging = Election(engines[0]), Database(engines[1])
    assert await elected.is_won()
    charging.start()
    assert await charging.write(lambda batch: batch.try_lock(BUDGETS_LOCK))
    charging.close()
    elected.give_up()


def test_every_lock_of_the_database_has_a_key_of_its_own() -> None:
    keys = [key for source in product() for key in _LOCK_KEY.findall(source.text)]
    assert len(keys) >= 4 and len(set(keys)) == len(keys)


async def test_a_database_that_is_away_elects_nobody() -> None:
    assert not await Election(engine_for("postgresql://nobody@127.0.0.1:1/nothing")).is_won()


async def test_a_process_on_sqlite_is_always_elected(light_url: str) -> None:
    assert await Election(engine_for(light_url)).is_won()
