"""What is stopped: kept once, found by tenant, kind and name, and read anew."""

from dataclasses import dataclass
from itertools import pairwise

import pytest

from gateway.storage.database import Database
from policies.delegation.chain import Delegation, Hop, Principal
from policies.delegation.kills import Kill, Killed, Kills
from policies.delegation.permissions import ALL_PERMISSIONS
from policies.delegation.rulings import (
    Act,
    Decision,
    Grant,
    act_of_calling_tool,
    act_of_getting_prompt,
    act_of_invoking_agent,
    act_of_reading_resource,
)
from policies.tables import kills as table
from tests.fakes.rows import Rows

KILL = Kill("acme", "k1", "agent", "sales", "odd", "acme|idp|ann", 5)


@dataclass(frozen=True)
class Other:
    tenant: str = "acme"
    kind: str = "agent"
    name: str = "sales"

    def kill(self, kill_id: str, at: int = 6) -> Kill:
        return Kill(self.tenant, kill_id, self.kind, self.name, "", "acme|idp|ann", at)  # type: ignore[arg-type]  # one of the kinds


@pytest.fixture
def kills(database: Database) -> Kills:
    return Kills(database)


async def keep(database: Database, kills: Kills, kill: Kill) -> bool:
    return await database.write(lambda batch: kills.write(batch, kill))


@pytest.mark.parametrize("other", [Other(tenant="evil"), Other(kind="server"), Other(name="support")], ids=["tenant", "kind", "name"])
async def test_the_same_is_stopped_once_and_others_are_not_the_same(database: Database, kills: Kills, other: Other) -> None:
    assert await keep(database, kills, KILL)
    assert not await keep(database, kills, Other().kill("k2"))
    assert await keep(database, kills, other.kill("k3"))
    assert not kills.has_any and len(kills) == 0  # it was not read yet
    await kills.reload()
    assert kills.has_any and len(kills) == 2
    assert kills.find("acme", "agent", "sales") == KILL
    assert kills.find(other.tenant, other.kind, other.name) == other.kill("k3")
    assert kills.find("acme", "user", "sales") is None


async def test_only_ones_own_tenants_are_listed_and_lifted_and_the_newest_come_first(database: Database, kills: Kills) -> None:
    later = Other(name="support").kill("k2", 7)
    for kill in (KILL, later, Other(tenant="evil").kill("k3")):
        assert await keep(database, kills, kill)
    await kills.reload()
    assert kills.list_of_tenant("acme") == [later, KILL]
    assert not await database.write(lambda batch: kills.lift(batch, "evil", "k1"))
    assert not await database.write(lambda batch: kills.lift(batch, "acme", "k9"))
    assert await database.write(lambda batch: kills.lift(batch, "acme", "k1"))
    before = kills.version
    await kills.reload()
    assert kills.version != before
    assert kills.list_of_tenant("acme") == [later]


async def test_one_that_no_row_can_tell_of_is_in_force_until_its_row_does(kills: Kills) -> None:
    kills.enforce_before_persisted(KILL)
    await kills.reload()
    assert kills.find(*KILL.key) == KILL
    kills.confirm_persisted(KILL)
    assert kills.find(*KILL.key) == KILL
    await kills.reload()
    assert kills.find(*KILL.key) is None and not kills.has_any


async def test_without_rows_nothing_is_stopped() -> None:
    kills = Kills()
    await kills.reload()
    assert (kills.has_any, kills.list_of_tenant("acme")) == (False, [])


ALICE = Principal("acme", "idp", "alice")
CHAIN = Delegation(ALICE, ALL_PERMISSIONS, 1.0, (Hop("front"), Hop("desk")))


def stopping(*named: tuple[str, str], tenant: str = "acme") -> Kills:
    kills = Kills()
    for number, (kind, name) in enumerate(named):
        kills.enforce_before_persisted(Other(tenant, kind, name).kill(f"k{number}"))
    return kills


def granted(delegation: Delegation, act: Act) -> Grant:
    return Grant(Decision("d", 0, True, "allowed", delegation.principal.owner_key, (), (), act), delegation)


@pytest.mark.parametrize(
    ("kind", "name", "stopped"),
    [
        ("user", "acme|idp|alice", True),
        ("user", "acme|idp|bob", False),
        ("user", "alice", False),
        ("agent", "front", True),
        ("agent", "desk", True),
        ("agent", "other", False),
        ("server", "front", False),
        ("agent", "acme|idp|alice", False),
        ("user", "front", False),
    ],
)
def test_what_comes_from_a_stopped_person_or_through_a_stopped_agent_is_stopped(kind: str, name: str, stopped: bool) -> None:
    kills, act = stopping((kind, name)), act_of_calling_tool("crm", "read")
    assert kills.is_delegation_stopped(CHAIN) is stopped
    assert kills.stops(CHAIN, act) is kills.is_grant_stopped(granted(CHAIN, act)) is stopped
    assert stopping((kind, name), tenant="evil").is_delegation_stopped(CHAIN) is False
    assert kills.is_delegation_stopped(Delegation(Principal("evil", "idp", "alice"), ALL_PERMISSIONS, 1.0, CHAIN.path)) is False


AIMED = [
    ("agent", "sales", act_of_invoking_agent("sales"), True),
    ("agent", "sales", act_of_invoking_agent("sales", "quote"), True),
    ("agent", "sales", act_of_invoking_agent("sales-eu"), False),
    ("server", "sales", act_of_invoking_agent("sales"), False),
    ("server", "crm", act_of_calling_tool("crm", "read"), True),
    ("server", "crm", act_of_getting_prompt("crm", "greet"), True),
    ("server", "crm", act_of_reading_resource("crm"), True),
    ("server", "crm", act_of_calling_tool("crm2", "read"), False),
    ("agent", "crm", act_of_calling_tool("crm", "read"), False),
    ("server", "crm", Act("registerAgent", "Server", "crm", "registry:write", "crm"), False),
    ("agent", "crm", Act("registerAgent", "Agent", "crm", "registry:write", "crm"), False),
]


@pytest.mark.parametrize(("kind", "name", "act", "stopped"), AIMED)
def test_what_is_for_a_stopped_agent_or_server_is_stopped_but_for_looking_after_it(kind: str, name: str, act: Act, stopped: bool) -> None:
    kills, alone = stopping((kind, name)), Delegation(ALICE, ALL_PERMISSIONS, 1.0)
    assert kills.is_target_stopped("acme", act) is stopped and kills.is_target_stopped("evil", act) is False
    assert kills.stops(alone, act) is kills.is_grant_stopped(granted(alone, act)) is stopped
    assert stopping((kind, name), tenant="evil").stops(alone, act) is False


def test_nothing_is_stopped_while_there_are_no_kills() -> None:
    kills = Kills()
    assert kills.has_any is False and len(kills) == 0 and kills.version == 0
    assert (
        kills.stops(CHAIN, act_of_invoking_agent("sales")) is False
        and kills.is_grant_stopped(granted(CHAIN, act_of_invoking_agent("sales"))) is False
    )
    assert kills.list_of_tenant("acme") == [] and kills.find("acme", "agent", "sales") is None
    kills.check_person("acme", "idp", "alice")
    assert kills.is_owner_stopped("acme|idp|alice", "front") is False


def test_a_stopped_person_is_not_admitted_and_others_are() -> None:
    kills = stopping(("user", "acme|idp|alice"), ("agent", "front"))
    with pytest.raises(Killed):
        kills.check_person("acme", "idp", "alice")
    for tenant, issuer, subject in (("evil", "idp", "alice"), ("acme", "other", "alice"), ("acme", "idp", "bob"), ("acme", "idp", "front")):
        kills.check_person(tenant, issuer, subject)
    assert kills.is_person_stopped("acme", "acme|idp|alice") is True
    assert kills.is_person_stopped("evil", "acme|idp|alice") is False and kills.is_person_stopped("acme", "front") is False


@pytest.mark.parametrize(
    ("owner", "actor", "stopped"),
    [
        ("acme|idp|alice", "", True),
        ("acme|idp|bob", "front", True),
        ("acme|idp|alice", "other", True),
        ("acme|idp|bob", "other", False),
        ("evil|idp|bob", "front", False),
        ("acme|idp|front", "", False),
        ("acme|idp|bob", "acme|idp|alice", False),
    ],
)
def test_what_somebody_opened_is_stopped_with_them_or_with_the_agent_that_acted(owner: str, actor: str, stopped: bool) -> None:
    assert stopping(("user", "acme|idp|alice"), ("agent", "front")).is_owner_stopped(owner, actor) is stopped


def test_kills_of_one_moment_are_listed_by_their_ids() -> None:
    kills = Kills()
    for kill_id, name, at in (("k2", "b", 6), ("k1", "a", 6), ("k3", "c", 5), ("k4", "d", 7)):
        kills.enforce_before_persisted(Other(name=name).kill(kill_id, at))
    assert [kill.id for kill in kills.list_of_tenant("acme")] == ["k4", "k1", "k2", "k3"]


async def test_the_version_counts_changes_and_nothing_else() -> None:
    rows = Rows()
    kills = Kills(rows)
    seen = [kills.version]

    def noted() -> None:
        seen.append(kills.version)

    await kills.reload()
    noted()
    assert rows.keep(lambda batch: kills.write(batch, KILL)) is True
    assert rows.keep(lambda batch: kills.write(batch, Other().kill("k2"))) is False
    await kills.reload()
    noted()
    await kills.reload()
    noted()
    kills.enforce_before_persisted(Other(name="other").kill("k3"))
    noted()
    kills.confirm_persisted(Other(name="other").kill("k3"))  # it is in force as before
    noted()
    assert rows.keep(lambda batch: kills.lift(batch, "acme", "k1")) is True
    assert rows.keep(lambda batch: kills.lift(batch, "acme", "k1")) is False
    await kills.reload()
    noted()
    assert [later - before for before, later in pairwise(seen)] == [0, 1, 0, 1, 0, 1]
    assert rows.all(table) == []


async def test_heeding_what_was_never_refused_puts_nothing_in_force() -> None:
    kills = Kills()
    kills.confirm_persisted(KILL)
    await kills.reload()
    assert (kills.has_any, len(kills), kills.version) == (False, 0, 0)
    kills.enforce_before_persisted(Other(name="other").kill("k2"))
    assert kills.list_of_tenant("acme") == [Other(name="other").kill("k2")]


async def test_what_is_heeded_stays_in_force_until_rows_are_read() -> None:
    kills = Kills()
    kills.enforce_before_persisted(KILL)
    kills.confirm_persisted(KILL)
    kills.enforce_before_persisted(Other(name="other").kill("k2"))
    assert {kill.id for kill in kills.list_of_tenant("acme")} == {"k1", "k2"}


async def test_a_kill_is_kept_with_all_that_it_says() -> None:
    rows = Rows()
    kills = Kills(rows)
    rows.keep(lambda batch: kills.write(batch, KILL))
    assert rows.all(table) == [
        {"tenant": "acme", "id": "k1", "kind": "agent", "name": "sales", "reason": "odd", "by": "acme|idp|ann", "at": 5}
    ]
