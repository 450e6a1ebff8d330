"""Quarantine of sources: what a quarantined agent wrote is not found, until an operator releases it."""

from collections.abc import Callable
from typing import Any, Final

from msgspec import Struct
from sqlalchemy import func, select

from gateway.state.memory.tables import memory_facts, memory_quarantines
from gateway.storage.database import Batch, Database
from policies.audit.log import AuditLog
from policies.delegation.rulings import Act
from registry.names import check_name

CHANGE_MEMORY: Final = Act("writePolicy", "Key", "memory", "policy:write", "memory", "change")
_HOLD: Final = (
    "INSERT INTO memory_quarantines (tenant, agent, author, reason, at) VALUES (?, ?, ?, ?, ?) "
    "ON CONFLICT (tenant, agent) DO UPDATE SET author = excluded.author, reason = excluded.reason, at = excluded.at"
)
_RELEASE: Final = "DELETE FROM memory_quarantines WHERE tenant = ? AND agent = ?"


class UnknownQuarantine(Exception):
    """The facts of this agent are not quarantined."""


class SourceQuarantine(Struct, frozen=True):
    """One quarantined source: its operator (tenant|issuer|subject), reason, begin (microseconds since 1970), and number of facts."""

    agent: str
    author: str
    reason: str
    at: int
    facts: int = 0


class MemoryQuarantines:
    """Holds back the facts of agents, and releases them."""

    def __init__(self, database: Database, audit: AuditLog, now: Callable[[], int]) -> None:
        self._database = database
        self._audit = audit
        self._now = now

    async def hold(self, tenant: str, agent: str, author: str, reason: str) -> int:
        """Quarantines a source at once, in every process; an agent that is no longer registered too.

        Returns how many facts it has written until now. Raises BadName.
        """
        check_name(agent)
        at = self._now()

        def work(batch: Batch) -> None:
            batch.run(_HOLD, (tenant, agent, author, reason, at))
            self._record(batch, "memory-quarantined", (tenant, agent, author), reason=reason)

        await self._database.write(work)
        held = await self.list_all(tenant)
        return next((each.facts for each in held if each.agent == agent), 0)

    async def release(self, tenant: str, agent: str, author: str) -> None:
        """Raises UnknownQuarantine."""

        def work(batch: Batch) -> None:
            if not batch.run(_RELEASE, (tenant, agent)):
                raise UnknownQuarantine
            self._record(batch, "memory-released", (tenant, agent, author))

        await self._database.write_or_refuse(work, UnknownQuarantine)

    async def list_all(self, tenant: str) -> list[SourceQuarantine]:
        """The quarantined sources of a tenant, by name."""
        held, facts = memory_quarantines.c, memory_facts.c
        count = select(func.count()).where(facts.tenant == held.tenant, facts.agent == held.agent).scalar_subquery()
        query = select(held.agent, held.author, held.reason, held.at, count).where(held.tenant == tenant).order_by(held.agent)
        return [SourceQuarantine(*row) for row in await self._database.read(lambda connection: connection.execute(query).all())]

    def _record(self, batch: Batch, kind: str, who: tuple[str, str, str], **more: Any) -> None:
        tenant, agent, author = who
        record = {"kind": kind, "tenant": tenant, "txn": "", "task_id": "", "decision_id": ""}
        self._audit.record(batch, {**record, "agent": agent, "by": author, **more})
