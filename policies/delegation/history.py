"""The history of a transaction: its earlier acts and the sensitivity of what it read. Read again for each ruling that depends on it."""

import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import msgspec
from msgspec import Struct
from sqlalchemy import Connection, select

from policies.tables import WriteBatch, audit_records, transaction_history

SENSITIVITY_MAX = 3  # of sensitivity and clearance
VERB_FOLLOW_TASK, VERB_STOP_TASK = (
    "follow-a-task-of",
    "stop-a-task-of",
)  # verbs of acts on a task that another act started; not counted
VERB_CONTINUE = "go-on-with"  # verb of an act that answers its predecessor's question: counted with that act
_INSERT_TRANSACTION = (
    "INSERT INTO errands (tenant, txn, version, taint, totals, updated) VALUES (?, ?, 1, 0, ?, ?) ON CONFLICT (tenant, txn) DO NOTHING"
)
_UPDATE_TOTALS = "UPDATE errands SET version = version + 1, totals = ?, updated = ? WHERE tenant = ? AND txn = ? AND version = ?"
_RAISE_TAINT = """
INSERT INTO errands (tenant, txn, version, taint, totals, updated) VALUES (?, ?, 0, ?, '{}', ?)
ON CONFLICT (tenant, txn) DO UPDATE SET taint = excluded.taint, updated = excluded.updated WHERE errands.taint < excluded.taint
"""


class HistoryChanged(Exception):
    """The history changed after it was read: the act that depended on it has to be ruled on again."""


class History(Struct, frozen=True):
    """What a transaction did before. `version` counts the acts that were ruled on by the history; -1: there is no row yet.

    `totals` has sums by argument, and the counts of acts whose audit records were deleted.
    """

    version: int = -1
    taint: int = 0
    totals: Mapping[str, int] = {}
    calls: Mapping[str, int] = {}
    approvals: tuple[str, ...] = ()

    def without_act(self, permission: str, arguments: Mapping[str, Any], summed_arguments: Collection[str] | None = None) -> "History":
        """The history without one of its acts, for an act that follows or continues that one.

        `summed_arguments` are the arguments of the act that were added up; None: all of them.
        """
        calls = {**self.calls, permission: max(self.calls.get(permission, 0) - 1, 0)}
        added = arguments if summed_arguments is None else {name: arguments[name] for name in summed_arguments if name in arguments}
        integers = {name: value for name, value in added.items() if type(value) is int and value >= 0}
        totals = {name: max(total - integers.get(name, 0), 0) for name, total in self.totals.items()}
        return msgspec.structs.replace(self, calls={name: count for name, count in calls.items() if count}, totals=totals)

    def to_policy_context(self, permission: str, total_names: Collection[str]) -> dict[str, Any]:
        """The history as policies see it in `context.history`. Every name in `total_names` has a value, 0 by default."""
        sums = {name: self.totals.get(name, 0) for name in total_names}
        return {
            "approvals": self.approvals,
            "calls": self.calls,
            "repeats": self.calls.get(permission, 0),
            "totals": sums,
            "taint": self.taint,
        }


class HistoryMark(Struct, frozen=True):
    """The change that an act makes to its transaction's history, in the commit of its decision.

    `version` is None where the ruling did not depend on the history.
    """

    version: int | None = None
    totals: Mapping[str, int] = {}
    taint: int = 0


class PriorAct(Struct, frozen=True):
    """An act that was answered by a question: its decision, and what the act that continues it must have in common with it."""

    decision_id: str
    permission: str
    arguments: str  # sha256, as in the decision
    policy_version: str  # under another version the act may not have been counted, or counted differently


class _RecordedDecision(Struct):
    allowed: bool = False
    permission: str = ""
    approval: str = ""
    verb: str = ""
    decision_id: str = ""
    arguments: str = ""
    policy_version: str = ""
    counted_with_decision_id: str = msgspec.field(default="", name="goes_on")

    @property
    def prior_act(self) -> PriorAct:
        return PriorAct(self.decision_id, self.permission, self.arguments, self.policy_version)


_APPROVED = "approved "
_decode_decision = msgspec.json.Decoder(_RecordedDecision).decode


def read_history(connection: Connection, tenant: str, txn: str) -> History:
    """Everything that policies may read: acts from the audit log, and sums and pruned acts from the history row."""
    seen = read_totals(connection, tenant, txn)  # read first: a prune before the next read changes the version
    done = Counter(seen.totals) + _count_acts(_decision_bodies(connection, tenant, txn))
    calls = {name: count for name, count in done.items() if ":" in name and not name.startswith(_APPROVED)}
    approvals = sorted(name.removeprefix(_APPROVED) for name in done if name.startswith(_APPROVED))
    return msgspec.structs.replace(seen, calls=calls, approvals=tuple(approvals))


def can_continue_from(connection: Connection, tenant: str, txn: str, prior: PriorAct) -> bool:
    """Whether the transaction did the act `prior`, and no act continues it yet.

    The caller reads the history's version first: of two acts that continue the same step, one then fails with HistoryChanged.
    """
    done = [
        one for one in map(_decode_decision, _decision_bodies(connection, tenant, txn)) if one.allowed and one.verb in ("", VERB_CONTINUE)
    ]
    return any(one.prior_act == prior for one in done) and all(one.counted_with_decision_id != prior.decision_id for one in done)


def _decision_bodies(connection: Connection, tenant: str, txn: str) -> Iterable[str]:
    match = (audit_records.c.txn == txn) & (audit_records.c.tenant == tenant) & (audit_records.c.kind == "decision")
    query = select(audit_records.c.body).where(match)
    return connection.execute(query.with_hint(audit_records, "INDEXED BY audit_txn", "sqlite")).scalars()


def keep_before_prune(connection: Connection, records: Iterable[tuple[str, str, str]], at: int) -> None:
    """Adds the acts in decision records (tenant, txn, body) to their transactions' rows, in the commit that deletes the records.

    Counts of permissions and sums of arguments share `totals`: their names can't be equal. The version rises, so that concurrent rulings
    are repeated.
    """
    bodies: dict[tuple[str, str], list[str]] = {}
    for tenant, txn, body in records:
        bodies.setdefault((tenant, txn), []).append(body)
    for (tenant, txn), texts in sorted(bodies.items()):
        gone, of_transaction = _count_acts(texts), (transaction_history.c.tenant == tenant) & (transaction_history.c.txn == txn)
        if not txn or not gone:
            continue
        row = connection.execute(select(transaction_history).where(of_transaction).with_for_update()).first()
        if row is None:
            made = {"tenant": tenant, "txn": txn, "version": 1, "taint": 0, "totals": json.dumps(dict(gone)), "updated": at}
            connection.execute(transaction_history.insert().values(made))
        else:
            totals = json.dumps(dict(Counter(json.loads(row.totals)) + gone))
            connection.execute(transaction_history.update().where(of_transaction).values(version=row.version + 1, totals=totals))


def _count_acts(bodies: Iterable[str]) -> Counter[str]:
    """Counts the allowed acts by permission, and those with an approval by the permission after the prefix `approved `."""
    done = [
        one
        for one in map(_decode_decision, bodies)
        if one.allowed and one.permission and one.verb not in (VERB_FOLLOW_TASK, VERB_STOP_TASK)
    ]
    calls = Counter(one.permission for one in done if one.verb != VERB_CONTINUE)
    return calls + Counter(f"{_APPROVED}{one.permission}" for one in done if one.approval)


def read_totals(connection: Connection, tenant: str, txn: str) -> History:
    """The history row of a transaction: its version, sums and taint."""
    row = connection.execute(
        select(transaction_history).where((transaction_history.c.tenant == tenant) & (transaction_history.c.txn == txn))
    ).first()
    return History() if row is None else History(row.version, row.taint, json.loads(row.totals))


def record_mark(batch: WriteBatch, transaction: tuple[str, str], mark: HistoryMark, now: int) -> None:
    """Applies a mark to a transaction (tenant, txn). Raises HistoryChanged if the history's version is no longer the mark's."""
    if mark.version is not None:
        totals = json.dumps(dict(mark.totals))
        known = (totals, now, *transaction, mark.version)
        moved = batch.run(_INSERT_TRANSACTION, (*transaction, totals, now)) if mark.version < 0 else batch.run(_UPDATE_TOTALS, known)
        if moved != 1:
            raise HistoryChanged
    if mark.taint:
        batch.run(_RAISE_TAINT, (*transaction, mark.taint, now))
