"""The history of an errand: what it did before, read anew for each ruling that depends on it, and what it has seen."""

import json
from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any, Protocol

import msgspec
from msgspec import Struct
from sqlalchemy import Connection, select

from policies.tables import audit, errands

HIGHEST = 3  # of sensitivity and clearance
_BEGIN = "INSERT INTO errands (tenant, txn, version, taint, totals, updated) VALUES (?, ?, 1, 0, ?, ?) ON CONFLICT (tenant, txn) DO NOTHING"
_GO_ON = "UPDATE errands SET version = version + 1, totals = ?, updated = ? WHERE tenant = ? AND txn = ? AND version = ?"
_RAISE = """
INSERT INTO errands (tenant, txn, version, taint, totals, updated) VALUES (?, ?, 0, ?, '{}', ?)
ON CONFLICT (tenant, txn) DO UPDATE SET taint = excluded.taint, updated = excluded.updated WHERE errands.taint < excluded.taint
"""


class Batch(Protocol):
    """The writer's transaction (gateway/writer.py)."""

    def run(self, statement: str, values: tuple[Any, ...]) -> int: ...


class HistoryMoved(Exception):
    """The errand went on since its history was read: whatever followed from it has to be ruled on again."""


class History(Struct, frozen=True):
    """`version` counts the acts that were ruled on by the history; -1: there is no row yet. `totals` has sums by argument."""

    version: int = -1
    taint: int = 0
    totals: Mapping[str, int] = {}
    calls: Mapping[str, int] = {}
    approvals: tuple[str, ...] = ()

    def context(self, permission: str, totals: Collection[str]) -> dict[str, Any]:
        """What policies see of it as `context.history`. Each of `totals` is there, if only as 0."""
        sums = {name: self.totals.get(name, 0) for name in totals}
        return {
            "approvals": self.approvals,
            "calls": self.calls,
            "repeats": self.calls.get(permission, 0),
            "totals": sums,
            "taint": self.taint,
        }


class Mark(Struct, frozen=True):
    """What an act leaves in the history of its errand, in the commit of its decision. `version` None: it does not depend on it."""

    version: int | None = None
    totals: Mapping[str, int] = {}
    taint: int = 0


class _Told(Struct):
    allowed: bool
    permission: str
    approval: str = ""


_told = msgspec.json.Decoder(_Told).decode


def recall(connection: Connection, tenant: str, txn: str) -> History:
    """All that policies may look at."""
    seen = glance(connection, tenant, txn)
    match = (audit.c.txn == txn) & (audit.c.tenant == tenant) & (audit.c.kind == "decision")
    told = [_told(body) for body in connection.execute(select(audit.c.body).where(match)).scalars()]
    done = [one for one in told if one.allowed]
    approved = tuple(sorted({one.permission for one in done if one.approval}))
    return msgspec.structs.replace(seen, calls=dict(Counter(one.permission for one in done)), approvals=approved)


def glance(connection: Connection, tenant: str, txn: str) -> History:
    """What one row tells: sums, and the taint."""
    row = connection.execute(select(errands).where((errands.c.tenant == tenant) & (errands.c.txn == txn))).first()
    return History() if row is None else History(row.version, row.taint, json.loads(row.totals))


def leave(batch: Batch, errand: tuple[str, str], mark: Mark, now: int) -> None:
    """`errand` is (tenant, txn). Raises HistoryMoved."""
    if mark.version is not None:
        totals = json.dumps(dict(mark.totals))
        known = (totals, now, *errand, mark.version)
        moved = batch.run(_BEGIN, (*errand, totals, now)) if mark.version < 0 else batch.run(_GO_ON, known)
        if moved != 1:
            raise HistoryMoved
    if mark.taint:
        batch.run(_RAISE, (*errand, mark.taint, now))
