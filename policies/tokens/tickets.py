"""Tickets: given to an agent that exchanges no tokens, for one task. Only that agent can use one, and it must authenticate."""

import secrets
from collections.abc import Callable
from hashlib import sha256

from msgspec import Struct
from sqlalchemy import Connection, select

from policies.cache import BoundedCache
from policies.delegation.chain import Delegation
from policies.tables import TransactionalDatabase, WriteBatch
from policies.tables import tickets as table

TICKET_HEADER = "Interlock-Ticket"  # the request header of a ticket
_PREFIX = "it_"
_LENGTH = len(_PREFIX) + 43  # 256 bits in base64url
_CACHED_SECONDS = 60.0


class Ticket(Struct, frozen=True):
    """The agent that a ticket was given to, and its grant, which decides whether the ticket is still valid."""

    agent: str
    grant_id: str


def new_ticket() -> str:
    """A new opaque, unpredictable handle."""
    return _PREFIX + secrets.token_urlsafe(32)


def write_ticket(batch: WriteBatch, handle: str, delegation: Delegation, now_us: int) -> None:
    """Writes the hash of a ticket for the delegation's grant, and deletes expired tickets."""
    tenant = delegation.principal.tenant
    batch.run("DELETE FROM tickets WHERE tenant = ? AND not_after < ?", (tenant, now_us))
    batch.add(
        table,
        {
            "tenant": tenant,
            "hash": _digest(handle),
            "agent": delegation.actor,
            "grant_id": delegation.grant_id,
            "not_after": int(delegation.not_after * 1_000_000),
        },
    )


class Tickets:
    """Finds tickets. A row never changes, so it is cached for a minute. `clock` counts seconds."""

    def __init__(self, reader: TransactionalDatabase, clock: Callable[[], float]) -> None:
        self._reader = reader
        self._cache: BoundedCache[tuple[str, str], Ticket] = BoundedCache(10_000, clock)

    async def find(self, tenant: str, handle: str) -> Ticket | None:
        """The ticket with this handle in this tenant, or None."""
        if len(handle) != _LENGTH or not handle.startswith(_PREFIX):
            return None
        key = (tenant, _digest(handle))
        ticket = self._cache.get(key)
        if ticket is None:
            ticket = await self._reader.read(lambda connection: _load(connection, *key))
            if ticket is not None:
                self._cache.put(key, ticket, _CACHED_SECONDS)
        return ticket


def _digest(handle: str) -> str:
    return sha256(handle.encode()).hexdigest()


def _load(connection: Connection, tenant: str, digest: str) -> Ticket | None:
    row = connection.execute(select(table).where((table.c.tenant == tenant) & (table.c.hash == digest))).first()
    return None if row is None else Ticket(row.agent, row.grant_id)
