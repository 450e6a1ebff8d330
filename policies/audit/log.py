"""The audit log: one hash chain per process, durable before any effect; its heads are signed and kept outside the database too."""

import hashlib
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import msgspec
from msgspec import Struct
from sqlalchemy import Connection, Table, select, true

from policies.delegation.chain import Principal
from policies.delegation.rulings import Decision, Grant
from policies.tables import audit_records as audit_table
from policies.tables import refusals

_encode = msgspec.json.Encoder().encode
GENESIS_HASH = "0" * 64


class AuditBatch(Protocol):
    """The transaction of the database writer (gateway/storage/writer.py)."""

    def insert(self, target: Table, values: tuple[Any, ...]) -> None:
        """Adds a row by the values of all columns, in their order."""


class ChainHead(Struct, frozen=True):
    """The last record of one chain."""

    chain: str
    seq: int
    hash: str


def decision_record(decision: Decision, principal: Principal) -> dict[str, Any]:
    """The audit record of a ruling: the caller, the chain of agents, the act, and the reason."""
    return {
        "kind": "decision",
        "at": decision.at,
        "tenant": principal.tenant,
        "decision_id": decision.id,
        "txn": decision.txn,
        "task_id": decision.task_id,
        "grant_id": decision.grant_id,
        "principal": {"issuer": principal.issuer, "subject": principal.subject},
        "roles": decision.roles,
        "path": [{"agent": link.agent, "permissions": link.permissions} for link in decision.chain],
        "action": decision.act.action,
        **({"verb": decision.act.verb} if decision.act.verb else {}),
        "resource": decision.act.resource,
        "permission": decision.act.permission,
        "allowed": decision.allowed,
        "reason_id": decision.reason_id,
        "policies": decision.policies,
        "missing": decision.missing,
        "arguments": decision.arguments,
        "policy_version": decision.policy_version,
        "trace_id": decision.trace_id,
        **({"scope": decision.scope} if decision.scope else {}),
        **({"approval": decision.approval, "approvers": decision.approvers} if decision.approval else {}),
        **({"began": decision.continues_decision_id} if decision.continues_decision_id else {}),
        **({"goes_on": decision.counted_with_decision_id} if decision.counted_with_decision_id else {}),
        **({"problem": decision.problem} if decision.problem else {}),
        **({"subject": decision.subject, "effect": decision.effect} if decision.subject else {}),
        **({"facts": decision.facts} if decision.facts else {}),
    }


def outcome_record(grant: Grant, outcome: str, duration_us: int) -> dict[str, Any]:
    """The audit record of how a call without a task ended."""
    decision = grant.decision
    return {
        "kind": "outcome",
        "tenant": grant.delegation.principal.tenant,
        "decision_id": decision.id,
        "txn": decision.txn,
        "task_id": decision.task_id,
        "outcome": outcome,
        "duration_us": duration_us,
    }


class AuditLog:
    """Appends records to this process's chain, on the writer's thread, in the same commit as the change that they record.

    A chain's first record (`genesis`) names the last record of every earlier chain, so that the removal of a whole chain is detected too.
    """

    def __init__(self, chain: str, now: Callable[[], int]) -> None:
        self._chain = chain
        self._now = now
        self._head = self._durable = ChainHead(chain, 0, GENESIS_HASH)
        self._uncertain: set[ChainHead] = set()  # heads of commits that failed without a known outcome

    @property
    def head(self) -> ChainHead:
        """The last durable record of this process's chain."""
        return self._durable

    def on_commit(self) -> None:
        self._durable = self._head
        self._uncertain.clear()

    def on_rollback(self) -> None:
        self._head = self._durable

    def resolve_uncertain_commit(self, connection: Connection) -> bool:
        """After a commit of unknown outcome: continues from the chain's last record in the database, if this process wrote it.

        Returns True when the uncertain commit is in the database. If durable records are missing, the chain continues without them, and
        verification reports the gap.
        """
        tail = _read_last_head(connection, self._chain)
        head = self._head
        if head != self._durable:
            self._uncertain.add(head)
        if tail in self._uncertain:
            self._durable = tail
        self._head = self._durable
        return tail == head and head in self._uncertain

    def begin_chain(self, connection: Connection, batch: AuditBatch) -> None:
        """Writes the chain's genesis record, which names the last record of every chain in the database."""
        last_heads = [{"chain": head.chain, "seq": head.seq, "hash": head.hash} for head in read_last_heads(connection)]
        self.record(batch, {"kind": "genesis", "tenant": "", "decision_id": "", "txn": "", "before": last_heads})

    def record(self, batch: AuditBatch, record: Mapping[str, Any]) -> None:
        """Appends one record to the chain. `record` has kind, tenant, decision_id, txn and explanatory members; never a secret."""
        seq, prev = self._head.seq + 1, self._head.hash
        at = record.get("at") or self._now()
        body = _encode({"chain": self._chain, "seq": seq, **record, "at": at})
        digest = hashlib.sha256(prev.encode() + body).hexdigest()
        queried = (record["tenant"], record["kind"], at, record["decision_id"], record["txn"])  # are in the body too
        batch.insert(audit_table, (self._chain, seq, *queried, body.decode(), prev, digest))
        self._head = ChainHead(self._chain, seq, digest)
        if record["kind"] == "decision" and record.get("allowed") is False:
            batch.insert(refusals, _refusal_values(record, at))


def _refusal_values(record: Mapping[str, Any], at: int) -> tuple[Any, ...]:
    """Returns the row of `refusals`, in the order of its columns."""
    tenant, person = record["tenant"], record["principal"]
    owner = Principal(tenant, person["issuer"], person["subject"]).owner_key
    return tenant, owner, at, record["decision_id"], int("hidden" in record)


def read_last_heads(connection: Connection) -> list[ChainHead]:
    """The last record of every chain in the database, by one index lookup for each chain."""
    chains: list[str] = []
    column = audit_table.c.chain
    while True:
        after = column > chains[-1] if chains else true()
        found = connection.execute(select(column).where(after).order_by(column).limit(1)).scalar_one_or_none()
        if found is None:
            return [head for chain in chains if (head := _read_last_head(connection, chain))]
        chains.append(found)


def _read_last_head(connection: Connection, chain: str) -> ChainHead | None:
    columns = (audit_table.c.seq, audit_table.c.hash)
    row = connection.execute(select(*columns).where(audit_table.c.chain == chain).order_by(audit_table.c.seq.desc()).limit(1)).one_or_none()
    return ChainHead(chain, row.seq, row.hash) if row else None
