"""Health checks of agents and servers: the time and result of the last one, and the time of the next."""

from collections.abc import Callable, Collection, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from itertools import count

from sqlalchemy import Connection, insert, select, update

from registry.store import RegistryBatch, RegistryDatabase
from registry.tables import probes

INTERVAL_SECONDS = 60.0  # seconds between two checks of an entry that responds
INTERVAL_MAX_SECONDS = 900.0  # the maximum for an entry that does not
DOWN_AFTER = 3  # failures in a row
NAMED_MAX = 1000  # entries that a query names; more of them are picked from all entries of their tenants
DUE_AT_ONCE = 200  # due checks that a query returns: some are of entries that are not watched
CLAIM_SECONDS = 120.0  # seconds for which a check claimed by another process is left to it
EntryKey = tuple[str, str]  # tenant, name


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

    def __init__(self, database: RegistryDatabase, now: Callable[[], int]) -> None:
        self._database = database
        self._now = now
        self._planned: Collection[EntryKey] = ()  # the keys of which each is known to have a next check

    async def read_state(self, key: EntryKey) -> ProbeState:
        return (await self._read_known([key])).get(key, ProbeState())

    async def claim_due(self, keys: Set[EntryKey], limit: int) -> list[EntryKey]:
        """The keys whose check is due, claimed for this process. A new key's first check is due one interval later.

        New keys are looked for only when `keys` is another object than the last time, so a caller keeps it until the registry changes.
        """
        now, is_new = self._now(), keys is not self._planned
        fresh, ripe = await self._database.read(
            lambda connection: (_keys_without_check(connection, keys) if is_new else (), _due_checks(connection, keys, now, limit))
        )

        def work(batch: RegistryBatch) -> list[EntryKey]:
            for key in fresh:
                _upsert(batch.connection, key, ProbeState(next_at=now + _to_us(INTERVAL_SECONDS)))
            return [key for at, key in ripe if _claim(batch.connection, key, at, now + _to_us(CLAIM_SECONDS))]

        claimed = await self._database.write(work) if fresh or ripe else []
        self._planned = keys
        return claimed

    async def record_success(self, key: EntryKey, found: ProbeState) -> ProbeState:
        """Records a success; `found` has the validators of the next conditional request."""
        now = self._now()
        return await self._write_state(
            key, replace(found, checked=now, next_at=now + _to_us(INTERVAL_SECONDS), failures=0, note="", cause="")
        )

    async def record_failure(self, key: EntryKey, note: str, cause: str = "") -> ProbeState:
        """Records a failure; the interval to the next check doubles each time."""
        now, previous = self._now(), await self.read_state(key)
        failures = previous.failures + 1
        wait = min(INTERVAL_SECONDS * 2 ** min(failures - 1, 10), INTERVAL_MAX_SECONDS)
        found = replace(previous, checked=now, next_at=now + _to_us(wait), failures=failures, note=note[:500], cause=cause[:500])
        return await self._write_state(key, found)

    async def read_states(self, keys: Sequence[EntryKey]) -> Mapping[EntryKey, ProbeState]:
        """The results of all keys that were checked."""
        return await self._read_known(keys) if keys else {}

    async def failing_names(self, tenant: str) -> frozenset[str]:
        """The names of a tenant's entries whose last check failed."""
        query = select(probes.c.name).where(probes.c.tenant == tenant, probes.c.failures > 0)
        return frozenset(await self._database.read(lambda connection: connection.execute(query).scalars().all()))

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


def _due_checks(connection: Connection, keys: Set[EntryKey], now: int, limit: int) -> list[tuple[int, EntryKey]]:
    """The checks of `keys` that are due, the longest waiting first, at most `limit`, each with its time."""
    order = (probes.c.next_at, probes.c.tenant, probes.c.name)
    query = select(*order).where(probes.c.next_at <= now).order_by(*order).limit(DUE_AT_ONCE)
    found: list[tuple[int, EntryKey]] = []
    for offset in count(step=DUE_AT_ONCE):
        rows = connection.execute(query.offset(offset)).all()
        found += [(at, (tenant, name)) for at, tenant, name in rows if (tenant, name) in keys]
        if len(rows) < DUE_AT_ONCE or len(found) >= limit:
            break
    return found[:limit]


def _upsert(connection: Connection, key: EntryKey, health: ProbeState) -> None:
    values = {name: getattr(health, name) for name in ProbeState.__slots__}
    of_entry = (probes.c.tenant == key[0], probes.c.name == key[1])
    if not connection.execute(update(probes).where(*of_entry).values(values)).rowcount:
        connection.execute(insert(probes).values(tenant=key[0], name=key[1], **values))


def _claim(connection: Connection, key: EntryKey, at: int, until: int) -> bool:
    """Claims a check. Returns False when another process did so first."""
    of_entry = (probes.c.tenant == key[0], probes.c.name == key[1], probes.c.next_at == at)
    return bool(connection.execute(update(probes).where(*of_entry).values(next_at=until)).rowcount)


def _to_us(seconds: float) -> int:
    return int(seconds * 1_000_000)
