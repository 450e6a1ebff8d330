"""Grant rows: what is kept is found again while it lives, and by nobody once it, or anything that it hangs below, has ended."""

import math
from collections.abc import Callable
from typing import Any

import pytest

from gateway.storage.database import Database
from policies.delegation.chain import Delegation, Hop, Principal
from policies.delegation.grants import GrantEnded, Grants
from policies.delegation.kills import Kill, Killed, Kills
from policies.delegation.permissions import ALL_PERMISSIONS, Permissions
from policies.tables import grants as table
from tests.fakes.clock import Clock
from tests.fakes.rows import Rows

ALICE = Principal("acme", "https://idp.test", "alice", ("sales", "ops"))
CRM = Permissions.parse(["tool:crm.read", "agent:*"])
HOPS = (Hop("front", ALL_PERMISSIONS), Hop("sales", CRM))


def delegation(grant: str = "g1", tenant: str = "acme", task: str = "t1", life: float = 60.0) -> Delegation:
    who = Principal(tenant, ALICE.issuer, ALICE.subject, ALICE.roles)
    return Delegation(who, CRM, Clock().now + life, HOPS, 3, "x1", grant, task)


class Kept:
    """Grants over rows in memory."""

    def __init__(self, clock: Clock, **more: Any) -> None:
        self.rows = Rows()
        self.clock = clock
        self.grants = Grants(self.rows, clock, **more)

    def add(self, *given: Delegation, below: str = "") -> None:
        for one in given:
            self.rows.keep(lambda batch, one=one: self.grants.add(batch, one, below, 5))  # type: ignore[misc]  # bound now

    def end(self, grant: str, tenant: str = "acme", now: int = 7) -> bool:
        return self.rows.keep(lambda batch: self.grants.revoke(batch, tenant, grant, now))

    async def lives(self, grant: str, tenant: str = "acme") -> bool:
        try:
            return (await self.grants.find(tenant, grant)).grant_id == grant
        except GrantEnded:
            return False


@pytest.fixture
def kept(clock: Clock) -> Kept:
    return Kept(clock)


async def test_a_delegation_comes_back_as_it_was_kept(database: Database, clock: Clock) -> None:
    grants = Grants(database, clock)
    await database.write(lambda batch: grants.add(batch, delegation(), "", 5))
    assert await grants.find("acme", "g1") == delegation()
    assert await database.write(lambda batch: grants.revoke(batch, "acme", "g1", 7))
    assert await grants.find_revoked([("acme", "g1")]) == {("acme", "g1")}


def test_a_row_tells_of_one_grant_when_it_was_made_and_what_it_hangs_below(kept: Kept) -> None:
    kept.add(delegation("g2"), below="g1")
    (row,) = kept.rows.all(table)
    assert (row["id"], row["parent_id"], row["created"], row["epoch"], row["revoked"]) == ("g2", "g1", 5, 0, None)
    assert row["not_after"] == (int(Clock().now) + 60) * 1_000_000


async def test_a_grant_tells_when_the_turn_ends_that_it_was_made_for(kept: Kept) -> None:
    kept.add(delegation("g1").with_deadline(1234.5), delegation("g2"))
    assert {row["id"]: row["deadline"] for row in kept.rows.all(table)} == {"g1": 1_234_500_000, "g2": None}
    assert [(await kept.grants.find("acme", grant)).deadline for grant in ("g1", "g2")] == [1234.5, math.inf]


async def test_a_task_that_waits_has_no_deadline_and_one_that_goes_on_has_a_new_one(kept: Kept) -> None:
    kept.add(delegation("g1").with_deadline(1234.5))

    async def bound(*to: Any) -> float:
        kept.rows.keep(lambda batch: kept.grants.set_deadline(batch, *to))
        kept.grants.invalidate()
        return (await kept.grants.find("acme", "g1")).deadline

    for stranger in (("evil", "g1", "t1"), ("acme", "g2", "t1"), ("acme", "g1", "t2")):
        assert await bound(*stranger) == 1234.5
    assert await bound("acme", "g1", "t1") == math.inf
    assert await bound("acme", "g1", "t1", 2345.5) == 2345.5


async def test_a_grant_is_found_in_its_own_tenant_by_its_own_id(kept: Kept) -> None:  # attack TEN-03
    kept.add(delegation("g1"), delegation("g2"), delegation("g3", "evil"))
    assert [await kept.lives(grant) for grant in ("g1", "g2", "g3", "g4", "")] == [True, True, False, False, False]
    assert [await kept.lives(grant, "evil") for grant in ("g1", "g3")] == [False, True]
    assert (await kept.grants.find("evil", "g3")).principal.tenant == "evil"


@pytest.mark.parametrize(("life", "lives"), [(0.0, False), (-1.0, False), (0.001, True)])
async def test_a_grant_ends_at_its_time(kept: Kept, life: float, lives: bool) -> None:
    kept.add(delegation(life=life))
    assert await kept.lives("g1") is lives


async def test_a_grant_that_is_remembered_ends_at_its_time_too(kept: Kept, clock: Clock) -> None:
    kept.add(delegation(life=0.5))
    assert await kept.lives("g1")
    clock.now += 0.5
    assert not await kept.lives("g1") and kept.rows.reads == 1


async def test_revoking_a_grant_ends_its_descendants_and_no_other_grants(kept: Kept) -> None:  # attack DLG-10
    kept.add(delegation("root"))
    kept.add(delegation("middle"), delegation("beside"), below="root")
    kept.add(delegation("leaf"), below="middle")
    named = [("acme", grant) for grant in ("root", "middle", "beside", "leaf", "nobody")]
    assert await kept.grants.find_revoked(named) == set()
    assert kept.end("middle")
    assert await kept.grants.find_revoked(named) == {("acme", "middle"), ("acme", "leaf")}
    assert [await kept.lives(grant) for _, grant in named] == [True, False, True, False, False]


async def test_descendants_of_a_missing_grant_are_neither_alive_nor_revoked(kept: Kept) -> None:
    kept.add(delegation("leaf"), below="gone")
    assert not await kept.lives("leaf")
    assert await kept.grants.find_revoked([("acme", "leaf")]) == set()


async def test_a_grant_is_ended_once_and_by_its_own_tenant_alone(kept: Kept) -> None:
    kept.add(delegation("g1"), delegation("g2"))
    assert not kept.end("g1", "evil") and not kept.end("g3")
    assert await kept.lives("g1")
    assert kept.end("g1", now=7) and not kept.end("g1", now=8)
    assert {row["id"]: row["revoked"] for row in kept.rows.all(table)} == {"g1": 7, "g2": None}


async def test_revocations_of_another_tenant_are_not_ours(kept: Kept) -> None:
    kept.add(delegation("g1"), delegation("g1", "evil"))
    assert kept.end("g1", "evil")
    assert await kept.grants.find_revoked([("acme", "g1"), ("evil", "g1")]) == {("evil", "g1")}
    assert await kept.lives("g1")


async def test_a_grant_ends_with_its_task_and_with_the_tasks_above_it(clock: Clock) -> None:
    over: set[tuple[str, str]] = set()
    kept = Kept(clock, is_task_over=lambda _, tenant, task: (tenant, task) in over)
    kept.add(delegation("root", task="t1"))
    kept.add(delegation("leaf", task="t2"), below="root")
    for task, alive in ((("acme", "t3"), (True, True)), (("acme", "t2"), (True, False)), (("acme", "t1"), (False, False))):
        over.add(task)
        kept.grants.invalidate()
        assert (await kept.lives("root"), await kept.lives("leaf")) == alive
    assert await kept.grants.find_revoked([("acme", "leaf")]) == set()  # its end is no revocation


async def test_what_was_read_is_believed_for_a_second(kept: Kept, clock: Clock) -> None:
    kept.add(delegation())
    assert await kept.lives("g1") and kept.end("g1")
    clock.now += 0.999
    assert await kept.lives("g1")  # somebody else ended it, and nobody told us
    clock.now += 0.001
    assert not await kept.lives("g1")


@pytest.mark.parametrize(("forgotten", "lives"), [((), False), (("acme", "g1"), False), (("acme", "g2"), True), (("evil", "g1"), True)])
async def test_what_is_forgotten_is_read_anew(kept: Kept, forgotten: tuple[str, ...], lives: bool) -> None:
    kept.add(delegation())
    assert await kept.lives("g1") and kept.end("g1")
    kept.grants.invalidate(*forgotten)
    assert await kept.lives("g1") is lives


@pytest.mark.parametrize("forgotten", [(), ("acme", "g1")])
async def test_what_changes_while_it_is_read_is_not_remembered(kept: Kept, forgotten: tuple[str, ...]) -> None:
    kept.add(delegation())

    def ended() -> None:
        assert kept.end("g1")
        kept.grants.invalidate(*forgotten)

    kept.rows.meanwhile = ended
    assert await kept.lives("g1")  # as it was when it was asked for
    assert not await kept.lives("g1")


async def test_what_is_read_twice_at_once_is_remembered_as_it_was_read_last(kept: Kept) -> None:
    kept.add(delegation())
    again: list[Any] = []

    def begun_again() -> None:
        kept.grants.invalidate("acme", "g1")
        again.append(kept.grants.find("acme", "g1"))
        with pytest.raises(StopIteration):
            again[0].send(None)  # all of it happens while the first answer is on its way
        assert kept.end("g1")
        kept.grants.invalidate("acme", "g1")

    kept.rows.meanwhile = begun_again
    assert await kept.lives("g1")
    assert not await kept.lives("g1")
    kept.rows.meanwhile = lambda: None
    kept.add(delegation("g2"))
    assert await kept.lives("g2") and await kept.lives("g2")
    assert kept.rows.reads == 4


async def test_a_grant_that_can_not_be_ended_in_its_row_yet_is_ended_for_us(kept: Kept) -> None:
    kept.add(delegation("root"))
    kept.add(delegation("leaf"), below="root")
    assert await kept.lives("leaf")
    kept.grants.enforce_before_persisted("evil", "root")
    assert await kept.lives("leaf")
    kept.grants.enforce_before_persisted("acme", "root")
    assert not await kept.lives("leaf") and not await kept.lives("root")
    assert await kept.grants.find_revoked([("acme", "root"), ("acme", "leaf")]) == {("acme", "root"), ("acme", "leaf")}
    kept.grants.confirm_persisted("evil", "root")
    assert not await kept.lives("root")
    kept.grants.confirm_persisted("acme", "root")
    assert await kept.lives("root") and await kept.lives("leaf")
    assert await kept.grants.find_revoked([("acme", "leaf")]) == set()


async def test_a_grant_that_is_refused_is_refused_until_a_row_that_says_so_is_read(clock: Clock) -> None:
    """Its end is kept and heeded between the look at its row and the answer."""
    happens: list[Callable[[], Any]] = []

    def looked_at(*_: Any) -> bool:
        while happens:
            happens.pop()()
        return False

    kept = Kept(clock, is_task_over=looked_at)
    kept.add(delegation("root"))
    kept.add(delegation("leaf"), below="root")
    kept.grants.enforce_before_persisted("acme", "root")
    happens.append(lambda: kept.grants.confirm_persisted("acme", "root"))
    assert not await kept.lives("leaf")


@pytest.mark.parametrize(
    ("kind", "name", "stopped"),
    [
        ("agent", "front", True),
        ("agent", "sales", True),
        ("user", ALICE.owner_key, True),
        ("agent", "alice", False),
        ("server", "sales", False),
    ],
)
async def test_none_of_what_is_stopped_is_found(clock: Clock, kind: Any, name: str, stopped: bool) -> None:
    kills = Kills()
    kept = Kept(clock, kills=kills)
    kept.add(delegation())
    assert await kept.lives("g1")
    kills.enforce_before_persisted(Kill("acme", "k1", kind, name, "", "", 1))
    if stopped:
        with pytest.raises(Killed):
            await kept.lives("g1")
    else:
        assert await kept.lives("g1")


async def test_nothing_is_kept_of_a_reading_that_failed(kept: Kept) -> None:
    assert not await kept.lives("g1")
    kept.add(delegation())
    assert await kept.lives("g1")
