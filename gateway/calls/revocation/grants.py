"""Revocation: ends a grant and every grant derived from it, in every process."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, select

from gateway.calls.revocation.running import RunningWorkStopper
from gateway.calls.revocation.spool import Spool
from gateway.storage.database import Database, WriteFailed
from policies.delegation.chain import Principal
from policies.delegation.grants import Grants
from policies.tables import grants as table


class UnknownGrant(Exception):
    """No such grant exists for this caller."""


@dataclass(frozen=True, slots=True)
class Revocation:
    """Writes a revocation and its audit record in one commit, or to the spool. A second revocation changes nothing."""

    database: Database
    grants: Grants
    spool: Spool
    now: Callable[[], int]
    stopper: RunningWorkStopper

    async def revoke(self, principal: Principal, grant_id: str, may_revoke_others: bool) -> None:
        """Revokes a grant and stops the work under it.

        `may_revoke_others` says whether the caller may revoke grants of other users in the tenant. Raises UnknownGrant.
        """
        row = await self._find_row(principal.tenant, grant_id)
        if row is None or not (may_revoke_others or (row.issuer, row.subject) == (principal.issuer, principal.subject)):
            raise UnknownGrant
        await self._revoke_and_stop(self._revocation_record(row, principal.issuer, principal.subject))

    async def revoke_by_agent(self, tenant: str, agent: str, grant_id: str) -> None:
        """Revokes a grant that this agent holds. Does nothing if the grant does not exist or another agent holds it (RFC 7009 s2.2)."""
        row = await self._find_row(tenant, grant_id)
        if row is not None and json.loads(row.path)[-1]["agent"] == agent:
            await self._revoke_and_stop({**self._revocation_record(row, row.issuer, row.subject), "agent": agent})

    async def _revoke_and_stop(self, record: dict[str, Any]) -> None:
        try:
            await self.database.write(lambda batch: self.spool.write(batch, record))
        except WriteFailed:
            await self.spool.spool_record(record)
        self.grants.invalidate()
        self.stopper.on_revocation()
        await self.stopper.stop_revoked()

    async def _find_row(self, tenant: str, grant_id: str) -> Row[Any] | None:
        query = select(table).where((table.c.tenant == tenant) & (table.c.id == grant_id))
        return await self.database.read(lambda connection: connection.execute(query).first())

    def _revocation_record(self, row: Row[Any], issuer: str, subject: str) -> dict[str, Any]:
        return {
            "kind": "revocation",
            "at": self.now(),
            "tenant": row.tenant,
            "decision_id": "",
            "txn": row.txn,
            "task_id": row.task_id,
            "grant_id": row.id,
            "principal": {"issuer": issuer, "subject": subject},
        }
