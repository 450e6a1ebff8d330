"""Tickets: kept by their hash, found in their own tenant, forgotten when their time is over."""

import hashlib
import re

from sqlalchemy import select

from gateway.storage.database import Database
from policies.delegation.chain import Delegation, Hop, Principal
from policies.delegation.permissions import ALL_PERMISSIONS
from policies.tables import tickets as table
from policies.tokens.tickets import TICKET_HEADER, Ticket, Tickets, new_ticket, write_ticket
from tests.fakes.clock import Clock
from tests.fakes.rows import Rows

NOW = 1_800_000_000


def delegation(tenant: str = "acme", not_after: float = NOW + 60, grant: str = "g1") -> Delegation:
    return Delegation(
        Principal(tenant, "https://idp.test", "alice"), ALL_PERMISSIONS, not_after, (Hop("sales", ALL_PERMISSIONS),), grant_id=grant
    )


async def kept(database: Database, given: Delegation, now: int = NOW) -> str:
    handle = new_ticket()
    await database.write(lambda batch: write_ticket(batch, handle, given, now * 1_000_000))
    return handle


async def test_a_handle_is_found_in_its_tenant_alone_and_not_by_its_hash(database: Database) -> None:  # attack TOK-11, TEN-03
    handle = await kept(database, delegation())
    assert re.fullmatch(r"it_[\w-]{43}", handle)
    tickets = Tickets(database, lambda: NOW)
    for _ in range(2):
        assert await tickets.find("acme", handle) == Ticket("sales", "g1")
        assert await tickets.find("evil", handle) is None
    (row,) = await database.read(lambda connection: connection.execute(select(table)).all())
    assert handle not in repr(row)
    for wrong in (row.hash, handle[:-1], handle + "A", "it_" + "A" * 43, f"xx_{handle[3:]}", ""):
        assert await tickets.find("acme", wrong) is None


async def test_those_whose_time_is_over_are_forgotten_with_the_next_of_their_tenant(database: Database) -> None:
    over, at_the_end, another = [
        await kept(database, given)
        for given in (delegation(grant="g1"), delegation(not_after=NOW + 61, grant="g2"), delegation("evil", grant="g3"))
    ]
    await kept(database, delegation(not_after=NOW + 600, grant="g4"), NOW + 61)
    tickets = Tickets(database, lambda: NOW)
    assert await tickets.find("acme", over) is None
    assert await tickets.find("acme", at_the_end) == Ticket("sales", "g2")
    assert await tickets.find("evil", another) == Ticket("sales", "g3")


class Kept:
    """Tickets over rows in memory."""

    def __init__(self, clock: Clock) -> None:
        self.rows = Rows()
        self.tickets = Tickets(self.rows, clock)

    def keep(self, given: Delegation, now: float = NOW) -> str:
        handle = new_ticket()
        self.rows.keep(lambda batch: write_ticket(batch, handle, given, int(now * 1_000_000)))
        return handle


async def test_a_row_says_whom_it_was_handed_to_for_what_and_until_when(clock: Clock) -> None:
    kept = Kept(clock)
    handle = kept.keep(delegation(not_after=NOW + 60.5))
    (row,) = kept.rows.all(table)
    assert row == {
        "tenant": "acme",
        "hash": hashlib.sha256(handle.encode()).hexdigest(),
        "agent": "sales",
        "grant_id": "g1",
        "not_after": NOW * 1_000_000 + 60_500_000,
    }
    assert TICKET_HEADER == "Interlock-Ticket"


async def test_the_last_agent_of_a_chain_is_whom_it_was_handed_to(clock: Clock) -> None:
    kept = Kept(clock)
    path = (Hop("front"), Hop("sales"), Hop("desk"))
    handle = kept.keep(Delegation(Principal("acme", "https://idp.test", "alice"), ALL_PERMISSIONS, NOW + 60, path, grant_id="g3"))
    assert await kept.tickets.find("acme", handle) == Ticket("desk", "g3")


async def test_a_ticket_is_kept_to_the_last_moment_of_its_grant(clock: Clock) -> None:
    kept = Kept(clock)
    kept.keep(delegation(not_after=NOW + 60, grant="g1"))
    kept.keep(delegation(grant="g2"), NOW + 60)
    assert {row["grant_id"] for row in kept.rows.all(table)} == {"g1", "g2"}
    kept.keep(delegation(grant="g3"), NOW + 60.000001)
    assert {row["grant_id"] for row in kept.rows.all(table)} == {"g3"}


async def test_found_tickets_are_cached_for_a_minute_per_tenant_and_misses_are_not(clock: Clock) -> None:
    kept = Kept(clock)
    handle, unknown = kept.keep(delegation()), new_ticket()
    for _ in range(2):
        assert await kept.tickets.find("acme", handle) == Ticket("sales", "g1")
    assert kept.rows.reads == 1
    clock.now += 59.999
    assert await kept.tickets.find("acme", handle) == Ticket("sales", "g1") and kept.rows.reads == 1
    clock.now += 0.001
    assert await kept.tickets.find("acme", handle) == Ticket("sales", "g1") and kept.rows.reads == 2
    assert [await kept.tickets.find("acme", unknown) for _ in range(2)] == [None, None] and kept.rows.reads == 4
    assert await kept.tickets.find("evil", handle) is None and kept.rows.reads == 5


async def test_what_has_not_the_form_of_a_ticket_is_not_even_looked_for(clock: Clock) -> None:
    kept = Kept(clock)
    handle = kept.keep(delegation())
    for wrong in ("", "it_", handle[:-1], f"{handle}A", f"xx_{handle[3:]}", handle[3:], f"{handle[3:]}abc"):
        assert await kept.tickets.find("acme", wrong) is None
    assert kept.rows.reads == 0


def test_no_two_tickets_are_the_same() -> None:
    assert len({new_ticket() for _ in range(100)}) == 100
