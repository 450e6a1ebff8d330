"""Grant rows: the authority of a delegated task, kept by the gateway; tokens only point to it."""

import json
import math
from collections.abc import Callable, Collection, Iterator
from typing import Any, Protocol, TypeVar

import msgspec
from sqlalchemy import Connection, Table, select

from policies.cache import BoundedCache
from policies.delegation.chain import Delegation, Hop
from policies.delegation.kills import Killed, Kills
from policies.delegation.permissions import Permissions
from policies.delegation.principal import Principal
from policies.tables import grants as table

T = TypeVar("T")
_encode = msgspec.json.Encoder().encode
CACHED_SECONDS = 1.0  # how long a revocation elsewhere may go unseen


class GrantsBatch(Protocol):
    """The writer's transaction (gateway/storage/writer.py)."""

    def add(self, table: Table, row: dict[str, Any]) -> None: ...

    def run(self, statement: str, values: tuple[Any, ...]) -> int: ...


class GrantsReader(Protocol):
    """gateway/storage/database.py."""

    async def read(self, work: Callable[[Connection], T]) -> T: ...


IsTaskOver = Callable[[Connection, str, str], bool]  # of a tenant's task by its id


def _is_never_over(_connection: Connection, _tenant: str, _task_id: str) -> bool:
    return False


class GrantEnded(Exception):
    """The grant was revoked, is over, or never was; whoever holds a token of it may do nothing more."""


class Grants:
    """Reads and writes grant rows. What it read is believed for a second.

    A grant ends with its task, which `task_over` tells, so that the end of a task needs no write here.
    """

    def __init__(
        self, reader: GrantsReader, clock: Callable[[], float], is_task_over: IsTaskOver = _is_never_over, kills: Kills | None = None
    ) -> None:
        """`kills`: none of what they stop is found, which raises Killed."""
        self._reader = reader
        self._kills = kills
        self._is_task_over = is_task_over
        self._clock = clock
        self._unpersisted: set[tuple[str, str]] = set()  # ended here, which could not be kept yet
        self._cache: BoundedCache[tuple[str, str], Delegation] = BoundedCache(10_000, clock)
        self._reading: dict[tuple[str, str], object] = {}  # of each the last reading under way, unless it is forgotten already

    def add(self, batch: GrantsBatch, delegation: Delegation, parent_id: str, now_us: int) -> None:
        """Keeps a delegation under its `grant_id`, in the same commit as the decision that made it."""
        principal = delegation.principal
        batch.add(
            table,
            {
                "tenant": principal.tenant,
                "id": delegation.grant_id,
                "parent_id": parent_id,
                "txn": delegation.txn,
                "task_id": delegation.task_id,
                "issuer": principal.issuer,
                "subject": principal.subject,
                "roles": _encode(principal.roles).decode(),
                "scope": str(delegation.scope),
                "path": _encode([{"agent": hop.agent, "ceiling": str(hop.ceiling)} for hop in delegation.path]).decode(),
                "depth_max": delegation.depth_max,
                "epoch": 0,
                "created": now_us,
                "not_after": int(delegation.not_after * 1_000_000),
                "deadline": _to_us(delegation.deadline),
            },
        )

    def set_deadline(self, batch: GrantsBatch, tenant: str, grant_id: str, task_id: str, deadline: float = math.inf) -> None:
        """The task that a grant was made for goes on until then, or waits for as long as it likes. No other task's grant is touched."""
        said = "UPDATE grants SET deadline = ? WHERE tenant = ? AND id = ? AND task_id = ?"
        batch.run(said, (_to_us(deadline), tenant, grant_id, task_id))

    async def find(self, tenant: str, grant_id: str) -> Delegation:
        """The live delegation of a grant, all of whose ancestors live too. Raises GrantEnded and Killed."""
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
        """What the rows say. It is not remembered where they may have changed before it is here."""
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
        """Which of these grants, each a tenant and an id, were revoked, or hang below one that was."""
        ended = self._unpersisted_revocations()

        def is_revoked(connection: Connection, tenant: str, grant_id: str) -> bool:
            line = _ancestry(connection, tenant, grant_id)
            return any((tenant, one) in ended or (row is not None and row.revoked is not None) for one, row in line)

        return await self._reader.read(lambda connection: {key for key in keys if is_revoked(connection, *key)})

    def revoke(self, batch: GrantsBatch, tenant: str, grant_id: str, now_us: int) -> bool:
        """Ends a grant before its task ends; what hangs below it can't be used either. False when it had ended before."""
        changed = batch.run("UPDATE grants SET revoked = ? WHERE tenant = ? AND id = ? AND revoked IS NULL", (now_us, tenant, grant_id))
        return changed == 1

    def enforce_before_persisted(self, tenant: str, grant_id: str) -> None:
        """Takes a grant for ended although its row can't say so yet."""
        self._unpersisted.add((tenant, grant_id))
        self.invalidate()

    def confirm_persisted(self, tenant: str, grant_id: str) -> None:
        """From now on its row says what is true of a grant."""
        self._unpersisted.discard((tenant, grant_id))

    def invalidate(self, tenant: str = "", grant_id: str = "") -> None:
        """Believes nothing read before, of one grant or of all."""
        if grant_id:
            self._reading.pop((tenant, grant_id), None)
            self._cache.drop((tenant, grant_id))
        else:
            self._reading.clear()
            self._cache.clear()

    def _unpersisted_revocations(self) -> frozenset[tuple[str, str]]:
        """Those that are taken for ended, as of before a row is read: one that is heeded meanwhile may be read as it was."""
        return frozenset(self._unpersisted)

    def _load(self, connection: Connection, tenant: str, grant_id: str, revoked: Collection[tuple[str, str]]) -> Delegation:
        line = list(_ancestry(connection, tenant, grant_id))
        for one, row in line:
            if (tenant, one) in revoked or row is None or row.revoked is not None or self._is_task_over(connection, tenant, row.task_id):
                raise GrantEnded
        row = line[0][1]
        return Delegation(
            principal=Principal(tenant, row.issuer, row.subject, tuple(json.loads(row.roles))),
            scope=Permissions.parse(row.scope.split()),
            not_after=row.not_after / 1_000_000,
            path=tuple(Hop(hop["agent"], Permissions.parse(hop["ceiling"].split())) for hop in json.loads(row.path)),
            depth_max=row.depth_max,
            txn=row.txn,
            grant_id=row.id,
            task_id=row.task_id,
            deadline=math.inf if row.deadline is None else row.deadline / 1_000_000,
        )


def _to_us(deadline: float) -> int | None:
    """Microseconds; None where there is none."""
    return None if deadline == math.inf else int(deadline * 1_000_000)


def _ancestry(connection: Connection, tenant: str, grant_id: str) -> Iterator[tuple[str, Any]]:
    """A grant and all that it hangs below: the id and the row of each, None where there is no such row."""
    while True:
        row = connection.execute(select(table).where((table.c.tenant == tenant) & (table.c.id == grant_id))).first()
        yield grant_id, row
        if row is None or not row.parent_id:
            return
        grant_id = row.parent_id
