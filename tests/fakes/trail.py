"""An audit trail in memory: what a gateway would have written, and what it would have signed."""

from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import Table

from policies.audit.cuts import CUT_JWT_TYPE as CUT
from policies.audit.cuts import AuditCut
from policies.audit.heads import HEAD_JWT_TYPE as HEAD
from policies.audit.log import AuditLog, ChainHead
from policies.keys.signing import NotSignedByUs, SigningKeys

Row = dict[str, Any]


class Rows:
    """The writer's batch, of which only the inserted rows matter here."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.tables: set[Table] = set()

    def insert(self, target: Table, values: tuple[Any, ...]) -> None:
        self.tables.add(target)
        self.rows.append(dict(zip(target.columns.keys(), values, strict=True)))


def record(number: int, at: int = 0) -> Row:
    told = {"kind": "decision", "tenant": "default", "decision_id": f"d_{number}", "txn": "x_1", "allowed": True, "text": "é|\u2028"}
    return told | ({"at": at} if at else {})


def genesis(*before: object) -> Row:
    return {"kind": "genesis", "tenant": "", "decision_id": "", "txn": "", "before": list(before)}


def chain_of(records: int | Iterable[Mapping[str, Any]], name: str = "a_1", start: int = 0) -> list[Row]:
    """So many decisions a microsecond apart from `start`, or the given records."""
    batch, audit = Rows(), AuditLog(name, lambda: 1_700_000_000_000_000)
    if isinstance(records, int):
        records = [record(number, start + number + 1) for number in range(records)]
    for each in records:
        audit.record(batch, each)
    return [row for row in batch.rows if "chain" in row]  # beside them, refusals are found by their persons


def last(rows: list[Row]) -> ChainHead:
    return ChainHead(rows[-1]["chain"], rows[-1]["seq"], rows[-1]["hash"])


def head_of(keys: SigningKeys, row: Mapping[str, Any]) -> str:
    return keys.sign({"chain": row["chain"], "seq": row["seq"], "hash": row["hash"]}, HEAD)


def cut_at(keys: SigningKeys, rows: list[Row], seq: int) -> str:
    """The statement of a cut up to the record `seq` of a whole chain."""
    gone = rows[seq - 1]
    return keys.sign(AuditCut(gone["chain"], seq, gone["hash"], seq, 1, seq).claims(1), CUT)


class Plain:
    """Signs by saying so, for what is about the order of things and not about signatures."""

    def __init__(self) -> None:
        self.said: dict[str, tuple[Mapping[str, Any], str]] = {}

    def sign(self, claims: Mapping[str, Any], typ: str) -> str:
        text = f"signed-{len(self.said)}"
        self.said[text] = (dict(claims), typ)
        return text

    def verify(self, token: str, typ: str) -> Mapping[str, Any]:
        claims, signed = self.said.get(token, ({}, ""))
        if signed != typ:
            raise NotSignedByUs("type")
        return claims
