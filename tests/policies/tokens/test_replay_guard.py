"""Ids that count once, on both databases."""

import asyncio

from sqlalchemy import func, select

from gateway.storage.database import Database
from policies.tables import spent_ids as table
from policies.tokens.replay_guard import ReplayGuard
from tests.fakes.clock import Clock
from tests.fakes.rows import Rows

NOW = 1_800_000_000


async def test_of_many_at_once_one_comes_first(database: Database, clock: Clock) -> None:
    ids = ReplayGuard(database, clock.us)
    assert sorted(await asyncio.gather(*(ids.consume("acme", "j1", NOW + 60) for _ in range(10)))) == [False] * 9 + [True]


async def test_ids_of_different_tenants_are_different(database: Database, clock: Clock) -> None:
    ids = ReplayGuard(database, clock.us)
    assert [await ids.consume(tenant, "j1", NOW + 60) for tenant in ("acme", "evil", "acme")] == [True, True, False]


async def test_an_id_is_forgotten_only_when_nothing_that_carries_it_is_accepted_any_more(database: Database, clock: Clock) -> None:
    ids = ReplayGuard(database, clock.us)
    assert await ids.consume("acme", "j1", NOW + 60)
    clock.now += 119  # 60 s of life and 30 s of skew are over
    assert not await ids.consume("acme", "j1", NOW + 60)
    clock.now += 2
    assert await ids.consume("acme", "j2", NOW + 180)
    assert await database.read(lambda connection: connection.execute(select(func.count()).select_from(table)).scalar()) == 1


async def test_an_id_is_kept_for_its_tenant_until_a_minute_after_its_time(clock: Clock) -> None:
    rows = Rows()
    ids = ReplayGuard(rows, clock.us)
    assert [await ids.consume(tenant, "j1", NOW + 60.5) for tenant in ("acme", "acme", "evil")] == [True, False, True]
    kept = NOW * 1_000_000 + 120_500_000
    assert rows.all(table) == [{"tenant": tenant, "id": "j1", "not_after": kept} for tenant in ("acme", "evil")]
    clock.now += 120.5
    assert not await ids.consume("acme", "j1", NOW + 60.5)
    clock.now += 0.001
    assert await ids.consume("acme", "j1", NOW + 60.5)  # what carries it is refused for its age
    assert [row["tenant"] for row in rows.all(table)] == ["evil", "acme"]  # each tenant clears up its own
