"""The history of an errand: what it did before, read anew for each ruling that depends on it, and what it has seen."""

import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Protocol

import msgspec
from msgspec import Struct
from sqlalchemy import Connection, select

from policies.tables import audit_records, transaction_history

SENSITIVITY_MAX = 3  # of sensitivity and clearance
VERB_FOLLOW_TASK, VERB_STOP_TASK = (
    "follow-a-task-of",
    "stop-a-task-of",
)  # verbs of acts about what another began, which do nothing once more
VERB_CONTINUE = "go-on-with"  # of an act whose answer was a question, with what was answered to that: it was counted when it began
_INSERT_TRANSACTION = (
    "INSERT INTO errands (tenant, txn, version, taint, totals, updated) VALUES (?, ?, 1, 0, ?, ?) ON CONFLICT (tenant, txn) DO NOTHING"
)
_UPDATE_TOTALS = "UPDATE errands SET version = version + 1, totals = ?, updated = ? WHERE tenant = ? AND txn = ? AND version = ?"
_RAISE_TAINT = """
INSERT INTO errands (tenant, txn, version, taint, totals, updated) VALUES (?, ?, 0, ?, '{}', ?)
ON CONFLICT (tenant, txn) DO UPDATE SET taint = excluded.taint, updated = excluded.updated WHERE errands.taint < excluded.taint
"""


class HistoryBatch(Protocol):
    """The writer's transaction (gateway/storage/writer.py)."""

    def run(self, statement: str, values: tuple[Any, ...]) -> int: ...


class HistoryChanged(Exception):
    """The errand went on since its history was read: whatever followed from it has to be ruled on again."""


class History(Struct, frozen=True):
    """`version` counts the acts that were ruled on by the history; -1: there is no row yet. `totals` has sums by argument,
    and what the audit does not tell any more.
    """

    version: int = -1
    taint: int = 0
    totals: Mapping[str, int] = {}
    calls: Mapping[str, int] = {}
    approvals: tuple[str, ...] = ()

    def without_act(self, permission: str, arguments: Mapping[str, Any], summed_arguments: Collection[str] | None = None) -> "History":
        """As it was without one act that it tells of, for whoever asks about what that began. `counted`: those of its arguments that were
        added up; None: all.
        """
        calls = {**self.calls, permission: max(self.calls.get(permission, 0) - 1, 0)}
        added = arguments if summed_arguments is None else {name: arguments[name] for name in summed_arguments if name in arguments}
        given = {name: value for name, value in added.items() if type(value) is int and value >= 0}
        totals = {name: max(total - given.get(name, 0), 0) for name, total in self.totals.items()}
        return msgspec.structs.replace(self, calls={name: count for name, count in calls.items() if count}, totals=totals)

    def to_policy_context(self, permission: str, total_names: Collection[str]) -> dict[str, Any]:
        """What policies see of it as `context.history`. Each of `totals` is there, if only as 0."""
        sums = {name: self.totals.get(name, 0) for name in total_names}
        return {
            "approvals": self.approvals,
            "calls": self.calls,
            "repeats": self.calls.get(permission, 0),
            "totals": sums,
            "taint": self.taint,
        }


class HistoryMark(Struct, frozen=True):
    """What an act leaves in the history of its errand, in the commit of its decision. `version` None: it does not depend on it."""

    version: int | None = None
    totals: Mapping[str, int] = {}
    taint: int = 0


class PriorAct(Struct, frozen=True):
    """The act that a question came back from: its decision, and what has to be the same of the act that goes on from it."""

    decision_id: str
    permission: str
    arguments: str  # sha256, as in the decision
    policy_version: str  # by others it may not have been counted, or something else of it


class _RecordedDecision(Struct):
    allowed: bool = False
    permission: str = ""
    approval: str = ""
    verb: str = ""
    decision_id: str = ""
    arguments: str = ""
    policy_version: str = ""
    goes_on: str = ""

    @property
    def prior_act(self) -> PriorAct:
        return PriorAct(self.decision_id, self.permission, self.arguments, self.policy_version)


_APPROVED = "approved "
_decode_decision = msgspec.json.Decoder(_RecordedDecision).decode


def read_history(connection: Connection, tenant: str, txn: str) -> History:
    """All that policies may look at: what the audit tells, and of what it does not have any more the row."""
    seen = read_totals(connection, tenant, txn)  # first: what a prune takes in between moves the version
    done = Counter(seen.totals) + _count_acts(_decision_bodies(connection, tenant, txn))
    calls = {name: count for name, count in done.items() if ":" in name and not name.startswith(_APPROVED)}
    approvals = sorted(name.removeprefix(_APPROVED) for name in done if name.startswith(_APPROVED))
    return msgspec.structs.replace(seen, calls=calls, approvals=tuple(approvals))


def can_continue_from(connection: Connection, tenant: str, txn: str, prior: PriorAct) -> bool:
    """Whether the errand did that, and nothing has gone on from it yet. To be read after the version that the next act moves: of two that
    go on from the same step one does.
    """
    done = [
        one for one in map(_decode_decision, _decision_bodies(connection, tenant, txn)) if one.allowed and one.verb in ("", VERB_CONTINUE)
    ]
    return any(one.prior_act == prior for one in done) and all(one.goes_on != prior.decision_id for one in done)


def _decision_bodies(connection: Connection, tenant: str, txn: str) -> Iterable[str]:
    match = (audit_records.c.txn == txn) & (audit_records.c.tenant == tenant) & (audit_records.c.kind == "decision")
    return connection.execute(select(audit_records.c.body).where(match)).scalars()


def keep_before_prune(connection: Connection, records: Iterable[tuple[str, str, str]], at: int) -> None:
    """Keeps what errands did apart from the audit, before these records of decisions go: (tenant, txn, body). In their transaction.

    Permissions are no names of arguments, so both stand among the totals. Whoever ruled by the audit a moment ago has to do so again.
    """
    bodies: dict[tuple[str, str], list[str]] = {}
    for tenant, txn, body in records:
        bodies.setdefault((tenant, txn), []).append(body)
    for (tenant, txn), told in sorted(bodies.items()):
        gone, here = _count_acts(told), (transaction_history.c.tenant == tenant) & (transaction_history.c.txn == txn)
        if not txn or not gone:
            continue
        row = connection.execute(select(transaction_history).where(here).with_for_update()).first()
        if row is None:
            made = {"tenant": tenant, "txn": txn, "version": 1, "taint": 0, "totals": json.dumps(dict(gone)), "updated": at}
            connection.execute(transaction_history.insert().values(made))
        else:
            totals = json.dumps(dict(Counter(json.loads(row.totals)) + gone))
            connection.execute(transaction_history.update().where(here).values(version=row.version + 1, totals=totals))


def _count_acts(bodies: Iterable[str]) -> Counter[str]:
    """How often each act was allowed, by its permission, and by an approval, before which that stands."""
    done = [
        one
        for one in map(_decode_decision, bodies)
        if one.allowed and one.permission and one.verb not in (VERB_FOLLOW_TASK, VERB_STOP_TASK)
    ]
    calls = Counter(one.permission for one in done if one.verb != VERB_CONTINUE)
    return calls + Counter(f"{_APPROVED}{one.permission}" for one in done if one.approval)


def read_totals(connection: Connection, tenant: str, txn: str) -> History:
    """What one row tells: sums, and the taint."""
    row = connection.execute(
        select(transaction_history).where((transaction_history.c.tenant == tenant) & (transaction_history.c.txn == txn))
    ).first()
    return History() if row is None else History(row.version, row.taint, json.loads(row.totals))


def record_mark(batch: HistoryBatch, transaction: tuple[str, str], mark: HistoryMark, now: int) -> None:
    """`errand` is (tenant, txn). Raises HistoryMoved."""
    if mark.version is not None:
        totals = json.dumps(dict(mark.totals))
        known = (totals, now, *transaction, mark.version)
        moved = batch.run(_INSERT_TRANSACTION, (*transaction, totals, now)) if mark.version < 0 else batch.run(_UPDATE_TOTALS, known)
        if moved != 1:
            raise HistoryChanged
    if mark.taint:
        batch.run(_RAISE_TAINT, (*transaction, mark.taint, now))
