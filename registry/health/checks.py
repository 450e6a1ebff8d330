"""Health checks of agents and servers: the time and result of the last one, and the time of the next."""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from itertools import count
from random import random
from types import MappingProxyType

from sqlalchemy import Connection, insert, select, tuple_, update

from registry.store import RegistryBatch, RegistryDatabase
from registry.tables import probes

INTERVAL_SECONDS = 60.0  # seconds between two checks of an entry that responds
INTERVAL_MAX_SECONDS = 900.0  # the maximum for an entry that does not
DOWN_AFTER = 3  # failures in a row
NAMED_MAX = 1000  # entries that a query names; more of them are picked from all entries of their tenants
JITTER = 0.1  # share of an interval by which it is shortened at most, so that entries registered together are not checked together
DUE_AT_ONCE = 200  # due checks that a query returns: some are of entries that are not watched
CLAIM_SECONDS = 120.0  # seconds for which a check claimed by another process is left to it
HOST_CLAIMS_MAX = 50  # claimed checks of one host and process: a host that is slow leaves places to others
EntryKey = tuple[str, str]  # tenant, name
_DueCheck = tuple[str, str, int]  # tenant, name, when it was due
NO_CLAIMS: Mapping[str, int] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class ProbeState:
    """The result of the last check. Times are microseconds since 1970.

    `place` (a URL), `etag` and `last_modified` are for the next conditional request.
    """

    checked: int = 0
    next_at: int = 0
    failures: int = 0
    note: str = ""  # the last problem; empty: none
    place: str = ""
    etag: str = ""
    last_modified: str = ""
    hash: str = ""  # of the card that came with these validators
    cause: str = ""  # of `note`, for operators: the call and its error

    @property
    def is_down(self) -> bool:
        return self.failures >= DOWN_AFTER


class Probes:
    """Stores check results apart from registrations, so that a check moves no epoch. Processes share the checks."""

    def __init__(self, database: RegistryDatabase, now: Callable[[], int], random: Callable[[], float] = random) -> None:
        """`now` returns microseconds since 1970, and `random` a number from 0 to 1."""
        self._database = database
        self._now = now
        self._random = random
        self._planned: Collection[EntryKey] = ()  # the keys of which each is known to have a next check

    async def read_state(self, key: EntryKey) -> ProbeState:
        return (await self._read_known([key])).get(key, ProbeState())

    async def claim_due(self, hosts: Mapping[EntryKey, str], limit: int, claimed: Mapping[str, int] = NO_CLAIMS) -> list[EntryKey]:
        """The keys whose check is due, claimed for this process. A new key's first check is due one interval later.

        `hosts` has the host of each watched key, and `claimed` how many checks of a host this process has claimed and not finished.
        New keys are looked for only when `hosts` is another object than the last time, so a caller keeps it until the registry changes.
        """
        now, is_new = self._now(), hosts is not self._planned
        fresh, ripe = await self._database.read(
            lambda connection: (
                _keys_without_check(connection, hosts.keys()) if is_new else (),
                _due_checks(connection, hosts, now, limit, claimed=claimed),
            )
        )

        def work(batch: RegistryBatch) -> list[EntryKey]:
            for key in fresh:
                _upsert(batch.connection, key, ProbeState(next_at=now + _to_us(INTERVAL_SECONDS)))
            return _claim(batch.connection, ripe, now + _to_us(CLAIM_SECONDS))

        taken = await self._database.write(work) if fresh or ripe else []
        self._planned = hosts
        return taken

    async def record_success(self, key: EntryKey, found: ProbeState) -> ProbeState:
        """Records a success; `found` has the validators of the next conditional request."""
        now = self._now()
        return await self._write_state(
            key, replace(found, checked=now, next_at=now + self._shorten(INTERVAL_SECONDS), failures=0, note="", cause="")
        )

    async def record_failure(self, key: EntryKey, note: str, cause: str = "") -> ProbeState:
        """Records a failure; the interval to the next check doubles each time."""
        now, previous = self._now(), await self.read_state(key)
        failures = previous.failures + 1
        wait = min(INTERVAL_SECONDS * 2 ** min(failures - 1, 10), INTERVAL_MAX_SECONDS)
        found = replace(previous, checked=now, next_at=now + self._shorten(wait), failures=failures, note=note[:500], cause=cause[:500])
        return await self._write_state(key, found)

    async def read_states(self, keys: Sequence[EntryKey]) -> Mapping[EntryKey, ProbeState]:
        """The results of all keys that were checked."""
        return await self._read_known(keys) if keys else {}

    async def failing_names(self, tenant: str) -> frozenset[str]:
        """The names of a tenant's entries whose last check failed."""
        query = select(probes.c.name).where(probes.c.tenant == tenant, probes.c.failures > 0)
        return frozenset(await self._database.read(lambda connection: connection.execute(query).scalars().all()))

    def _shorten(self, seconds: float) -> int:
        """Returns an interval in microseconds, with jitter."""
        return _to_us(seconds * (1 - JITTER * self._random()))

    async def _write_state(self, key: EntryKey, health: ProbeState) -> ProbeState:
        await self._database.write(lambda batch: _upsert(batch.connection, key, health))
        return health

    async def _read_known(self, keys: Sequence[EntryKey]) -> Mapping[EntryKey, ProbeState]:
        wanted = set(keys)

        def work(connection: Connection) -> dict[EntryKey, ProbeState]:
            tenants = {tenant for tenant, _ in wanted}
            query = select(probes).where(probes.c.tenant.in_(tenants))
            if len(wanted) <= NAMED_MAX:
                query = query.where(probes.c.name.in_({name for _, name in wanted}))
            rows = connection.execute(query)
            return {(row[0], row[1]): ProbeState(*row[2:]) for row in rows if (row[0], row[1]) in wanted}

        return await self._database.read(work)


def _keys_without_check(connection: Connection, keys: Set[EntryKey]) -> Set[EntryKey]:
    return keys - {(tenant, name) for tenant, name in connection.execute(select(probes.c.tenant, probes.c.name))}


def _due_checks(
    connection: Connection, hosts: Mapping[EntryKey, str], now: int, limit: int, *, claimed: Mapping[str, int]
) -> list[_DueCheck]:
    """The checks of the keys of `hosts` that are due, the longest waiting first: at most `limit`, and HOST_CLAIMS_MAX of a host."""
    claims = Counter(claimed)
    order = (probes.c.next_at, probes.c.tenant, probes.c.name)
    query = select(*order).where(probes.c.next_at <= now).order_by(*order).limit(DUE_AT_ONCE)
    found: list[_DueCheck] = []
    for offset in count(step=DUE_AT_ONCE):
        rows = connection.execute(query.offset(offset)).all()
        for at, tenant, name in rows:
            host = hosts.get((tenant, name))
            if host is not None and claims[host] < HOST_CLAIMS_MAX:
                claims[host] += 1
                found.append((tenant, name, at))
        if len(rows) < DUE_AT_ONCE or len(found) >= limit:
            break
    return found[:limit]


def _upsert(connection: Connection, key: EntryKey, health: ProbeState) -> None:
    values = {name: getattr(health, name) for name in ProbeState.__slots__}
    of_entry = (probes.c.tenant == key[0], probes.c.name == key[1])
    if not connection.execute(update(probes).where(*of_entry).values(values)).rowcount:
        connection.execute(insert(probes).values(tenant=key[0], name=key[1], **values))


def _claim(connection: Connection, due: Sequence[_DueCheck], until: int) -> list[EntryKey]:
    """Claims checks. Returns the keys, without those whose check another process claimed first."""
    if not due:
        return []
    known = tuple_(probes.c.tenant, probes.c.name, probes.c.next_at).in_(due)
    claim = update(probes).where(known).values(next_at=until).returning(probes.c.tenant, probes.c.name)
    claimed = {(tenant, name) for tenant, name in connection.execute(claim)}
    return [(tenant, name) for tenant, name, _ in due if (tenant, name) in claimed]


def _to_us(seconds: float) -> int:
    return int(seconds * 1_000_000)
