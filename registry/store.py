"""The registry: every agent and server by name. The hot path reads a snapshot in memory; all processes share the rows."""

import asyncio
import hmac
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Protocol, TypeVar

from sqlalchemy import Connection, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from registry import card_history as history
from registry import search_terms
from registry.card_history import NewCardVersion, VersionStatus
from registry.cards.card import WORKFLOW_KIND, Family, Registration, RegistrationStatus
from registry.changes import REFRESHED, REGISTERED, REMOVED, SECRET_RENEWED, RegistryChange, audit_record_of
from registry.names import check_name
from registry.rows import Candidate, RegistrationRows, content_text_of, sha256_hex
from registry.snapshot import Credentials, Names, Snapshot, ToRegistration, read_entry, read_snapshot
from registry.tables import probes
from registry.tables import registrations as table

T = TypeVar("T")
WAITING_MAX = 20  # pending entries of one owner
__all__ = ["Candidate", "NameTaken", "Outdated", "Registry", "TooManyPending", "UnknownName", "has_workflow"]

ExtraWrite = Callable[[Connection, int], None]
RecordAudit = Callable[[Any, Mapping[str, Any]], None]  # writes an audit record in a transaction


class RegistryBatch(Protocol):
    """A transaction of the writer; gateway/storage/writer.py implements it."""

    @property
    def connection(self) -> Connection: ...


class RegistryDatabase(Protocol):
    """The database; gateway/storage/database.py implements it."""

    async def write(self, work: Callable[[Any], T]) -> T: ...

    async def read(self, work: Callable[[Connection], T]) -> T: ...


class UnknownName(Exception):
    """No agent or server has this name in this tenant."""


class NameTaken(Exception):
    """An agent or a server has this name already."""

    def __init__(self, name: str) -> None:
        super().__init__(f"name {name} is taken by another agent or server")
        self.name = name


class TooManyPending(Exception):
    """The owner has the maximum number of pending entries."""


class Outdated(Exception):
    """The registration was changed since it was read; nothing was written."""


NO_CREDENTIALS = Credentials("0" * 64, "")


class Registry:
    """Reads and changes registrations. Reads use the snapshot. Every change is one commit with its audit record, and raises the epoch
    that makes all other processes reload."""

    def __init__(
        self,
        database: RegistryDatabase,
        raise_epoch: Callable[[Any], None],
        new_id: Callable[[str], str],
        now: Callable[[], int],
        record_audit: RecordAudit,
        *,
        rows: RegistrationRows,
        built_in: Sequence[Registration] = (),
    ) -> None:
        """`raise_epoch` raises the epoch `registry` within a transaction; `now` returns microseconds since 1970.

        `built_in`: the gateway's own entries, under reserved names, in every tenant. They have no rows and cannot be changed.
        """
        self._database = database
        self._raise_epoch = raise_epoch
        self._record_audit = record_audit
        self._new_id = new_id
        self._now = now
        self._loading = asyncio.Lock()
        self._rows = rows
        self._snapshot = Snapshot()
        self._built_in = {entry.name: entry for entry in built_in}
        self.generation = 0  # counts the snapshots; results derived from an older one may be outdated

    @property
    def server_generation(self) -> int:
        """Counts the snapshots in which a server changed: what is derived from servers alone, such as their tools, is outdated then."""
        return self._snapshot.server_generation

    def find(self, tenant: str, name: str) -> Registration:
        """Returns the entry in any status. Raises UnknownName."""
        found = self._snapshot.tenants.get(tenant, {}).get(name)
        if found is None:
            if name not in self._built_in:
                raise UnknownName(name)
            return replace(self._built_in[name], tenant=tenant)
        return found

    def active_ceiling_of(self, tenant: str, name: str) -> Sequence[str] | None:
        """Returns the ceiling of an entry that may act for people; None for any other."""
        found = self._snapshot.tenants.get(tenant, {}).get(name)
        return found.ceiling if found is not None and found.may_act else None

    def clearance_of(self, tenant: str, name: str) -> int:
        """Returns the highest sensitivity of data that the entry may receive; 0 for an unknown name."""
        found = self._snapshot.tenants.get(tenant, {}).get(name)
        return 0 if found is None else found.clearance

    def list(self, tenant: str, family: Family | None = None) -> Sequence[Registration]:
        """Returns the entries of one tenant in any status, in the order of their names."""
        entries, lists = self._snapshot.tenants.get(tenant), self._snapshot.lists
        if entries is None:  # a caller can name any tenant
            return _list_entries(self._built_in, tenant, {}, family)
        if (tenant, family) not in lists:
            lists[tenant, family] = _list_entries(self._built_in, tenant, entries, family)
        return lists[tenant, family]

    def tenants(self) -> Sequence[str]:
        """Returns the tenants that have an entry."""
        return list(self._snapshot.tenants)

    def find_client(self, client_id: str) -> Registration | None:
        """Returns the agent or server with this client id."""
        return self._snapshot.clients.get(client_id)

    def verify_secret(self, client_id: str, secret: str) -> bool:
        """Returns whether `secret` is the client's current secret. Takes the same time for an unknown client."""
        expected = self._snapshot.credentials.get(client_id, NO_CREDENTIALS)
        return hmac.compare_digest(sha256_hex(secret), expected.secret_hash)

    def jwks_of_client(self, client_id: str) -> str:
        """Returns the key set that the client authenticates with instead of a secret, as JSON; empty if it has none."""
        return self._snapshot.credentials.get(client_id, NO_CREDENTIALS).jwks

    async def add(
        self, candidate: Candidate, registry_change: RegistryChange = REGISTERED, pending_limit: int | None = None
    ) -> tuple[Registration, str]:
        """Writes a new entry. Returns it with its client secret, of which only the hash is stored.

        `pending_limit` is the maximum number of pending entries of the owner; None for no limit.

        Raises BadName, NameTaken and TooManyPending.
        """
        check_name(candidate.name)
        secret = secrets.token_urlsafe(32)
        now = self._now()
        row = self._rows.to_row(candidate) | {
            "client_id": self._new_id("client"),
            "client_secret_hash": sha256_hex(secret),
            "client_jwks": candidate.jwks,
            "created": now,
            "updated": now,
        }

        def work(batch: RegistryBatch) -> None:
            _insert_entry(batch.connection, candidate, row, pending_limit)
            self._record_audit(batch, audit_record_of(registry_change, row))
            self._raise_epoch(batch)

        try:
            await self._database.write(work)
        except IntegrityError as error:  # another process was faster
            raise NameTaken(candidate.name) from error
        await self._reload_entry(candidate.tenant, candidate.name)
        return self.find(candidate.tenant, candidate.name), secret

    async def update(
        self,
        registration: Registration,
        registry_change: RegistryChange = REFRESHED,
        extra_write: ExtraWrite | None = None,
        jwks: str | None = None,
    ) -> Registration:
        """Writes a changed copy of a registration that was read before. Raises Outdated and UnknownName.

        `extra_write` runs in the same commit, with the connection and the time of the change. `jwks` replaces the key set unless None.
        """
        moment = _change_time(self._now(), registration)
        keys = {} if jwks is None else {"client_jwks": jwks}

        def note(connection: Connection) -> None:
            _index_terms(connection, registration)
            if extra_write is not None:
                extra_write(connection, moment)

        await self._update_row(registration, self._rows.to_row(registration) | keys | {"updated": moment}, registry_change, note)
        return self.find(registration.tenant, registration.name)

    async def set_status(
        self, tenant: str, name: str, status: RegistrationStatus, registry_change: RegistryChange = REFRESHED
    ) -> Registration:
        """Changes the status of an entry. Raises UnknownName and Outdated."""
        return await self.update(replace(self.find(tenant, name), status=status), registry_change)

    async def renew_secret(self, tenant: str, name: str, registry_change: RegistryChange = SECRET_RENEWED) -> str:
        """Replaces the client secret and returns the new one. Raises UnknownName and Outdated."""
        secret = secrets.token_urlsafe(32)
        found = self.find(tenant, name)
        await self._update_row(
            found,
            self._rows.to_row(found) | {"client_secret_hash": sha256_hex(secret), "updated": _change_time(self._now(), found)},
            registry_change,
        )
        return secret

    async def remove(self, tenant: str, name: str, registry_change: RegistryChange = REMOVED) -> None:
        """Deletes an entry with its probe state, card history and search terms. Raises UnknownName."""

        def work(batch: RegistryBatch) -> None:
            row = _delete_entry(batch.connection, tenant, name)
            self._record_audit(batch, audit_record_of(registry_change, row))
            self._raise_epoch(batch)

        await self._database.write(work)
        await self._reload_entry(tenant, name)

    async def reload(self) -> None:
        """Reads the rows that changed since the last snapshot. Called at start, and when the epoch was raised."""
        await self._load(read_snapshot)

    async def _reload_entry(self, tenant: str, name: str) -> None:
        """Reads an entry that this process changed. What others changed is read when the epoch is seen."""
        await self._load(partial(read_entry, key=(tenant, name)))

    async def _load(self, read: Callable[[Connection, Snapshot, ToRegistration], Snapshot]) -> None:
        async with self._loading:
            found = await self._database.read(lambda connection: read(connection, self._snapshot, self._rows.to_registration))
            if found is not self._snapshot:
                self._snapshot = found
                self.generation += 1

    async def _update_row(
        self,
        previous: Registration,
        values: Mapping[str, Any],
        registry_change: RegistryChange,
        extra_write: Callable[[Connection], None] | None = None,
    ) -> None:
        """Changes one row, unless it was changed since `previous` was read. Raises Outdated."""

        def work(batch: RegistryBatch) -> None:
            _update_entry(batch.connection, previous, values)
            if extra_write is not None:
                extra_write(batch.connection)
            self._record_audit(batch, audit_record_of(registry_change, {"client_id": previous.client_id, **values}))
            self._raise_epoch(batch)

        try:
            await self._database.write(work)
        finally:
            await self._reload_entry(previous.tenant, previous.name)


def _list_entries(built_in: Names, tenant: str, entries: Names, family: Family | None) -> Sequence[Registration]:
    """Returns the entries of a tenant with the gateway's own ones, in the order of their names."""
    if built_in:  # an older version may have registered a name that is reserved now
        own = {name: replace(entry, tenant=tenant) for name, entry in built_in.items()}
        entries = dict(sorted({**own, **entries}.items()))
    return tuple(entry for entry in entries.values() if family is None or entry.family is family)


def has_workflow(registry: Registry, tenant: str, name: str) -> bool:
    """Whether the tenant has a workflow of this name."""
    return find_workflow(registry, tenant, name) is not None


def find_workflow(registry: Registry, tenant: str, name: str) -> Registration | None:
    """The workflow that the tenant has under this name, or None."""
    try:
        found = registry.find(tenant, name)
    except UnknownName:
        return None
    return found if found.kind == WORKFLOW_KIND else None


def _change_time(now: int, previous: Registration) -> int:
    """The time of a change in microseconds, at least a millisecond after the change before, so that it names one state of the entry."""
    return max(now, previous.updated + 1000)


def _insert_entry(connection: Connection, candidate: Candidate, row: Mapping[str, Any], pending_limit: int | None) -> None:
    """Inserts the row of a new entry, with its first card version and its search terms. Raises NameTaken and TooManyPending."""
    named = select(table.c.name).where(table.c.tenant == candidate.tenant, table.c.name == candidate.name)
    if connection.execute(named).first():
        raise NameTaken(candidate.name)
    if pending_limit is not None and _count_pending(connection, candidate) >= pending_limit:
        raise TooManyPending
    connection.execute(insert(table).values(row))
    _write_first_version(connection, candidate, row["created"])
    _index_terms(connection, candidate)


def _update_entry(connection: Connection, previous: Registration, values: Mapping[str, Any]) -> None:
    """Changes the row of an entry, unless it was changed since `previous` was read. Raises Outdated."""
    same = (table.c.tenant == previous.tenant, table.c.name == previous.name, table.c.client_id == previous.client_id)
    if not connection.execute(update(table).where(*same, table.c.updated == previous.updated).values(values)).rowcount:
        raise Outdated("the registration was changed since it was read; read it again")


def _delete_entry(connection: Connection, tenant: str, name: str) -> dict[str, Any]:
    """Deletes an entry with its probe state, card history and search terms, and returns its row. Raises UnknownName."""
    named = (table.c.tenant == tenant, table.c.name == name)
    found = connection.execute(select(table).where(*named)).mappings().first()
    if found is None or not connection.execute(delete(table).where(*named)).rowcount:
        raise UnknownName(name)
    connection.execute(delete(probes).where(probes.c.tenant == tenant, probes.c.name == name))
    history.delete_versions(connection, (tenant, name))
    search_terms.delete(connection, tenant, name)
    return dict(found)


def _count_pending(connection: Connection, candidate: Candidate) -> int:
    """Returns the number of pending entries of the candidate's owner."""
    of_owner = (table.c.tenant == candidate.tenant, table.c.owner == candidate.owner, table.c.status == RegistrationStatus.PENDING.value)
    return connection.execute(select(func.count()).select_from(table).where(*of_owner)).scalar_one()


def _index_terms(connection: Connection, entry: Candidate | Registration) -> None:
    if entry.family is Family.AGENT:
        search_terms.write(connection, entry.tenant, entry.name, search_terms.terms_of(entry.name, entry.card))


def _write_first_version(connection: Connection, candidate: Candidate, now: int) -> None:
    """Writes the first version of an agent's card history."""
    if candidate.card is not None or candidate.family is not Family.AGENT:
        standing = VersionStatus.PENDING if candidate.status is RegistrationStatus.PENDING else VersionStatus.APPROVED
        entry = NewCardVersion(content_text_of(candidate), str(candidate.facts.get("signature", "none")), standing, candidate.facts)
        history.write_version(connection, (candidate.tenant, candidate.name), now, entry)
