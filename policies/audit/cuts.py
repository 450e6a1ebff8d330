"""Cuts of the audit log: old records are deleted, and a signed statement of each cut lets the remaining records be verified."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, delete, func, select, tuple_

from policies.audit.heads import StatementVerifier
from policies.delegation.history import keep_before_prune
from policies.tables import audit_records as audit_table
from policies.tables import refusals

CUT_JWT_TYPE = "interlock-audit-cut+jwt"
DELETE_BATCH_SIZE = 5000  # records of one transaction


@dataclass(frozen=True, slots=True)
class AuditCut:
    """The records of one chain up to and including `seq`, which a cut deletes. `hash` is the hash of record `seq`."""

    chain: str
    seq: int
    hash: str
    records: int
    first_at: int  # microseconds since 1970
    last_at: int

    def claims(self, now: int) -> dict[str, Any]:
        cut_members = {"chain": self.chain, "seq": self.seq, "hash": self.hash, "records": self.records}
        return {**cut_members, "first_at": self.first_at, "last_at": self.last_at, "at": now}


def find_due_cuts(connection: Connection, before: int) -> list[AuditCut]:
    """The cut of each chain that removes all records older than `before` (microseconds since 1970), but never the chain's last record."""
    table = audit_table.c
    found = []
    ends = connection.execute(select(table.chain, func.max(table.seq)).group_by(table.chain).order_by(table.chain)).all()
    for chain, end in ends:
        of_chain = table.chain == chain
        younger = connection.execute(select(func.min(table.seq)).where(of_chain, table.at >= before)).scalar()
        last = min(younger if younger is not None else end, end) - 1
        gone = (of_chain, table.seq <= last)
        count, *times = connection.execute(select(func.count(), func.min(table.at), func.max(table.at)).where(*gone)).one()
        if count:
            digest = connection.execute(select(table.hash).where(of_chain, table.seq == last)).scalar_one()
            found.append(AuditCut(chain, last, digest, count, *times))
    return found


def read_records(connection: Connection, cut: AuditCut) -> Iterator[Mapping[str, Any]]:
    """Yields the records that the cut deletes, in order."""
    table = audit_table.c
    query = select(audit_table).where(table.chain == cut.chain, table.seq <= cut.seq).order_by(table.seq)
    for row in connection.execute(query, execution_options={"yield_per": 1000}):
        yield dict(row._mapping)


def delete_records(connection: Connection, cut: AuditCut) -> int:
    """Deletes the records of the cut, oldest first, in committed batches, and returns their number.

    An interruption leaves a chain that the statement of the cut still covers. The deleted decisions are first copied to the history of
    their transactions, which policies count for as long as a transaction lasts. With a record goes its row of `refusals`: those of other
    chains may be older and stay.
    """
    table, gone = audit_table.c, 0
    while True:
        some = select(table.seq).where(table.chain == cut.chain, table.seq <= cut.seq).order_by(table.seq).limit(DELETE_BATCH_SIZE)
        upto = connection.execute(select(func.max(some.subquery().c.seq))).scalar()
        if upto is None:
            return gone
        going = (table.chain == cut.chain, table.seq <= upto)
        decisions = select(table.tenant, table.txn, table.body).where(*going, table.kind == "decision", table.txn != "")
        keep_before_prune(connection, (tuple(row) for row in connection.execute(decisions).all()), cut.last_at)
        refused = tuple_(refusals.c.tenant, refusals.c.at, refusals.c.decision_id)
        of_records = select(table.tenant, table.at, table.decision_id).where(*going)
        connection.execute(delete(refusals).where(refused.in_(of_records)))
        gone += connection.execute(delete(audit_table).where(*going)).rowcount
        connection.commit()


def parse_cut_statements(lines: Iterable[str], verifier: StatementVerifier) -> tuple[list[str], dict[str, dict[int, str]]]:
    """Splits signed lines into those that are no statements of cuts, and the cuts: chain -> last deleted record -> its hash."""
    others: list[str] = []
    cuts: dict[str, dict[int, str]] = {}
    for line in lines:
        try:
            claims = verifier.verify(line, CUT_JWT_TYPE)
        except ValueError:
            others.append(line)
        else:
            cuts.setdefault(str(claims["chain"]), {})[int(claims["seq"])] = str(claims["hash"])
    return others, cuts
