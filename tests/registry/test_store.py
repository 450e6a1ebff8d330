"""The registry on both databases: one namespace per tenant, secrets that nobody can read back, and every process sees each change."""

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from typing import Any

import pytest
from sqlalchemy import select

from gateway.storage.database import Database, raise_epoch
from policies.ids import new_id
from registry.cards.card import Family, McpTool, RegistrationStatus
from registry.cards.reader import read_card
from registry.changes import RegistryChange
from registry.names import BadName
from registry.store import Candidate, NameTaken, Outdated, Registry, TooManyPending, UnknownName
from registry.tables import registrations
from tests.fakes.plaintext_settings import PLAINTEXT_ROWS

TEXT = '{"name": "Sales", "description": "Sells.", "version": "1", "url": "https://sales.example/"}'


def registry_on(database: Database, records: list[dict[str, Any]] | None = None, *, now: Callable[[], int] | None = None) -> Registry:
    kept = [] if records is None else records
    return Registry(
        database,
        lambda batch: raise_epoch(batch, "registry"),
        new_id,
        now or count(1_000).__next__,
        lambda _, record: kept.append({**record}),
        rows=PLAINTEXT_ROWS,
    )


@pytest.fixture
def registry(database: Database) -> Registry:
    return registry_on(database)


def agent(name: str = "sales", tenant: str = "default", **changes: Any) -> Candidate:
    given = Candidate(
        tenant=tenant,
        name=name,
        family=Family.AGENT,
        kind="a2a",
        url="https://sales.example/",
        owner="default|iss|alice",
        status=RegistrationStatus.ACTIVE,
        ceiling=("agent:*", "tool:crm.*"),
        upstream={"timeout": 5},
        facts={"version": "1.0", "streaming": True},
        card=read_card(json.loads(TEXT)),
        card_text=TEXT,
    )
    return replace(given, **changes)


def server(name: str) -> Candidate:
    tools = (McpTool("check", {"name": "check", "inputSchema": {"type": "object"}}),)
    return agent(name, family=Family.SERVER, kind="mcp", card=None, card_text="", tools=tools)


async def test_what_was_added_is_found_as_it_was(registry: Registry) -> None:
    added, _ = await registry.add(agent())
    assert registry.find("default", "sales") == added
    assert (added.ceiling, dict(added.upstream), dict(added.facts)) == (
        ("agent:*", "tool:crm.*"),
        {"timeout": 5},
        {"version": "1.0", "streaming": True},
    )
    assert added.card is not None
    assert (added.card.name, added.card_text) == ("Sales", TEXT)
    kept, _ = await registry.add(server("crm"))
    assert (kept.tools, kept.card) == (server("crm").tools, None)


async def test_agents_and_servers_share_one_namespace_in_each_tenant(registry: Registry) -> None:
    await registry.add(agent("crm"))
    with pytest.raises(NameTaken):  # attack REG-01
        await registry.add(server("crm"))
    await registry.add(server("another"))
    await registry.add(agent("crm", tenant="acme"))
    assert [entry.name for entry in registry.list("default")] == ["another", "crm"]
    assert [entry.name for entry in registry.list("default", Family.SERVER)] == ["another"]
    assert [entry.name for entry in registry.list("acme")] == ["crm"]
    with pytest.raises(UnknownName):
        registry.find("acme", "another")


async def test_a_name_that_can_not_be_is_refused(registry: Registry) -> None:
    with pytest.raises(BadName):
        await registry.add(agent("Sandbox!"))


async def test_a_secret_is_shown_once_and_only_its_hash_is_kept(registry: Registry, database: Database) -> None:
    added, secret = await registry.add(agent())
    other, _ = await registry.add(agent("other"))
    assert registry.find_client(added.client_id) == added
    assert registry.find_client("client_nobody") is None
    assert registry.verify_secret(added.client_id, secret)
    assert not registry.verify_secret(other.client_id, secret)
    assert not registry.verify_secret(added.client_id, "")
    assert not registry.verify_secret("client_nobody", secret)
    assert registry.jwks_of_client(added.client_id) == ""
    row = (await database.read(lambda connection: connection.execute(select(registrations)).all()))[0]
    assert secret not in str(row)
    renewed = await registry.renew_secret("default", "sales")
    assert registry.verify_secret(added.client_id, renewed)
    assert not registry.verify_secret(added.client_id, secret)


async def test_a_change_is_kept_and_a_stale_one_is_refused(registry: Registry) -> None:
    before, _ = await registry.add(agent())
    changed = await registry.set_status("default", "sales", RegistrationStatus.QUARANTINED)
    assert registry.find("default", "sales").status is RegistrationStatus.QUARANTINED
    assert changed.updated > before.updated
    with pytest.raises(Outdated):
        await registry.update(replace(before, url="https://elsewhere.example/"))
    assert registry.find("default", "sales").url == "https://sales.example/"


async def test_what_is_removed_is_gone_with_its_credentials_and_the_name_is_free(registry: Registry) -> None:
    added, secret = await registry.add(agent())
    await registry.remove("default", "sales")
    assert registry.find_client(added.client_id) is None
    assert not registry.verify_secret(added.client_id, secret)
    with pytest.raises(UnknownName):
        await registry.remove("default", "sales")
    again, _ = await registry.add(agent())
    assert again.client_id != added.client_id
    with pytest.raises(Outdated):  # a change that was meant for the one before
        await registry.update(added)


async def test_every_change_leaves_a_record_of_who_did_what_and_a_refused_one_leaves_none(database: Database) -> None:  # attack LOG-04
    records: list[dict[str, Any]] = []
    registry = registry_on(database, records)
    alice = "default|iss|alice"
    before, secret = await registry.add(agent(trusted_keys=({"kid": "k1"},)), RegistryChange("register", alice))
    await registry.update(replace(before, ceiling=("agent:x",)), RegistryChange("change", alice, "d_1"))
    renewed = await registry.renew_secret("default", "sales", RegistryChange("renew-secret", alice))
    await registry.set_status("default", "sales", RegistrationStatus.QUARANTINED)
    await registry.remove("default", "sales", RegistryChange("remove", "operator"))
    told = [(one["verb"], one["principal"]["subject"], one["decision_id"], one["status"], one["ceiling"]) for one in records]
    assert told == [
        ("register", "alice", "", "active", ["agent:*", "tool:crm.*"]),
        ("change", "alice", "d_1", "active", ["agent:x"]),
        ("renew-secret", "alice", "", "active", ["agent:x"]),
        ("refresh", "gateway", "", "quarantined", ["agent:x"]),
        ("remove", "operator", "", "quarantined", ["agent:x"]),
    ]
    for record in records:
        assert (record["kind"], record["tenant"], record["txn"], record["name"]) == ("registry", "default", "", "sales")
        assert (record["client_id"], record["owner"], record["trusted_keys"]) == (before.client_id, alice, ["k1"])
        assert len(record["card_hash"]) == 64
        assert secret not in str(record) and renewed not in str(record)
    records.clear()
    await registry.add(agent())
    for refused, act in (
        (NameTaken, lambda: registry.add(agent())),
        (Outdated, lambda: registry.update(before)),
        (UnknownName, lambda: registry.remove("default", "nobody")),
    ):
        with pytest.raises(refused):
            await act()
    assert len(records) == 1


async def test_what_one_owner_has_waiting_is_bounded(registry: Registry, database: Database) -> None:  # attack REG-09
    waiting = agent("one", status=RegistrationStatus.PENDING)
    await registry.add(waiting, pending_limit=2)
    await registry.add(replace(waiting, name="two"), pending_limit=2)
    other = registry_on(database)  # has not seen them in its snapshot
    for candidate in (replace(waiting, name="three"), server("four")):
        with pytest.raises(TooManyPending):
            await other.add(replace(candidate, status=RegistrationStatus.PENDING), pending_limit=2)
    await other.add(replace(waiting, name="three", owner="default|iss|bob"), pending_limit=2)
    await other.add(replace(waiting, name="three", tenant="acme"), pending_limit=2)
    await registry.set_status("default", "one", RegistrationStatus.ACTIVE)
    await registry.add(replace(waiting, name="four"), pending_limit=2)


async def test_two_changes_never_share_a_moment_that_can_be_told(registry: Registry) -> None:  # attack REG-02
    entry, _ = await registry.add(agent())
    moments = [entry.updated]
    for status in (RegistrationStatus.DOWN, RegistrationStatus.ACTIVE, RegistrationStatus.QUARANTINED):
        moments.append((await registry.set_status("default", "sales", status)).updated)
    assert len({moment // 1000 for moment in moments}) == len(moments)


async def test_another_process_sees_every_change_after_the_epoch_moved(registry: Registry, database: Database) -> None:
    other = registry_on(database)
    database.watch("registry", other.reload)
    for act in (
        lambda: registry.add(agent()),
        lambda: registry.add(server("crm")),
        lambda: registry.set_status("default", "sales", RegistrationStatus.DOWN),
        lambda: registry.renew_secret("default", "crm"),
        lambda: registry.remove("default", "sales"),
    ):
        await act()
        await database.refresh_epochs()
        assert list(other.list("default")) == list(registry.list("default"))


async def test_a_reload_reads_only_what_changed(registry: Registry) -> None:
    kept, _ = await registry.add(agent())
    await registry.add(agent("other"))
    assert registry.find("default", "sales") is kept


async def test_of_two_who_take_a_name_at_once_one_gets_it(registry: Registry, database: Database) -> None:
    outcomes = []
    for one in (registry, registry_on(database)):  # the second has not seen the first's row in its snapshot
        try:
            outcomes.append(await one.add(agent()))
        except NameTaken:
            outcomes.append(None)
    assert outcomes[0] is not None
    assert outcomes[1] is None


async def test_a_reload_that_finds_nothing_new_leaves_what_was_derived_in_force(registry: Registry, database: Database) -> None:
    await registry.add(agent("sales"))
    generation, listed = registry.generation, registry.list("default")
    await registry.reload()
    assert registry.generation == generation and registry.list("default") is listed
    await registry_on(database).add(agent("travel"))
    await registry.reload()
    assert registry.generation == generation + 1 and len(registry.list("default")) == 2


async def test_credentials_of_others_stay_when_one_entry_changes(registry: Registry) -> None:
    (sales, secret), (travel, _) = await registry.add(agent("sales")), await registry.add(agent("travel"))
    renewed = await registry.renew_secret("default", "travel")
    assert registry.verify_secret(sales.client_id, secret) and registry.verify_secret(travel.client_id, renewed)
    await registry.remove("default", "sales")
    assert not registry.verify_secret(sales.client_id, secret) and registry.verify_secret(travel.client_id, renewed)
