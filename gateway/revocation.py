"""Revocation: ends a grant, and with it all that was handed on from it, in every process."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, select

from gateway.database import Database, NotKept
from gateway.halt import Halt
from gateway.spool import Spool
from policies.grants import Grants
from policies.principal import Principal
from policies.tables import grants as table


class UnknownGrant(Exception):
    """No such grant for this caller: of another tenant or person, or of nobody."""


@dataclass(frozen=True, slots=True)
class Revocation:
    """Keeps the end of a grant and the record of who ended it in one commit, or in the spool. Ending it twice is ending it once."""

    database: Database
    grants: Grants
    spool: Spool
    now: Callable[[], int]
    halt: Halt

    async def revoke(self, principal: Principal, grant_id: str, everybodys: bool) -> None:
        """`everybodys`: the caller may end other people's grants of the tenant too. Raises UnknownGrant."""
        record = await self.database.read(lambda connection: self._record(connection, principal, grant_id, everybodys))
        if record is None:
            raise UnknownGrant
        try:
            await self.database.write(lambda batch: self.spool.keep(batch, record))
        except NotKept:
            await self.spool.put(record)
        self.grants.forget()
        self.halt.revoked()
        await self.halt.end_revoked()

    def _record(self, connection: Connection, principal: Principal, grant_id: str, everybodys: bool) -> dict[str, Any] | None:
        match = (table.c.tenant == principal.tenant) & (table.c.id == grant_id)
        row = connection.execute(select(table).where(match)).first()
        if row is None or not (everybodys or (row.issuer, row.subject) == (principal.issuer, principal.subject)):
            return None
        return {
            "kind": "revocation",
            "at": self.now(),
            "tenant": principal.tenant,
            "decision_id": "",
            "txn": row.txn,
            "task_id": row.task_id,
            "grant_id": grant_id,
            "principal": {"issuer": principal.issuer, "subject": principal.subject},
        }
