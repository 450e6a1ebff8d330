"""Records that belong to a task or transaction without a foreign key, and are deleted some time after it."""

from typing import Final, NamedTuple

from sqlalchemy import Connection

from gateway.audit.retention.holds import HeldNames
from gateway.storage.batch import Batch


class Leftover(NamedTuple):
    """A table whose rows are deleted where `condition` holds, which is about `r` and has one mark, for the cutoff."""

    table: str
    keys: str
    condition: str
    owner: str  # the column of the person whose row it is; empty where there is none

    def count_due(self, connection: Connection, tenant: str, cutoff: int) -> int:
        """Returns how many rows are due."""
        mark = "?" if connection.dialect.name == "sqlite" else "%s"
        statement = f"SELECT COUNT(*) FROM {self.table} r WHERE r.tenant = ? AND {self.condition}".replace("?", mark)  # noqa: S608 (our own text)
        return int(connection.exec_driver_sql(statement, (tenant, cutoff)).scalar_one())

    def delete(self, batch: Batch, tenant: str, cutoff: int, held: HeldNames, rows_max: int) -> int:
        """Deletes at most `rows_max` rows, and returns how many."""
        people = sorted(held.people) if self.owner else []
        kept = f" AND r.{self.owner} NOT IN ({','.join('?' * len(people))})" if people else ""
        some = f"SELECT {self.keys} FROM {self.table} r WHERE r.tenant = ? AND {self.condition}{kept} LIMIT ?"  # noqa: S608 (our own text)
        statement = f"DELETE FROM {self.table} WHERE ({self.keys}) IN ({some})"  # noqa: S608 (our own text)
        return batch.run(statement, (tenant, cutoff, *people, rows_max))


LEFTOVERS: Final = (
    Leftover(
        "approvals",
        "tenant, id",
        "r.created < ? AND r.closed IS NOT NULL AND NOT EXISTS (SELECT 1 FROM tasks t WHERE t.tenant = r.tenant AND t.txn = r.txn)",
        "owner",
    ),
    Leftover(
        "errands",
        "tenant, txn",
        "r.updated < ? AND NOT EXISTS (SELECT 1 FROM tasks t WHERE t.tenant = r.tenant AND t.txn = r.txn)",
        "",
    ),
)
