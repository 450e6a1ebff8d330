"""The registry's rows as they were at one moment. A newer snapshot takes unchanged entries from the one before."""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, select, text, tuple_

from registry.cards.card import Family, Registration
from registry.tables import registrations as table

READ_AT_ONCE = 200
CLOCK_SKEW = 5_000_000  # microseconds by which a change may be older than one that was seen before it; else all rows are looked at
Names = Mapping[str, Registration]
EntryKey = tuple[str, str]  # tenant, name
ToRegistration = Callable[[Row[Any]], Registration]
_READ_TIMES = text(  # one statement, so that no change comes between the checksum and the times
    "SELECT entries, milliseconds, newest, tenant, name, updated, client_id FROM (SELECT count(*) AS entries, "
    "coalesce(sum(updated / 1000), 0) AS milliseconds, coalesce(max(updated), 0) AS newest FROM registrations) AS whole "
    "LEFT JOIN registrations ON updated > :after"
)


class Checksum(NamedTuple):
    """Differs between any two states of the table: an entry's time of change grows by a millisecond at least with each change."""

    entries: int = 0
    milliseconds: int = 0  # the sum of the times of change
    newest: int = 0  # the latest of them, in microseconds


NO_ENTRIES = Checksum()


@dataclass(frozen=True, slots=True)
class Credentials:
    secret_hash: str  # sha256, in hex
    jwks: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    tenants: Mapping[str, Names] = field(default_factory=dict)  # each in the order of names
    clients: Mapping[str, Registration] = field(default_factory=dict)
    credentials: Mapping[str, Credentials] = field(default_factory=dict, repr=False)  # by client id
    checksum: Checksum = NO_ENTRIES  # of these entries
    server_generation: int = 0  # counts the snapshots in which a server differs from the one before
    lists: dict[tuple[str, Family | None], Sequence[Registration]] = field(default_factory=dict, repr=False)  # those asked for so far


def read_snapshot(connection: Connection, previous: Snapshot, to_registration: ToRegistration) -> Snapshot:
    """Returns the current rows, or `previous` if they are the same.

    Looks at the rows that changed last. Only if these do not explain the checksum, as after a removal, it looks at the times of all.
    """
    checksum, times = _read_times(connection, previous.checksum.newest - CLOCK_SKEW)
    found = _replace_entries(previous, *_read_rows(connection, _changed_keys(times, previous), to_registration))
    if found.checksum == checksum:
        return found
    _, times = _read_times(connection)
    gone = {(entry.tenant, entry.name) for entry in found.clients.values()} - {(tenant, name) for tenant, name, _, _ in times}
    return _replace_entries(found, *_read_rows(connection, _changed_keys(times, found), to_registration), gone)


def read_entry(connection: Connection, previous: Snapshot, to_registration: ToRegistration, key: EntryKey) -> Snapshot:
    """Reads one entry again, or finds it gone. Returns `previous` if it is the same."""
    read, credentials = _read_rows(connection, [key], to_registration)
    known = previous.tenants.get(key[0], {}).get(key[1])
    if not read:
        return _replace_entries(previous, (), {}, [key] if known is not None else ())
    is_same = known is not None and (known.client_id, known.updated) == (read[0].client_id, read[0].updated)
    return previous if is_same else _replace_entries(previous, read, credentials)


_RowTime = tuple[str, str, int, str]  # tenant, name, time of the last change, client id


def _read_times(connection: Connection, after: int = -1) -> tuple[Checksum, list[_RowTime]]:
    """Returns the checksum of all entries, and the times of those that were changed after a time."""
    rows = connection.execute(_READ_TIMES, {"after": after}).all()
    times = [(tenant, name, updated, client_id) for _, _, _, tenant, name, updated, client_id in rows if tenant is not None]
    return Checksum(*map(int, rows[0][:3])), times


def _changed_keys(times: Iterable[_RowTime], known: Snapshot) -> list[EntryKey]:
    """Returns the tenants and names of the entries that are not known as they are now."""
    return [
        (tenant, name)
        for tenant, name, updated, client_id in times
        if (entry := known.clients.get(client_id)) is None or entry.updated != updated
    ]


def _read_rows(
    connection: Connection, keys: Sequence[EntryKey], to_registration: ToRegistration
) -> tuple[list[Registration], dict[str, Credentials]]:
    """Reads entries by tenant and name, and their credentials by client id."""
    found: list[Registration] = []
    credentials: dict[str, Credentials] = {}
    for start in range(0, len(keys), READ_AT_ONCE):
        wanted = select(table).where(tuple_(table.c.tenant, table.c.name).in_(keys[start : start + READ_AT_ONCE]))
        for row in connection.execute(wanted):
            found.append(to_registration(row))
            credentials[row.client_id] = Credentials(row.client_secret_hash, row.client_jwks)
    return found, credentials


def _replace_entries(
    previous: Snapshot, read: Sequence[Registration], credentials: Mapping[str, Credentials], gone: Collection[EntryKey] = ()
) -> Snapshot:
    """Returns a snapshot with the entries that were read in place of those of their names, and without those that are gone."""
    if not read and not gone:
        return previous
    fresh: defaultdict[str, dict[str, Registration | None]] = defaultdict(dict)
    for tenant, name in gone:
        fresh[tenant][name] = None
    for entry in read:
        fresh[entry.tenant][entry.name] = entry
    tenants, clients, known_credentials = dict(previous.tenants), dict(previous.clients), dict(previous.credentials)
    milliseconds, families = previous.checksum.milliseconds, {entry.family for entry in read}
    for tenant, names in fresh.items():
        known = tenants.get(tenant, {})
        for outdated in filter(None, map(known.get, names)):
            milliseconds -= outdated.updated // 1000
            families.add(outdated.family)
            del clients[outdated.client_id], known_credentials[outdated.client_id]
        tenants[tenant] = _merge_names(known, names)
    clients |= {entry.client_id: entry for entry in read}
    milliseconds += sum(entry.updated // 1000 for entry in read)
    checksum = Checksum(len(clients), milliseconds, max(map(attrgetter("updated"), clients.values()), default=0))
    shown = {tenant: names for tenant, names in sorted(tenants.items()) if names}
    server_generation = previous.server_generation + (Family.SERVER in families)
    return Snapshot(shown, clients, {**known_credentials, **credentials}, checksum, server_generation)


def _merge_names(known: Names, fresh: Mapping[str, Registration | None]) -> Names:
    """Returns the entries of a tenant with changed ones, and without those that are None, in the order of names."""
    merged = {**known, **{name: entry for name, entry in fresh.items() if entry is not None}}
    is_ordered = len(merged) == len(known)  # no name is new
    for name in (name for name, entry in fresh.items() if entry is None):
        merged.pop(name, None)
    return merged if is_ordered else dict(sorted(merged.items()))
