"""Grant rows: the authority of a delegated task, stored by the gateway. Tokens only refer to it."""

import json
import math
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, select

from policies.cache import BoundedCache
from policies.delegation.chain import Delegation, Hop, Principal
from policies.delegation.kills import Killed, Kills
from policies.delegation.permissions import Permissions
from policies.tables import PartialInsert, TransactionalDatabase, WriteBatch
from policies.tables import grants as table

_encode = msgspec.json.Encoder().encode
_IDS = ("tenant", "id", "parent_id", "txn", "task_id")
_PERSON = ("issuer", "subject", "roles")
_AUTHORITY = ("scope", "path", "depth_max", "epoch")
_TIMES = ("created", "not_after", "deadline", "roles_until")
_NEW_GRANT = PartialInsert(table, (*_IDS, *_PERSON, *_AUTHORITY, *_TIMES))
_RENEW_ROLES = (
    "UPDATE grants SET roles = ?, roles_until = ? WHERE tenant = ? AND task_id = ? AND issuer = ? AND subject = ? AND roles_until < ?"
)
CACHED_SECONDS = 1.0  # how long a revocation by another process may go unnoticed


IsTaskOver = Callable[[Connection, str, str], bool]  # whether a task of a tenant has ended


def _is_never_over(_connection: Connection, _tenant: str, _task_id: str) -> bool:
    return False


class GrantEnded(Exception):
    """The grant was revoked, has ended or never existed; a token that refers to it permits nothing."""


class Grants:
    """Reads and writes grant rows. Caches what it read for one second.

    A grant ends with its task, which `is_task_over` tells, so that the end of a task needs no write here.
    """

    def __init__(
        self,
        reader: TransactionalDatabase,
        clock: Callable[[], float],
        is_task_over: IsTaskOver = _is_never_over,
        kills: Kills | None = None,
    ) -> None:
        """With `kills`, finding a stopped grant raises Killed."""
        self._reader = reader
        self._kills = kills
        self._is_task_over = is_task_over
        self._clock = clock
        self._unpersisted: set[tuple[str, str]] = set()  # revoked in this process, without a row that says so yet
        self._cache: BoundedCache[tuple[str, str], Delegation] = BoundedCache(10_000, clock)
        self._reading: dict[tuple[str, str], object] = {}  # the newest read in progress for each grant; removed by `invalidate`

    def add(self, batch: WriteBatch, delegation: Delegation, parent_id: str, now_us: int) -> None:
        """Writes a delegation under its `grant_id`, in the same commit as its decision."""
        principal = delegation.principal
        path = _encode([{"agent": hop.agent, "ceiling": str(hop.ceiling)} for hop in delegation.path]).decode()
        ids = (principal.tenant, delegation.grant_id, parent_id, delegation.txn, delegation.task_id)
        person = (principal.issuer, principal.subject, _encode(principal.roles).decode())
        authority = (str(delegation.scope), path, delegation.depth_max, 0)  # epoch 0
        times = (now_us, int(delegation.not_after * 1_000_000), _to_us(delegation.deadline), _to_us(delegation.roles_until))
        batch.insert(_NEW_GRANT, (*ids, *person, *authority, *times))

    def renew_roles(self, batch: WriteBatch, principal: Principal, task_id: str, roles_until: float) -> int:
        """Lets the person's roles of now count for every grant of a task until `roles_until` (seconds since 1970), and for those derived.

        Returns how many grants it changed: those whose roles count for a limited time, and not longer already.
        """
        until, roles = _to_us(roles_until), _encode(principal.roles).decode()
        where = (principal.tenant, task_id, principal.issuer, principal.subject, until)
        return batch.run(_RENEW_ROLES, (roles, until, *where))

    def set_deadline(self, batch: WriteBatch, tenant: str, grant_id: str, task_id: str, deadline: float = math.inf) -> None:
        """Sets the end of the turn of the task that the grant was made for (seconds since 1970; infinity while the task is paused).

        Changes no grant of another task.
        """
        statement = "UPDATE grants SET deadline = ? WHERE tenant = ? AND id = ? AND task_id = ?"
        batch.run(statement, (_to_us(deadline), tenant, grant_id, task_id))

    async def find(self, tenant: str, grant_id: str) -> Delegation:
        """The delegation of a grant that is valid together with all its ancestors. Raises GrantEnded and Killed."""
        key = (tenant, grant_id)
        delegation = self._cache.get(key)
        if delegation is None:
            delegation = await self._read(key)
        if delegation.not_after <= self._clock():
            raise GrantEnded
        if self._kills is not None and self._kills.has_any and self._kills.is_delegation_stopped(delegation):
            raise Killed
        return delegation

    async def _read(self, key: tuple[str, str]) -> Delegation:
        """Reads a delegation. Does not cache it if it was invalidated during the read."""
        ended, reading = self._unpersisted_revocations(), object()
        self._reading[key] = reading
        try:
            delegation = await self._reader.read(lambda connection: self._load(connection, *key, ended))
            if self._reading.get(key) is reading:
                self._cache.put(key, delegation, CACHED_SECONDS)
            return delegation
        finally:
            if self._reading.get(key) is reading:
                del self._reading[key]

    async def find_revoked(self, keys: Collection[tuple[str, str]]) -> set[tuple[str, str]]:
        """The grants among `keys` (tenant, id) that were revoked or descend from a revoked one."""
        ended = self._unpersisted_revocations()

        def is_revoked(connection: Connection, tenant: str, grant_id: str) -> bool:
            line = _ancestry(connection, tenant, grant_id)
            return any((tenant, one) in ended or (row is not None and row.revoked is not None) for one, row in line)

        return await self._reader.read(lambda connection: {key for key in keys if is_revoked(connection, *key)})

    def revoke(self, batch: WriteBatch, tenant: str, grant_id: str, now_us: int) -> bool:
        """Revokes a grant before its task ends, and with it all its descendants. Returns False when it was revoked before."""
        changed = batch.run("UPDATE grants SET revoked = ? WHERE tenant = ? AND id = ? AND revoked IS NULL", (now_us, tenant, grant_id))
        return changed == 1

    def enforce_before_persisted(self, tenant: str, grant_id: str) -> None:
        """Treats a grant as revoked although its row does not say so yet."""
        self._unpersisted.add((tenant, grant_id))
        self.invalidate()

    def confirm_persisted(self, tenant: str, grant_id: str) -> None:
        """Stops overriding a grant's row, which is up to date again."""
        self._unpersisted.discard((tenant, grant_id))

    def invalidate(self, tenant: str = "", grant_id: str = "") -> None:
        """Drops what was read of one grant, or of all."""
        if grant_id:
            self._reading.pop((tenant, grant_id), None)
            self._cache.drop((tenant, grant_id))
        else:
            self._reading.clear()
            self._cache.clear()

    def _unpersisted_revocations(self) -> frozenset[tuple[str, str]]:
        """The grants treated as revoked, copied before a row is read: one that is removed during the read may be read as it was."""
        return frozenset(self._unpersisted)

    def _load(self, connection: Connection, tenant: str, grant_id: str, revoked: Collection[tuple[str, str]]) -> Delegation:
        line = list(_ancestry(connection, tenant, grant_id))
        for one, row in line:
            if (tenant, one) in revoked or row is None or row.revoked is not None or self._is_task_over(connection, tenant, row.task_id):
                raise GrantEnded
        row = line[0][1]
        roles, roles_until = _roles_of([each for _, each in line])
        return Delegation(
            principal=Principal(tenant, row.issuer, row.subject, roles),
            scope=Permissions.parse(row.scope.split()),
            not_after=row.not_after / 1_000_000,
            path=tuple(Hop(hop["agent"], Permissions.parse(hop["ceiling"].split())) for hop in json.loads(row.path)),
            depth_max=row.depth_max,
            txn=row.txn,
            grant_id=row.id,
            task_id=row.task_id,
            deadline=_to_seconds(row.deadline),
            roles_until=roles_until,
        )


def _roles_of(line: Sequence[Any]) -> tuple[tuple[str, ...], float]:
    """The roles of a grant, and until when they count. `line`: the grant and its ancestors, which are all the same person's.

    Where the roles count for a limited time, those of the ancestor count that were vouched for last: the person has signed in again there.
    """
    latest = line[0]
    if latest.roles_until is not None:
        latest = max((each for each in line if each.roles_until is not None), key=lambda each: each.roles_until)
    return tuple(json.loads(latest.roles)), _to_seconds(latest.roles_until)


def _to_seconds(moment: int | None) -> float:
    """Seconds since 1970; infinity for none."""
    return math.inf if moment is None else moment / 1_000_000


def _to_us(deadline: float) -> int | None:
    """Microseconds since 1970; None for no deadline."""
    return None if deadline == math.inf else int(deadline * 1_000_000)


def _ancestry(connection: Connection, tenant: str, grant_id: str) -> Iterator[tuple[str, Any]]:
    """Yields a grant and its ancestors: the id and the row of each, None for a missing row."""
    while True:
        row = connection.execute(select(table).where((table.c.tenant == tenant) & (table.c.id == grant_id))).first()
        yield grant_id, row
        if row is None or not row.parent_id:
            return
        grant_id = row.parent_id
