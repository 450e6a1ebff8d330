"""Approvals as rows: created, found, and used at most once."""

import json
from collections.abc import Iterable
from typing import Any

from sqlalchemy import Connection, Row, select

from policies.delegation.approval import Approval, ExactContent, Requester
from policies.delegation.rulings import Decision
from policies.tables import WriteBatch, approval_votes, approvals

MATCHED_MAX = 50  # approvals of the same arguments that are examined
_MARK_USED = (
    "UPDATE approvals SET state = 'used', used_by = ?, closed = ? WHERE tenant = ? AND id = ? AND state = ? AND used_by = ? AND expires > ?"
)
_MARK_UNUSED = (
    "UPDATE approvals SET state = ?, used_by = ?, closed = ? "
    "WHERE tenant = ? AND id = ? AND state = 'used' AND used_by = ? AND grant_id = ''"
)


class ApprovalGone(Exception):
    """The approval was used by another act or has ended: the act that depended on it has to be ruled on again."""


def find(connection: Connection, tenant: str, approval_id: str) -> Approval | None:
    """The approval with this id in the tenant, of any owner; None if there is none."""
    row = connection.execute(select(approvals).where((approvals.c.tenant == tenant) & (approvals.c.id == approval_id))).first()
    return None if row is None else approval_from_row(connection, row)


def find_matching(connection: Connection, tenant: str, owner: str, arguments_hash: str) -> list[Approval]:
    """The approvals of one person for the same arguments, newest first, at most MATCHED_MAX."""
    match = (approvals.c.tenant == tenant) & (approvals.c.arguments_hash == arguments_hash) & (approvals.c.owner == owner)
    match &= approvals.c.grant_id == ""
    rows = connection.execute(select(approvals).where(match).order_by(approvals.c.created.desc(), approvals.c.id.desc()).limit(MATCHED_MAX))
    return [approval_from_row(connection, row) for row in rows.all()]


def find_used_by(connection: Connection, requester: Requester, decision_id: str) -> tuple[Approval, ExactContent] | None:
    """The approval that a decision of the same person used, with its exact content; None if there is none."""
    match = (approvals.c.tenant == requester.tenant) & (approvals.c.owner == requester.owner) & (approvals.c.used_by == decision_id)
    row = connection.execute(select(approvals).where(match)).first() if decision_id else None
    return None if row is None else (approval_from_row(connection, row), ExactContent(row.arguments, row.arguments_hash, row.definition))


def mark_used(batch: WriteBatch, tenant: str, decision: Decision) -> None:
    """Marks the decision's approval as used, in the commit of that decision. Raises ApprovalGone.

    An act that continues another takes the approval over from that act's decision. Of two such acts only one succeeds.
    """
    continued = decision.continues_decision_id
    state = "used" if continued else "approved"
    if batch.run(_MARK_USED, (decision.id, decision.at, tenant, decision.approval, state, continued, decision.at)) != 1:
        raise ApprovalGone


def mark_unused(batch: WriteBatch, tenant: str, decision: Decision) -> None:
    """Undoes `mark_used` for a decision whose act did not take place. An approval taken over goes back to the earlier decision."""
    restored = ("used", decision.continues_decision_id, decision.at) if decision.continues_decision_id else ("approved", "", None)
    batch.run(_MARK_UNUSED, (*restored, tenant, decision.approval, decision.id))


def write_pending(batch: WriteBatch, row: dict[str, Any]) -> None:
    """Writes a new approval in the commit of its question's decision. `row` lacks the columns that are the same for each."""
    batch.add(approvals, {"state": "pending", "errand": "{}", "grant_id": "", "used_by": "", "reason": "", "closed": None} | row)


def approval_from_row(connection: Connection, row: "Row[Any]") -> Approval:
    return Approval(
        id=row.id,
        requester=Requester(row.tenant, row.owner, tuple(json.loads(row.chain)), row.txn, row.task_id),
        permission=json.loads(row.act)["permission"],
        definition=row.definition,
        arguments_hash=row.arguments_hash,
        policies=tuple(json.loads(row.policies)),
        state=row.state,
        expires=row.expires,
        prompt=row.prompt,
        reason=row.reason,
        approvals_needed=row.needed,
        used_by=row.used_by,
        approvers=tuple(vote.voter for vote in read_votes(connection, row.tenant, row.id) if vote.verdict == "approve"),
    )


def read_votes(connection: Connection, tenant: str, approval_id: str) -> Iterable["Row[Any]"]:
    """The votes on an approval, in order of time."""
    match = (approval_votes.c.tenant == tenant) & (approval_votes.c.approval_id == approval_id)
    return connection.execute(select(approval_votes).where(match).order_by(approval_votes.c.at)).all()
