"""The kill switch: an operator stops an agent, a server or a user in every process, and can lift the kill again."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import structlog
from msgspec import Struct
from sqlalchemy import Connection, select

from gateway.calls.revocation.running import RunningWorkStopper
from gateway.calls.revocation.spool import Spool, kill_from_record, record_kill
from gateway.events.own_types import KILL_LIFTED
from gateway.events.recorder import NO_EVENTS, EventRecorder
from gateway.storage.database import Batch, Database, ReadFailed, WriteFailed, raise_epoch
from gateway.storage.tables import tasks
from policies.audit.log import AuditLog
from policies.delegation.chain import Principal
from policies.delegation.kills import Kill, KillKind, Kills
from policies.delegation.run_as import SERVICE_ISSUER
from policies.tables import grants
from registry.cards.card import Family
from registry.store import Registry, UnknownName

log = structlog.get_logger()


class UnknownKill(Exception):
    """No such kill is in force in this tenant."""


class NotYourself(Exception):
    """An operator cannot kill their own account, because they could not lift the kill."""


class AmbiguousPerson(Exception):
    """The subject matches several known users or none; the message says how to name one."""


class KillOrder(Struct, frozen=True):
    """What an operator stops. For a user, `name` is a subject or tenant|issuer|subject."""

    kind: KillKind
    name: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class KillStorage:
    """Where kills and their audit records are stored."""

    database: Database
    audit: AuditLog
    spool: Spool
    new_id: Callable[[str], str]
    now: Callable[[], int]
    recorder: EventRecorder = NO_EVENTS


class KillSwitch:
    """Writes a kill and its audit record in one commit, or to the spool, because a kill only reduces authority.

    A lift needs the database.
    """

    def __init__(
        self,
        storage: KillStorage,
        kills: Kills,
        stopper: RunningWorkStopper,
        registry: Registry,
        issuers: Sequence[str],
        *,
        services: Collection[str] = (),
    ) -> None:
        """`issuers` are all issuers of user tokens that the gateway trusts, `services` the names of service principals."""
        self._storage = storage
        self._kills = kills
        self._stopper = stopper
        self._registry = registry
        self._issuers = issuers
        self._services = services

    def list_of_tenant(self, tenant: str) -> list[Kill]:
        """Returns the kills in force in a tenant, newest first."""
        return self._kills.list_of_tenant(tenant)

    async def kill(self, by: Principal, order: KillOrder) -> tuple[Kill, int]:
        """Returns the kill and how many turns and calls of this process it ended. A kill that is already in force stays as it is.

        Raises UnknownName, AmbiguousPerson and NotYourself.
        """
        name = await self._resolve_name(by, order)
        known = self._kills.find(by.tenant, order.kind, name)
        if known is not None:
            return known, 0
        record = self._kill_record(by, order, name)
        try:
            await self._storage.database.write(lambda batch: self._storage.spool.write(batch, record))
        except WriteFailed:
            await self._storage.spool.spool_record(record)
        else:
            await self._kills.reload()
        log.warning("killed", kind=order.kind, name=name, kill_id=record["kill_id"], by=by.owner_key)
        return await self._end_work(self._kills.find(by.tenant, order.kind, name) or kill_from_record(record))

    async def lift(self, by: Principal, kill_id: str) -> Kill:
        """Lifts a kill. Work that the kill ended stays ended. Raises UnknownKill and WriteFailed."""
        kill = next((kill for kill in self._kills.list_of_tenant(by.tenant) if kill.id == kill_id), None)
        if kill is None:
            raise UnknownKill
        record = {**self._target_record(by, kill.kind, kill.name), "kind": "lift", "kill_id": kill.id, "reason": ""}

        def work(batch: Batch) -> bool:
            if not self._kills.lift(batch, kill.tenant, kill.id):
                return False
            raise_epoch(batch, "kills")
            self._storage.audit.record(batch, record)
            record_kill(batch, self._storage.recorder, KILL_LIFTED, record)
            return True

        if not await self._storage.database.write(work):
            raise UnknownKill
        await self._kills.reload()
        log.warning("lifted", kind=kill.kind, name=kill.name, kill_id=kill.id, by=by.owner_key)
        return kill

    async def lift_by_name(self, by: Principal, order: KillOrder) -> Kill:
        """Lifts the kill of a target by its name, even if it is no longer registered.

        Raises UnknownKill, AmbiguousPerson and WriteFailed.
        """
        name = await self.resolve_person(by.tenant, order.name) if order.kind == "user" else order.name
        kill = self._kills.find(by.tenant, order.kind, name)
        if kill is None:
            raise UnknownKill
        return await self.lift(by, kill.id)

    async def _end_work(self, kill: Kill) -> tuple[Kill, int]:
        ended = await self._stopper.stop_killed(self._kills)
        try:
            ended += await self._stopper.end_waiting_tasks(kill) if kill.kind != "server" else 0
        except (WriteFailed, ReadFailed) as error:
            log.warning("waiting_tasks_not_ended", kill_id=kill.id, error=type(error).__name__)
        await self._stopper.wait_until_ended()
        return kill, ended

    def _kill_record(self, by: Principal, order: KillOrder, name: str) -> dict[str, Any]:
        kill_id = self._storage.new_id("k")
        return {**self._target_record(by, order.kind, name), "kind": "kill", "kill_id": kill_id, "reason": order.reason}

    def _target_record(self, by: Principal, kind: KillKind, name: str) -> dict[str, Any]:
        """Returns the members that the audit records of a kill and of a lift share."""
        members = {"at": self._storage.now(), "tenant": by.tenant, "decision_id": "", "txn": "", "task_id": ""}
        return {**members, "target": {"kind": kind, "name": name}, "principal": {"issuer": by.issuer, "subject": by.subject}}

    async def _resolve_name(self, by: Principal, order: KillOrder) -> str:
        """Returns the name to store: that of a registration of this kind, or a user's owner key.

        Raises UnknownName, AmbiguousPerson and NotYourself.
        """
        if order.kind != "user":
            family = Family.AGENT if order.kind == "agent" else Family.SERVER
            if self._registry.find(by.tenant, order.name).family is not family:
                raise UnknownName(order.name)
            return order.name
        owner = await self.resolve_person(by.tenant, order.name)
        if owner == by.owner_key:
            raise NotYourself
        return owner

    async def resolve_person(self, tenant: str, name: str) -> str:
        """Returns a person as tenant|issuer|subject, of whom a subject may be given. Raises AmbiguousPerson."""
        parts = name.split("|", 2)
        if len(parts) == 3 and parts[0] == tenant and parts[1] in (*self._issuers, SERVICE_ISSUER):
            return name
        people = [f"{tenant}|{issuer}|{name}" for issuer in (*self._issuers, *([SERVICE_ISSUER] if name in self._services else []))]
        if len(people) > 1:
            known = await self._storage.database.read(
                lambda connection: [one for one in people if _is_known_person(connection, tenant, one)]
            )
            people = known or people
        if len(people) != 1:
            raise AmbiguousPerson(f"name one user as tenant|issuer|subject: {', '.join(people) or 'none is known'}")
        return people[0]


def _is_known_person(connection: Connection, tenant: str, owner: str) -> bool:
    """Returns whether the user has a task or a grant."""
    _, issuer, subject = owner.split("|", 2)
    granted = (grants.c.tenant == tenant) & (grants.c.issuer == issuer) & (grants.c.subject == subject)
    for query in (select(tasks.c.id).where((tasks.c.tenant == tenant) & (tasks.c.owner == owner)), select(grants.c.id).where(granted)):
        if connection.execute(query.limit(1)).first() is not None:
            return True
    return False
