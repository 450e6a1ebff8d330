"""Kills: agents, servers and people that an operator has stopped. Every act through them or for them is refused."""

from collections.abc import Mapping
from typing import Literal

from msgspec import Struct
from sqlalchemy import select

from policies.delegation.chain import Delegation
from policies.delegation.rulings import Act, Grant
from policies.tables import TransactionalDatabase, WriteBatch
from policies.tables import kills as table

KillKind = Literal["agent", "server", "user"]
SERVER_ACTIONS = frozenset({"callTool", "getPrompt", "readResource"})


class Killed(Exception):
    """An operator has stopped the agent, the server or the person that the act goes through or is for."""


class Kill(Struct, frozen=True):
    """One stopped agent, server or person. `by` and the `name` of a person are tenant|issuer|subject; `at` is microseconds since 1970."""

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


class Kills:
    """The kills in force, as this process knows them. Reloaded whenever the epoch `kills` changes. Checks are cheap without any kill."""

    def __init__(self, reader: TransactionalDatabase | None = None) -> None:
        """Without a `reader`, only unpersisted kills are in force."""
        self._reader = reader
        self._persisted: dict[tuple[str, str, str], Kill] = {}
        self._unpersisted: dict[tuple[str, str, str], Kill] = {}  # in force, without a row yet
        self._in_force: Mapping[tuple[str, str, str], Kill] = {}
        self.version = 0  # counts changes

    @property
    def has_any(self) -> bool:
        """Whether any kill is in force."""
        return bool(self._in_force)

    def list_of_tenant(self, tenant: str) -> list[Kill]:
        """The kills of a tenant, newest first."""
        return sorted((kill for kill in self._in_force.values() if kill.tenant == tenant), key=lambda kill: (-kill.at, kill.id))

    def find(self, tenant: str, kind: str, name: str) -> Kill | None:
        return self._in_force.get((tenant, kind, name))

    def __len__(self) -> int:
        return len(self._in_force)

    async def reload(self) -> None:
        """Reads the kills from the database."""
        if self._reader is None:
            return
        rows = await self._reader.read(lambda connection: connection.execute(select(table)).all())
        self._persisted = {kill.key: kill for kill in (Kill(**row._mapping) for row in rows)}
        self._merge()

    def enforce_before_persisted(self, kill: Kill) -> None:
        """Puts a kill into force before its row is written."""
        self._unpersisted[kill.key] = kill
        self._merge()

    def confirm_persisted(self, kill: Kill) -> None:
        """Marks a kill as written: from now on its row decides."""
        if self._unpersisted.pop(kill.key, None) is not None:
            self._persisted[kill.key] = kill

    def write(self, batch: WriteBatch, kill: Kill) -> bool:
        """Writes a kill. Returns False when the same target was stopped before."""
        columns = table.c
        same = (columns.tenant == kill.tenant) & (columns.kind == kill.kind) & (columns.name == kill.name)
        if batch.connection.execute(select(columns.id).where(same)).first() is not None:
            return False
        batch.connection.execute(table.insert().values(**{name: getattr(kill, name) for name in Kill.__struct_fields__}))
        return True

    def lift(self, batch: WriteBatch, tenant: str, kill_id: str) -> bool:
        """Deletes a kill. Returns False when there is no such kill."""
        return batch.run("DELETE FROM kills WHERE tenant = ? AND id = ?", (tenant, kill_id)) == 1

    def is_person_stopped(self, tenant: str, owner: str) -> bool:
        """Whether a person is stopped; `owner` is tenant|issuer|subject."""
        return (tenant, "user", owner) in self._in_force

    def check_person(self, tenant: str, issuer: str, subject: str) -> None:
        """Raises Killed for a stopped person."""
        if self._in_force and self.is_person_stopped(tenant, f"{tenant}|{issuer}|{subject}"):
            raise Killed

    def is_owner_stopped(self, owner: str, actor: str) -> bool:
        """Whether the person, or the acting agent, that owns an open connection is stopped. `owner` is tenant|issuer|subject."""
        tenant = owner.partition("|")[0]
        return self.is_person_stopped(tenant, owner) or (tenant, "agent", actor) in self._in_force

    def is_delegation_stopped(self, delegation: Delegation) -> bool:
        """Whether the person of a delegation, or any agent of its chain, is stopped."""
        principal, known = delegation.principal, self._in_force
        if (principal.tenant, "user", principal.owner_key) in known:
            return True
        return any((principal.tenant, "agent", hop.agent) in known for hop in delegation.path)

    def is_target_stopped(self, tenant: str, act: Act) -> bool:
        """Whether an act calls a stopped agent or server. Administration of its registry entry stays possible."""
        if act.action == "invokeAgent":
            return (tenant, "agent", act.parent) in self._in_force
        return act.action in SERVER_ACTIONS and (tenant, "server", act.parent) in self._in_force

    def stops(self, delegation: Delegation, act: Act) -> bool:
        """Whether an act under this delegation is refused."""
        return self.has_any and (self.is_delegation_stopped(delegation) or self.is_target_stopped(delegation.principal.tenant, act))

    def is_grant_stopped(self, grant: Grant) -> bool:
        """Whether the act of a Grant has to be stopped."""
        return self.stops(grant.delegation, grant.decision.act)

    def _merge(self) -> None:
        previous, self._in_force = self._in_force, {**self._persisted, **self._unpersisted}
        self.version += previous != self._in_force
