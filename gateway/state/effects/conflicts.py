"""Conflicts: calls on subjects that were refused because of facts, each kind of refusal once for each caller, with a count."""

import msgspec

from gateway.storage.batch import Batch
from policies.delegation.rulings import Decision

_RECORD = (
    "INSERT INTO subject_conflicts (tenant, subject, effect, owner, agent, reason_id, target, policies, facts, decision_id, count, "
    "first_at, last_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 1, ?, ?) ON CONFLICT (tenant, subject, effect, owner, agent, reason_id) "
    "DO UPDATE SET target = excluded.target, policies = excluded.policies, facts = excluded.facts, decision_id = excluded.decision_id, "
    "count = subject_conflicts.count + 1, last_at = excluded.last_at"
)


def record_conflict(batch: Batch, tenant: str, decision: Decision) -> None:
    """Records a refusal that rests on facts about a subject, in the commit of its decision."""
    agent = decision.chain[-1].agent if decision.chain else ""
    facts = msgspec.json.encode(decision.facts).decode()
    policies = msgspec.json.encode(decision.policies).decode()
    who = (tenant, decision.subject, decision.effect, decision.principal, agent, decision.reason_id)
    batch.run(_RECORD, (*who, decision.act.permission, policies, facts, decision.id, decision.at, decision.at))
