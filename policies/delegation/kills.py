"""Kills: agents, servers and people that an operator has stopped. Whatever would go on through them, or for them, is refused."""

from collections.abc import Callable, Mapping
from typing import Any, Literal, Protocol, TypeVar

from msgspec import Struct
from sqlalchemy import Connection, Table, select

from policies.delegation.chain import Delegation
from policies.delegation.rulings import Act, Grant
from policies.tables import kills as table

T = TypeVar("T")
KillKind = Literal["agent", "server", "user"]
SERVER_ACTIONS = frozenset({"callTool", "getPrompt", "readResource"})


class Killed(Exception):
    """An operator has stopped the agent, the server or the person that this would go on through or for."""


class Kill(Struct, frozen=True):
    """`name` of a person is tenant|issuer|subject, and so is `by`. `at` counts microseconds since 1970."""

    tenant: str
    id: str
    kind: KillKind
    name: str
    reason: str
    by: str
    at: int

    @property
    def key(self) -> tuple[str, str, str]:
        return self.tenant, self.kind, self.name


class KillsBatch(Protocol):
    """The writer's transaction (gateway/storage/writer.py)."""

    def add(self, table: Table, row: dict[str, Any]) -> None: ...

    def run(self, statement: str, values: tuple[Any, ...]) -> int: ...

    @property
    def connection(self) -> Connection: ...


class KillsReader(Protocol):
    """gateway/storage/database.py."""

    async def read(self, work: Callable[[Connection], T]) -> T: ...


class Kills:
    """Those in force, as this process knows them: read anew whenever the epoch `kills` moves. Asking is cheap while there are none."""

    def __init__(self, reader: KillsReader | None = None) -> None:
        """Without a `reader` nothing is stopped."""
        self._reader = reader
        self._persisted: dict[tuple[str, str, str], Kill] = {}
        self._unpersisted: dict[tuple[str, str, str], Kill] = {}  # in force, though no row can say so yet
        self._in_force: Mapping[tuple[str, str, str], Kill] = {}
        self.version = 0  # counts changes

    @property
    def has_any(self) -> bool:
        """Whether anything is stopped at all."""
        return bool(self._in_force)

    def list_of_tenant(self, tenant: str) -> list[Kill]:
        """Those of a tenant, the newest first."""
        return sorted((kill for kill in self._in_force.values() if kill.tenant == tenant), key=lambda kill: (-kill.at, kill.id))

    def find(self, tenant: str, kind: str, name: str) -> Kill | None:
        return self._in_force.get((tenant, kind, name))

    def __len__(self) -> int:
        return len(self._in_force)

    async def reload(self) -> None:
        """Reads what is in force."""
        if self._reader is None:
            return
        rows = await self._reader.read(lambda connection: connection.execute(select(table)).all())
        self._persisted = {kill.key: kill for kill in (Kill(**row._mapping) for row in rows)}
        self._merge()

    def enforce_before_persisted(self, kill: Kill) -> None:
        """In force from now on, although its row can't say so yet."""
        self._unpersisted[kill.key] = kill
        self._merge()

    def confirm_persisted(self, kill: Kill) -> None:
        """From now on its row says what is true of it."""
        if self._unpersisted.pop(kill.key, None) is not None:
            self._persisted[kill.key] = kill

    def write(self, batch: KillsBatch, kill: Kill) -> bool:
        """Keeps it. False when the same was stopped before."""
        columns = table.c
        same = (columns.tenant == kill.tenant) & (columns.kind == kill.kind) & (columns.name == kill.name)
        if batch.connection.execute(select(columns.id).where(same)).first() is not None:
            return False
        batch.connection.execute(table.insert().values(**{name: getattr(kill, name) for name in Kill.__struct_fields__}))
        return True

    def lift(self, batch: KillsBatch, tenant: str, kill_id: str) -> bool:
        """False when there is no such kill in force."""
        return batch.run("DELETE FROM kills WHERE tenant = ? AND id = ?", (tenant, kill_id)) == 1

    def is_person_stopped(self, tenant: str, owner: str) -> bool:
        """Whether a person is stopped; `owner` is tenant|issuer|subject."""
        return (tenant, "user", owner) in self._in_force

    def check_person(self, tenant: str, issuer: str, subject: str) -> None:
        """Raises Killed for a person who is stopped."""
        if self._in_force and self.is_person_stopped(tenant, f"{tenant}|{issuer}|{subject}"):
            raise Killed

    def is_owner_stopped(self, owner: str, actor: str) -> bool:
        """The same of whoever opened something: a person, or an agent that acts for one."""
        tenant = owner.partition("|")[0]
        return self.is_person_stopped(tenant, owner) or (tenant, "agent", actor) in self._in_force

    def is_delegation_stopped(self, delegation: Delegation) -> bool:
        """Whether the person is stopped whom a delegation comes from, or any agent that it went through."""
        principal, known = delegation.principal, self._in_force
        if (principal.tenant, "user", principal.owner_key) in known:
            return True
        return any((principal.tenant, "agent", hop.agent) in known for hop in delegation.path)

    def is_target_stopped(self, tenant: str, act: Act) -> bool:
        """Whether an act is for an agent or a server that is stopped. Looking after one's registration is none of them."""
        if act.action == "invokeAgent":
            return (tenant, "agent", act.parent) in self._in_force
        return act.action in SERVER_ACTIONS and (tenant, "server", act.parent) in self._in_force

    def stops(self, delegation: Delegation, act: Act) -> bool:
        """Whether an act by this authority is refused."""
        return self.has_any and (self.is_delegation_stopped(delegation) or self.is_target_stopped(delegation.principal.tenant, act))

    def is_grant_stopped(self, grant: Grant) -> bool:
        """Whether what a Grant allowed has to stop."""
        return self.stops(grant.delegation, grant.decision.act)

    def _merge(self) -> None:
        before, self._in_force = self._in_force, {**self._persisted, **self._unpersisted}
        self.version += before != self._in_force
