"""Revocation: ends a grant, and with it all that was handed on from it, in every process."""

from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import select

from gateway.database import Batch, Database, bump
from policies.audit import Audit
from policies.grants import Grants
from policies.principal import Principal
from policies.tables import grants as table


class UnknownGrant(Exception):
    """No such grant for this caller: of another tenant or person, or of nobody."""


@dataclass(frozen=True, slots=True)
class Revocation:
    """Keeps the end of a grant and the record of who ended it in one commit. Ending it twice is ending it once."""

    database: Database
    grants: Grants
    audit: Audit
    now: Callable[[], int]

    async def revoke(self, principal: Principal, grant_id: str, everybodys: bool) -> None:
        """`everybodys`: the caller may end other people's grants of the tenant too. Raises UnknownGrant."""
        match = (table.c.tenant == principal.tenant) & (table.c.id == grant_id)

        def work(batch: Batch) -> bool:
            row = batch.connection.execute(select(table).where(match)).first()
            if row is None or not (everybodys or (row.issuer, row.subject) == (principal.issuer, principal.subject)):
                return False
            if row.revoked is not None:
                return True
            self.grants.end(batch, principal.tenant, grant_id, self.now())
            bump(batch, "grants")
            record = {
                "kind": "revocation",
                "tenant": principal.tenant,
                "decision_id": "",
                "txn": row.txn,
                "task_id": row.task_id,
                "grant_id": grant_id,
                "principal": {"issuer": principal.issuer, "subject": principal.subject},
            }
            self.audit.append(batch, record)
            return True

        if not await self.database.write(work):
            raise UnknownGrant
        self.grants.forget()
