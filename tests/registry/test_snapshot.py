"""A snapshot follows every change of the rows, whatever the clocks say, and looks at few rows after a change."""

import random
from collections.abc import AsyncIterator
from dataclasses import replace
from itertools import count
from typing import Any

import pytest
from sqlalchemy import text

from gateway.storage.database import Database, engine_for
from registry import snapshot
from registry.cards.card import Family, RegistrationStatus
from registry.snapshot import CLOCK_SKEW, Snapshot, read_snapshot
from registry.store import Outdated, Registry
from tests.fakes.plaintext_settings import PLAINTEXT_ROWS
from tests.registry.test_store import agent, registry_on, server

STEPS = 120
TENANTS = ("acme", "default", "zeta")


async def whole(database: Database) -> Snapshot:
    """What a process reads that has just been started."""
    return await database.read(lambda connection: read_snapshot(connection, Snapshot(), PLAINTEXT_ROWS.to_registration))


@pytest.mark.parametrize("seed", range(3))
async def test_a_reload_finds_each_change_of_processes_whose_clocks_differ(database: Database, seed: int) -> None:
    choice = random.Random(seed)
    ticks = [count(5 * CLOCK_SKEW, 3_000), count(2 * CLOCK_SKEW, 700)]  # the second clock is far behind
    writers = [registry_on(database, now=clock.__next__) for clock in ticks]
    reader = registry_on(database)
    for step in range(STEPS):
        writer = choice.choice(writers)
        await writer.reload()
        await change_at_random(writer, choice, step)
        if choice.random() < 0.6:  # else several changes are read together
            await reader.reload()
    await reader.reload()
    expected = await whole(database)
    assert replace(reader._snapshot, server_generation=0) == replace(expected, server_generation=0)
    assert {tenant: list(names) for tenant, names in reader._snapshot.tenants.items()} == {
        tenant: sorted(names) for tenant, names in sorted(expected.tenants.items())
    }


async def change_at_random(registry: Registry, choice: random.Random, step: int) -> None:
    known = [(tenant, entry.name) for tenant in TENANTS for entry in registry.list(tenant)]
    act = choice.choice(["add", "change", "change", "renew", "remove"]) if known else "add"
    tenant, name = choice.choice(known) if known else ("", "")
    if act == "add":
        await registry.add(agent(f"a{choice.randrange(1000)}-{step}", choice.choice(TENANTS)))
    elif act == "change":
        await registry.set_status(tenant, name, choice.choice([RegistrationStatus.DOWN, RegistrationStatus.ACTIVE]))
    elif act == "renew":
        await registry.renew_secret(tenant, name)
    else:
        await registry.remove(tenant, name)
        if choice.random() < 0.5:
            await registry.add(agent(name, tenant))


@pytest.fixture
async def elsewhere(database_url: str) -> AsyncIterator[Database]:
    """The database as another process sees it, until the end of the test."""
    opened = Database(engine_for(database_url))
    opened.start()
    yield opened
    opened.close()


async def test_each_change_is_seen_by_the_next_look_at_the_epochs_of_another_process(database: Database, elsewhere: Database) -> None:
    writer, reader = registry_on(database), registry_on(elsewhere)
    elsewhere.watch("registry", reader.reload)
    acts = {
        "add": lambda: writer.add(agent()),
        "add a server": lambda: writer.add(server("crm")),
        "add elsewhere": lambda: writer.add(agent("sales", "acme")),
        "change": lambda: writer.update(replace(writer.find("default", "sales"), rank=7)),
        "new keys": lambda: writer.update(writer.find("default", "sales"), jwks='{"keys": []}'),
        "status": lambda: writer.set_status("default", "sales", RegistrationStatus.DOWN),
        "new secret": lambda: writer.renew_secret("default", "sales"),
        "remove": lambda: writer.remove("default", "sales"),
        "add again": lambda: writer.add(agent()),
        "remove the last of a tenant": lambda: writer.remove("acme", "sales"),
    }
    for act, change in acts.items():
        generation = reader.generation
        await change()
        await elsewhere.refresh_epochs()
        assert reader.generation == generation + 1, act
        assert replace(reader._snapshot, server_generation=0) == replace(await whole(database), server_generation=0), act


async def test_a_change_after_the_look_at_the_epochs_is_seen_by_the_next_one(database: Database, elsewhere: Database) -> None:
    writer, reader = registry_on(database), registry_on(elsewhere)
    later = iter(["before-the-reload", "after-it"])

    async def change() -> None:
        if name := next(later, ""):
            await writer.add(agent(name))

    for watcher in (change, reader.reload, change):
        elsewhere.watch("registry", watcher)
    await writer.add(agent())
    await elsewhere.refresh_epochs()
    assert [entry.name for entry in reader.list("default")] == ["before-the-reload", "sales"]
    await elsewhere.refresh_epochs()
    assert [entry.name for entry in reader.list("default")] == ["after-it", "before-the-reload", "sales"]


async def test_a_change_among_many_looks_at_the_rows_that_changed_last(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[int] = []
    read_times = snapshot._read_times

    def counted(*given: Any) -> Any:
        found = read_times(*given)
        looked.append(len(found[1]))
        return found

    monkeypatch.setattr(snapshot, "_read_times", counted)
    registry = registry_on(database, now=count(CLOCK_SKEW, CLOCK_SKEW // 10).__next__)
    for number in range(40):
        await registry.add(agent(f"agent-{number}"))
    other = registry_on(database)
    await other.reload()
    looked.clear()
    await registry.set_status("default", "agent-7", RegistrationStatus.DOWN)
    assert looked == []  # its own change
    await other.reload()
    assert len(looked) == 1 and looked[0] <= 12  # those of the last CLOCK_SKEW, and the changed one
    assert other.find("default", "agent-7").status is RegistrationStatus.DOWN
    await registry.remove("default", "agent-7")
    await other.reload()
    assert [len(each.list("default", Family.AGENT)) for each in (registry, other)] == [39, 39]


async def test_the_generation_of_servers_counts_their_changes_alone(database: Database) -> None:
    registry = registry_on(database)
    acts = (
        lambda: registry.add(agent()),
        lambda: registry.add(server("crm")),
        lambda: registry.set_status("default", "sales", RegistrationStatus.DOWN),
        lambda: registry.set_status("default", "crm", RegistrationStatus.DOWN),
        lambda: registry.remove("default", "sales"),
        lambda: registry.remove("default", "crm"),
    )
    seen = []
    for act in acts:
        await act()
        seen.append(registry.server_generation)
    assert seen == [0, 1, 1, 2, 2, 3]


async def test_an_older_time_than_the_clock_before_is_found_and_then_at_rest(database: Database) -> None:
    registry = registry_on(database)
    await registry.add(agent())
    await registry.add(agent("travel"))
    await database.write(
        lambda batch: batch.connection.execute(text("UPDATE registrations SET updated = 1, rank = 7 WHERE name = 'travel'"))
    )
    await registry.reload()
    assert registry.find("default", "travel").rank == 7
    generation = registry.generation
    await registry.reload()
    assert registry.generation == generation


async def test_an_entry_that_was_replaced_in_the_same_microsecond_is_another_one(database: Database) -> None:
    registry, other = (registry_on(database, now=lambda: 5_000) for _ in range(2))
    replaced, _ = await registry.add(agent())
    await other.remove("default", "sales")
    current, secret = await other.add(agent())
    assert current.updated == replaced.updated
    with pytest.raises(Outdated):
        await registry.update(replaced)
    assert registry.find("default", "sales").client_id == current.client_id
    assert registry.verify_secret(current.client_id, secret)


async def test_a_refused_change_leaves_what_was_derived_in_force(database: Database) -> None:
    registry = registry_on(database)
    stale, _ = await registry.add(agent())
    await registry.set_status("default", "sales", RegistrationStatus.DOWN)
    generation = registry.generation
    with pytest.raises(Outdated):
        await registry.update(stale)
    assert registry.generation == generation
