"""Tickets: kept by their hash, found in their own tenant, forgotten when their time is over."""

import re

from sqlalchemy import select

from gateway.database import Database
from policies.delegation import Delegation, Hop
from policies.permissions import ALL
from policies.principal import Principal
from policies.tables import tickets as table
from policies.tickets import Ticket, Tickets, keep_ticket, new_ticket

NOW = 1_800_000_000


def delegation(tenant: str = "acme", not_after: float = NOW + 60, grant: str = "g1") -> Delegation:
    return Delegation(Principal(tenant, "https://idp.test", "alice"), ALL, not_after, (Hop("sales", ALL),), grant_id=grant)


async def kept(database: Database, given: Delegation, now: int = NOW) -> str:
    handle = new_ticket()
    await database.write(lambda batch: keep_ticket(batch, handle, given, now * 1_000_000))
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
