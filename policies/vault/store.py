"""The vault: credentials for upstreams and the gateway's own clients, sealed in rows that every process shares."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final, Protocol, TypeVar
from weakref import WeakValueDictionary

import msgspec
import structlog
from sqlalchemy import Connection, Row, select

from policies.cache import BoundedCache
from policies.delegation.rulings import Grant
from policies.ids import new_id
from policies.tables import vault as table
from policies.tables import vault_clients as clients
from policies.tables import vault_leases as leases
from policies.vault.credentials import Client, Credential, CredentialKey, NotTheirs, Vault, origin_of
from policies.vault.envelope import CannotOpen, Envelope, Sealed

T = TypeVar("T")
CACHED_SECONDS: Final = 1.0  # how long what another process changed may go unseen
CACHED_MAX: Final = 10_000
LEASE_SECONDS: Final = 40.0  # longer than a token endpoint is waited for, twice
LOOK_SECONDS: Final = 0.05  # between two looks at what another process holds
_KEEP: Final = (
    "INSERT INTO vault (tenant, owner, issuer, resource, origin, kek_id, wrapped, body, updated) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) "
    "ON CONFLICT (tenant, owner, issuer, resource) DO UPDATE SET "
    "kek_id = excluded.kek_id, wrapped = excluded.wrapped, body = excluded.body, updated = excluded.updated"
)
_KEEP_CLIENT: Final = (
    "INSERT INTO vault_clients (tenant, issuer, kek_id, wrapped, body) VALUES (?, ?, ?, ?, ?) "
    "ON CONFLICT (tenant, issuer) DO UPDATE SET kek_id = excluded.kek_id, wrapped = excluded.wrapped, body = excluded.body"
)
_TAKE: Final = (
    "INSERT INTO vault_leases (id, holder, until) VALUES (?, ?, ?) "
    "ON CONFLICT (id) DO UPDATE SET holder = excluded.holder, until = excluded.until WHERE vault_leases.until < ?"
)
_LEAVE: Final = "DELETE FROM vault_leases WHERE id = ? AND holder = ?"
_encode: Final = msgspec.json.Encoder().encode
_credential: Final = msgspec.json.Decoder(Credential).decode
_client: Final = msgspec.json.Decoder(Client).decode
log = structlog.get_logger()
Held = tuple[tuple[CredentialKey, Credential], ...]


class Batch(Protocol):
    """The writer's transaction (gateway/storage/writer.py)."""

    def run(self, statement: str, values: tuple[Any, ...]) -> int: ...


class Database(Protocol):
    """gateway/storage/database.py."""

    async def write(self, work: Callable[[Any], T]) -> T: ...

    async def read(self, work: Callable[[Connection], T]) -> T: ...


def client_place(tenant: str, issuer: str) -> tuple[str, ...]:
    return ("client", tenant, issuer)


class DatabaseVault:
    """What this process read is believed for a second. `now` counts microseconds since 1970."""

    def __init__(self, database: Database, envelope: Envelope, now: Callable[[], int]) -> None:
        self._database = database
        self._envelope = envelope
        self._now = now
        self._cache: BoundedCache[tuple[str, str, str], Held] = BoundedCache(CACHED_MAX, lambda: now() / 1e6)
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._changes = 0

    async def read(self, grant: Grant, key: CredentialKey) -> Credential | None:
        """From the row itself; none where that can't be opened. Raises NotTheirs."""
        if not key.opened_by(grant):
            raise NotTheirs
        row = await self._database.read(lambda connection: connection.execute(select(table).where(*_named(key))).first())
        plain = None if row is None else self._opened(key.place, row)
        return None if plain is None else _credential(plain)

    async def find(self, grant: Grant, origin: str, personal: bool) -> Held:
        principal = grant.delegation.principal
        drawer = (principal.tenant, principal.owner if personal else "", origin)
        held = self._cache.get(drawer)
        if held is None:
            changes = self._changes
            held = await self._all(table.c.tenant == drawer[0], table.c.owner == drawer[1], table.c.origin == origin)
            if changes == self._changes:  # else it may be older than what was kept or forgotten meanwhile
                self._cache.put(drawer, held, CACHED_SECONDS)
        return held

    async def owned(self, tenant: str, owner: str) -> Held:
        """Everything of one person, the oldest first."""
        return await self._all(table.c.tenant == tenant, table.c.owner == owner)

    async def keep(self, key: CredentialKey, credential: Credential) -> None:
        sealed = self._envelope.seal(key.place, _encode(credential))
        values = (*key, origin_of(key.resource), *sealed, self._now())
        await self._database.write(lambda batch: batch.run(_KEEP, values))
        self._changed(key)

    async def forget(self, key: CredentialKey) -> None:
        statement = "DELETE FROM vault WHERE tenant = ? AND owner = ? AND issuer = ? AND resource = ?"
        await self._database.write(lambda batch: batch.run(statement, tuple(key)))
        self._changed(key)

    def _changed(self, key: CredentialKey) -> None:
        self._changes += 1
        self._cache.drop(_drawer(key))

    @asynccontextmanager
    async def alone(self, place: Sequence[str]) -> AsyncIterator[None]:
        """In this process by a lock, among processes by a row, which is free again when its holder is no more."""
        lease, holder = hashlib.sha256(json.dumps(list(place)).encode()).hexdigest(), new_id("v")
        lock = self._locks.get(lease)
        if lock is None:
            lock = self._locks[lease] = asyncio.Lock()
        async with lock:
            try:
                await self._await_turn(lease, holder)
                yield
            finally:  # of who was interrupted too: nobody can say whether the row was taken by then
                await self._database.write(lambda batch: batch.run(_LEAVE, (lease, holder)))

    async def _await_turn(self, lease: str, holder: str) -> None:
        """Looks before it writes: only who finds it free tries to have it."""
        wanted = select(leases.c.until).where(leases.c.id == lease)
        while True:
            until, now = await self._database.read(lambda connection: connection.execute(wanted).scalar()), self._now()
            values = (lease, holder, now + int(LEASE_SECONDS * 1e6), now)
            if (until is None or until < now) and await self._database.write(partial(_take, values)) == 1:
                return
            await asyncio.sleep(LOOK_SECONDS)

    async def client(self, tenant: str, issuer: str) -> Client | None:
        wanted = select(clients).where(clients.c.tenant == tenant, clients.c.issuer == issuer)
        row = await self._database.read(lambda connection: connection.execute(wanted).first())
        plain = None if row is None else self._opened(client_place(tenant, issuer), row)
        return None if plain is None else _client(plain)

    async def keep_client(self, tenant: str, client: Client) -> None:
        sealed = self._envelope.seal(client_place(tenant, client.issuer), _encode(client))
        await self._database.write(lambda batch: batch.run(_KEEP_CLIENT, (tenant, client.issuer, *sealed)))

    async def forget_client(self, tenant: str, issuer: str) -> None:
        await self._database.write(lambda batch: batch.run("DELETE FROM vault_clients WHERE tenant = ? AND issuer = ?", (tenant, issuer)))

    async def _all(self, *where: Any) -> Held:
        wanted = select(table).where(*where).order_by(table.c.updated)
        held = []
        for row in await self._database.read(lambda connection: connection.execute(wanted).all()):
            key = CredentialKey(row.tenant, row.owner, row.issuer, row.resource)
            plain = self._opened(key.place, row)
            if plain is not None:
                held.append((key, _credential(plain)))
        return tuple(held)

    def _opened(self, place: Sequence[str], row: "Row[Any]") -> bytes | None:
        """What can't be opened is as good as gone: people are asked anew, and nobody else's is used instead."""
        try:
            return self._envelope.open(place, _sealed(row))
        except CannotOpen as error:
            log.error("vault_row_unusable", kind=place[0], tenant=row.tenant, issuer=row.issuer, why=str(error))
            return None


def _take(values: tuple[Any, ...], batch: Batch) -> int:
    return batch.run(_TAKE, values)


def _named(key: CredentialKey) -> tuple[Any, ...]:
    return tuple(getattr(table.c, name) == value for name, value in key._asdict().items())


def _drawer(key: CredentialKey) -> tuple[str, str, str]:
    return (key.tenant, key.owner, origin_of(key.resource))


def _sealed(row: "Row[Any]") -> Sealed:
    return Sealed(row.kek_id, row.wrapped, row.body)


_: type[Vault] = DatabaseVault
