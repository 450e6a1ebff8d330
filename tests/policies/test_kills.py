"""What is stopped: kept once, found by tenant, kind and name, and read anew."""

from dataclasses import dataclass

import pytest

from gateway.database import Database
from policies.kills import Kill, Kills

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
    return await database.write(lambda batch: kills.keep(batch, kill))


@pytest.mark.parametrize("other", [Other(tenant="evil"), Other(kind="server"), Other(name="support")], ids=["tenant", "kind", "name"])
async def test_the_same_is_stopped_once_and_others_are_not_the_same(database: Database, kills: Kills, other: Other) -> None:
    assert await keep(database, kills, KILL)
    assert not await keep(database, kills, Other().kill("k2"))
    assert await keep(database, kills, other.kill("k3"))
    assert not kills.active and len(kills) == 0  # it was not read yet
    await kills.reload()
    assert kills.active and len(kills) == 2
    assert kills.find("acme", "agent", "sales") == KILL
    assert kills.find(other.tenant, other.kind, other.name) == other.kill("k3")
    assert kills.find("acme", "user", "sales") is None


async def test_only_ones_own_tenants_are_listed_and_lifted_and_the_newest_come_first(database: Database, kills: Kills) -> None:
    later = Other(name="support").kill("k2", 7)
    for kill in (KILL, later, Other(tenant="evil").kill("k3")):
        assert await keep(database, kills, kill)
    await kills.reload()
    assert kills.listed("acme") == [later, KILL]
    assert not await database.write(lambda batch: kills.lift(batch, "evil", "k1"))
    assert not await database.write(lambda batch: kills.lift(batch, "acme", "k9"))
    assert await database.write(lambda batch: kills.lift(batch, "acme", "k1"))
    before = kills.version
    await kills.reload()
    assert kills.version != before
    assert kills.listed("acme") == [later]


async def test_one_that_no_row_can_tell_of_is_in_force_until_its_row_does(kills: Kills) -> None:
    kills.refuse(KILL)
    await kills.reload()
    assert kills.find(*KILL.key) == KILL
    kills.heed(KILL)
    assert kills.find(*KILL.key) == KILL
    await kills.reload()
    assert kills.find(*KILL.key) is None and not kills.active


async def test_without_rows_nothing_is_stopped() -> None:
    kills = Kills()
    await kills.reload()
    assert (kills.active, kills.listed("acme")) == (False, [])
