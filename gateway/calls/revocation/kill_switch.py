"""Killing: an operator stops an agent, a server or a person at once, in every process, and may lift that again."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import structlog
from msgspec import Struct
from sqlalchemy import Connection, select

from gateway.calls.revocation.running import Halt
from gateway.calls.revocation.spool import Spool, kill_of
from gateway.storage.database import Batch, Database, NotKept, NotRead, bump
from gateway.storage.tables import tasks
from policies.audit.log import Audit
from policies.delegation.kills import Kill, Kills, Kind
from policies.delegation.principal import Principal
from policies.tables import grants
from registry.cards.card import Family
from registry.store import Registry, UnknownName

log = structlog.get_logger()


class UnknownKill(Exception):
    """No such kill is in force in this tenant."""


class NotYourself(Exception):
    """Who stops themselves could not lift it again."""


class AmbiguousPerson(Exception):
    """More than one person, or none that is known, has this subject; the message says how to name one."""


class Order(Struct, frozen=True):
    """What an operator wants stopped. `name` of a person: a subject, or tenant|issuer|subject."""

    kind: Kind
    name: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Archive:
    """Where kills and the records of them are kept."""

    database: Database
    audit: Audit
    spool: Spool
    new_id: Callable[[str], str]
    now: Callable[[], int]


class Killing:
    """Keeps a kill and the record of it in one commit, or in the spool, since it only takes away; lifting it has to be kept."""

    def __init__(self, archive: Archive, kills: Kills, halt: Halt, registry: Registry, issuers: Sequence[str]) -> None:
        """`issuers`: all that vouch for people here."""
        self._archive = archive
        self._kills = kills
        self._halt = halt
        self._registry = registry
        self._issuers = issuers

    def listed(self, tenant: str) -> list[Kill]:
        """Those in force in a tenant, the newest first."""
        return self._kills.listed(tenant)

    async def kill(self, by: Principal, order: Order) -> tuple[Kill, int]:
        """The kill, and how many turns and calls of this process it ended. One that is in force already stays as it is.

        Raises UnknownName, AmbiguousPerson and NotYourself.
        """
        name = await self._name(by, order)
        known = self._kills.find(by.tenant, order.kind, name)
        if known is not None:
            return known, 0
        record = self._record(by, order, name)
        try:
            await self._archive.database.write(lambda batch: self._archive.spool.keep(batch, record))
        except NotKept:
            await self._archive.spool.put(record)
        else:
            await self._kills.reload()
        log.warning("killed", kind=order.kind, name=name, kill_id=record["kill_id"], by=by.owner)
        return await self._ended(self._kills.find(by.tenant, order.kind, name) or kill_of(record))

    async def lift(self, by: Principal, kill_id: str) -> Kill:
        """From now on it may go on: what was ended stays so. Raises UnknownKill and NotKept."""
        kill = next((kill for kill in self._kills.listed(by.tenant) if kill.id == kill_id), None)
        if kill is None:
            raise UnknownKill
        record = {**self._about(by, kill.kind, kill.name), "kind": "lift", "kill_id": kill.id, "reason": ""}

        def work(batch: Batch) -> bool:
            if not self._kills.lift(batch, kill.tenant, kill.id):
                return False
            bump(batch, "kills")
            self._archive.audit.append(batch, record)
            return True

        if not await self._archive.database.write(work):
            raise UnknownKill
        await self._kills.reload()
        log.warning("lifted", kind=kill.kind, name=kill.name, kill_id=kill.id, by=by.owner)
        return kill

    async def lift_named(self, by: Principal, order: Order) -> Kill:
        """The same by what is stopped, which need not be registered any more. Raises AmbiguousPerson besides."""
        name = await self._owner(by.tenant, order.name) if order.kind == "user" else order.name
        kill = self._kills.find(by.tenant, order.kind, name)
        if kill is None:
            raise UnknownKill
        return await self.lift(by, kill.id)

    async def _ended(self, kill: Kill) -> tuple[Kill, int]:
        ended = await self._halt.killed(self._kills)
        try:
            ended += await self._halt.waiting(kill) if kill.kind != "server" else 0
        except (NotKept, NotRead) as error:
            log.warning("waiting_tasks_not_ended", kill_id=kill.id, error=type(error).__name__)
        await self._halt.settled()
        return kill, ended

    def _record(self, by: Principal, order: Order, name: str) -> dict[str, Any]:
        kill_id = self._archive.new_id("k")
        return {**self._about(by, order.kind, name), "kind": "kill", "kill_id": kill_id, "reason": order.reason}

    def _about(self, by: Principal, kind: Kind, name: str) -> dict[str, Any]:
        """An audit record of whom a person stops or lets go on."""
        about = {"at": self._archive.now(), "tenant": by.tenant, "decision_id": "", "txn": "", "task_id": ""}
        return {**about, "target": {"kind": kind, "name": name}, "principal": {"issuer": by.issuer, "subject": by.subject}}

    async def _name(self, by: Principal, order: Order) -> str:
        """What stands in the row: the name of a registration of that kind, or the owner key of a person."""
        if order.kind != "user":
            family = Family.AGENT if order.kind == "agent" else Family.SERVER
            if self._registry.find(by.tenant, order.name).family is not family:
                raise UnknownName(order.name)
            return order.name
        owner = await self._owner(by.tenant, order.name)
        if owner == by.owner:
            raise NotYourself
        return owner

    async def _owner(self, tenant: str, name: str) -> str:
        parts = name.split("|", 2)
        if len(parts) == 3 and parts[0] == tenant and parts[1] in self._issuers:
            return name
        people = [f"{tenant}|{issuer}|{name}" for issuer in self._issuers]
        if len(people) > 1:
            known = await self._archive.database.read(lambda connection: [one for one in people if _has_been_here(connection, tenant, one)])
            people = known or people
        if len(people) != 1:
            raise AmbiguousPerson(f"several people may be meant; name one as tenant|issuer|subject: {', '.join(people) or 'nobody'}")
        return people[0]


def _has_been_here(connection: Connection, tenant: str, owner: str) -> bool:
    """Whether there is a task or a grant of the person's."""
    _, issuer, subject = owner.split("|", 2)
    granted = (grants.c.tenant == tenant) & (grants.c.issuer == issuer) & (grants.c.subject == subject)
    for query in (select(tasks.c.id).where((tasks.c.tenant == tenant) & (tasks.c.owner == owner)), select(grants.c.id).where(granted)):
        if connection.execute(query.limit(1)).first() is not None:
            return True
    return False
