"""The vault: credentials for upstreams and the gateway's client registrations, sealed in rows that all processes share."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final
from weakref import WeakValueDictionary

import msgspec
import structlog
from sqlalchemy import Row, select

from policies.cache import BoundedCache
from policies.delegation.rulings import Grant
from policies.ids import new_id
from policies.tables import TransactionalDatabase, WriteBatch
from policies.tables import vault_clients as clients
from policies.tables import vault_credentials as table
from policies.tables import vault_leases as leases
from policies.vault.credentials import ClientRegistration, Credential, CredentialKey, CredentialVault, WrongOwner, origin_of
from policies.vault.envelope import CannotOpen, EnvelopeEncryption, SealedSecret

CACHED_SECONDS: Final = 1.0  # how long another process's change may go unnoticed
CACHED_MAX: Final = 10_000
LEASE_SECONDS: Final = 40.0  # longer than two timeouts of a token endpoint
POLL_SECONDS: Final = 0.05  # between two checks of a lease that another process holds
_UPSERT_CREDENTIAL: Final = (
    "INSERT INTO vault (tenant, owner, issuer, resource, origin, kek_id, wrapped, body, updated) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) "
    "ON CONFLICT (tenant, owner, issuer, resource) DO UPDATE SET "
    "kek_id = excluded.kek_id, wrapped = excluded.wrapped, body = excluded.body, updated = excluded.updated"
)
_UPSERT_CLIENT: Final = (
    "INSERT INTO vault_clients (tenant, issuer, kek_id, wrapped, body) VALUES (?, ?, ?, ?, ?) "
    "ON CONFLICT (tenant, issuer) DO UPDATE SET kek_id = excluded.kek_id, wrapped = excluded.wrapped, body = excluded.body"
)
_ACQUIRE_LEASE: Final = (
    "INSERT INTO vault_leases (id, holder, until) VALUES (?, ?, ?) "
    "ON CONFLICT (id) DO UPDATE SET holder = excluded.holder, until = excluded.until WHERE vault_leases.until < ?"
)
_RELEASE_LEASE: Final = "DELETE FROM vault_leases WHERE id = ? AND holder = ?"
_encode: Final = msgspec.json.Encoder().encode
_decode_credential: Final = msgspec.json.Decoder(Credential).decode
_decode_client: Final = msgspec.json.Decoder(ClientRegistration).decode
log = structlog.get_logger()
StoredCredentials = tuple[tuple[CredentialKey, Credential], ...]


def client_full_key(tenant: str, issuer: str) -> tuple[str, ...]:
    return ("client", tenant, issuer)


class DatabaseVault:
    """A vault in the database. Caches what it read for one second. `now` counts microseconds since 1970."""

    def __init__(self, database: TransactionalDatabase, envelope: EnvelopeEncryption, now: Callable[[], int]) -> None:
        self._database = database
        self._envelope = envelope
        self._now = now
        self._cache: BoundedCache[tuple[str, str, str], StoredCredentials] = BoundedCache(CACHED_MAX, lambda: now() / 1e6)
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._writes = 0

    async def read(self, grant: Grant, key: CredentialKey) -> Credential | None:
        """Reads a credential from its row; None where there is none or it can't be opened. Raises WrongOwner."""
        if not key.is_open_to(grant):
            raise WrongOwner
        row = await self._database.read(lambda connection: connection.execute(select(table).where(*_key_conditions(key))).first())
        plain = None if row is None else self._open_or_none(key.full_key, row)
        return None if plain is None else _decode_credential(plain)

    async def find(self, grant: Grant, origin: str, personal: bool) -> StoredCredentials:
        principal = grant.delegation.principal
        drawer = (principal.tenant, principal.owner_key if personal else "", origin)
        held = self._cache.get(drawer)
        if held is None:
            changes = self._writes
            held = await self._read_where(table.c.tenant == drawer[0], table.c.owner == drawer[1], table.c.origin == origin)
            if changes == self._writes:  # otherwise it may be older than a concurrent write or deletion
                self._cache.put(drawer, held, CACHED_SECONDS)
        return held

    async def list_of_owner(self, tenant: str, owner: str) -> StoredCredentials:
        """All credentials of one person, oldest first."""
        return await self._read_where(table.c.tenant == tenant, table.c.owner == owner)

    async def write(self, key: CredentialKey, credential: Credential) -> None:
        sealed = self._envelope.seal(key.full_key, _encode(credential))
        values = (*key, origin_of(key.resource), *sealed, self._now())
        await self._database.write(lambda batch: batch.run(_UPSERT_CREDENTIAL, values))
        self._invalidate(key)

    async def delete(self, key: CredentialKey) -> None:
        statement = "DELETE FROM vault WHERE tenant = ? AND owner = ? AND issuer = ? AND resource = ?"
        await self._database.write(lambda batch: batch.run(statement, tuple(key)))
        self._invalidate(key)

    def _invalidate(self, key: CredentialKey) -> None:
        self._writes += 1
        self._cache.drop(_cache_key(key))

    @asynccontextmanager
    async def lease(self, name: Sequence[str]) -> AsyncIterator[None]:
        """Holds `name` within this process by a lock, and among processes by a row, which expires after LEASE_SECONDS."""
        lease, holder = hashlib.sha256(json.dumps(list(name)).encode()).hexdigest(), new_id("v")
        lock = self._locks.get(lease)
        if lock is None:
            lock = self._locks[lease] = asyncio.Lock()
        async with lock:
            try:
                await self._acquire_lease(lease, holder)
                yield
            finally:  # also after a cancellation, when the row may or may not have been written
                await self._database.write(lambda batch: batch.run(_RELEASE_LEASE, (lease, holder)))

    async def _acquire_lease(self, lease: str, holder: str) -> None:
        """Waits for the lease. Reads before it writes, so that only a free lease is written."""
        wanted = select(leases.c.until).where(leases.c.id == lease)
        while True:
            until, now = await self._database.read(lambda connection: connection.execute(wanted).scalar()), self._now()
            values = (lease, holder, now + int(LEASE_SECONDS * 1e6), now)
            if (until is None or until < now) and await self._database.write(partial(_try_acquire, values)) == 1:
                return
            await asyncio.sleep(POLL_SECONDS)

    async def find_client(self, tenant: str, issuer: str) -> ClientRegistration | None:
        wanted = select(clients).where(clients.c.tenant == tenant, clients.c.issuer == issuer)
        row = await self._database.read(lambda connection: connection.execute(wanted).first())
        plain = None if row is None else self._open_or_none(client_full_key(tenant, issuer), row)
        return None if plain is None else _decode_client(plain)

    async def write_client(self, tenant: str, client: ClientRegistration) -> None:
        sealed = self._envelope.seal(client_full_key(tenant, client.issuer), _encode(client))
        await self._database.write(lambda batch: batch.run(_UPSERT_CLIENT, (tenant, client.issuer, *sealed)))

    async def delete_client(self, tenant: str, issuer: str) -> None:
        await self._database.write(lambda batch: batch.run("DELETE FROM vault_clients WHERE tenant = ? AND issuer = ?", (tenant, issuer)))

    async def _read_where(self, *where: Any) -> StoredCredentials:
        wanted = select(table).where(*where).order_by(table.c.updated)
        held = []
        for row in await self._database.read(lambda connection: connection.execute(wanted).all()):
            key = CredentialKey(row.tenant, row.owner, row.issuer, row.resource)
            plain = self._open_or_none(key.full_key, row)
            if plain is not None:
                held.append((key, _decode_credential(plain)))
        return tuple(held)

    def _open_or_none(self, full_key: Sequence[str], row: "Row[Any]") -> bytes | None:
        """Opens a row; None if that fails. The person then has to consent again, and no other credential is used instead."""
        try:
            return self._envelope.open(full_key, _sealed_from_row(row))
        except CannotOpen as error:
            log.error("vault_row_unusable", kind=full_key[0], tenant=row.tenant, issuer=row.issuer, why=str(error))
            return None


def _try_acquire(values: tuple[Any, ...], batch: WriteBatch) -> int:
    return batch.run(_ACQUIRE_LEASE, values)


def _key_conditions(key: CredentialKey) -> tuple[Any, ...]:
    return tuple(getattr(table.c, name) == value for name, value in key._asdict().items())


def _cache_key(key: CredentialKey) -> tuple[str, str, str]:
    return (key.tenant, key.owner, origin_of(key.resource))


def _sealed_from_row(row: "Row[Any]") -> SealedSecret:
    return SealedSecret(row.kek_id, row.wrapped, row.body)


_: type[CredentialVault] = DatabaseVault
