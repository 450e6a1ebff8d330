"""Approvals for approvers and requesters: lists, exact content, and votes."""

import json
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, func, select
from sqlalchemy.exc import IntegrityError

from gateway.storage.database import Batch, Database
from gateway.storage.paging import format_place, parse_place, with_index
from gateway.tasks.log import has_ended, to_rfc3339
from gateway.tasks.notices.feed import Notice, write_notice
from policies.audit.log import AuditLog
from policies.callers import Caller
from policies.delegation.approval import decode_arguments
from policies.delegation.approval_rows import read_votes
from policies.delegation.run_as import SERVICE_ISSUER
from policies.tables import approval_votes, approvals

ARGUMENTS_KEPT_US = 7 * 86_400 * 1_000_000  # how long the arguments of a closed approval are kept
REASON_MAX = 1000
WRITE_STATE = "writeState"  # the action of a question about a value of the board
_LOCK_PENDING = "UPDATE approvals SET needed = needed WHERE tenant = ? AND id = ? AND state = 'pending' AND expires > ?"
_UPDATE_STATE = "UPDATE approvals SET state = ?, reason = ?, closed = ? WHERE tenant = ? AND id = ?"
_CLOSE_EXPIRED = "UPDATE approvals SET state = 'expired', closed = expires WHERE closed IS NULL AND grant_id = '' AND expires <= ?"
_ERASE_ARGUMENTS = "UPDATE approvals SET arguments = '', errand = '{}' WHERE closed < ? AND arguments <> ''"


class UnknownApproval(Exception):
    """No such approval exists for this caller."""


class OwnApproval(Exception):
    """The requester of an approval cannot vote on it."""


class AlreadyVoted(Exception):
    """The voter has voted on this approval already."""


class ApprovalClosed(Exception):
    """The approval is decided, used or expired, or its task has ended."""


@dataclass(frozen=True, slots=True)
class Vote:
    """One approver's vote with its reason."""

    allows: bool
    reason: str


@dataclass(frozen=True, slots=True)
class ApprovalFilter:
    """Selects approvals: those of `owner`, or of the whole tenant; an empty `state` means all.

    `txn_and_task` limits an agent to the approvals of its own transaction or task.
    """

    owner: str = ""
    txn_and_task: tuple[str, str] | None = None
    state: str = ""
    cursor: str = ""
    limit: int = 50


class Approvals:
    """Reads approvals and records votes.

    The routes check the permission to vote; this class refuses votes on one's own requests.
    """

    def __init__(
        self,
        database: Database,
        audit: AuditLog,
        now: Callable[[], int],
        requesters_of: Callable[[str, str], Awaitable[Collection[str]]],
        settling_write: Callable[[Caller, str, str], Awaitable[Callable[[Batch, bool], None]]],
    ) -> None:
        """`requesters_of` returns the owner keys of the people that caused what a service does in a transaction of a tenant.

        `settling_write` returns what writes a value of the board, or drops it, in the commit of the vote that decides on it.
        """
        self._settling_write = settling_write
        self._requesters_of = requesters_of
        self._database = database
        self._audit = audit
        self._now = now

    async def list_page(self, tenant: str, page: ApprovalFilter) -> tuple[list[dict[str, Any]], str | None]:
        """Returns a page, newest first, without arguments, and the cursor of the next page. Raises BadCursor."""
        query = select(approvals).where(approvals.c.tenant == tenant)
        query = query.where(approvals.c.owner == page.owner) if page.owner else query
        if page.txn_and_task is not None:
            query = query.where((approvals.c.txn == page.txn_and_task[0]) | (approvals.c.task_id == page.txn_and_task[1]))
        if page.state:
            query = query.where(_state_condition(page.state, self._now()))
        if page.cursor:
            at, last = parse_place(page.cursor)
            query = query.where((approvals.c.created < at) | ((approvals.c.created == at) & (approvals.c.id < last)))
        query = query.order_by(approvals.c.created.desc(), approvals.c.id.desc()).limit(page.limit + 1)
        index = "approvals_owner" if page.owner else "approvals_open" if page.state == "pending" else "approvals_created"
        query = with_index(query, approvals, index)
        rows = await self._database.read(lambda connection: connection.execute(query).all())
        shown_rows = rows[: page.limit]
        more = format_place(shown_rows[-1].created, shown_rows[-1].id) if len(rows) > page.limit else None
        return [self._summary_document(row) for row in shown_rows], more

    async def find(self, caller: Caller, approval_id: str, can_decide: bool) -> dict[str, Any]:
        """Returns the full document for approvers, and the summary for the requester. Raises UnknownApproval."""

        def work(connection: Connection) -> dict[str, Any]:
            row = _find_row(connection, caller.principal.tenant, approval_id)
            if row is not None and can_decide:
                return self._full_document(connection, row)
            if row is None or not _is_callers_own(row, caller):
                raise UnknownApproval
            return self._summary_document(row)

        return await self._database.read(work)

    async def check_voter(self, caller: Caller, approval_id: str) -> None:
        """Raises OwnApproval if the caller requested the approval, or brought about the run of a service that requests it."""
        row = await self._database.read(lambda connection: _find_row(connection, caller.principal.tenant, approval_id))
        if row is not None and row.owner == caller.principal.owner_key:
            raise OwnApproval
        is_of_service = row is not None and row.owner.startswith(f"{row.tenant}|{SERVICE_ISSUER}|")
        if row is not None and is_of_service and caller.principal.owner_key in await self._requesters_of(row.tenant, row.txn):
            raise OwnApproval

    async def vote(self, caller: Caller, approval_id: str, vote: Vote, decision_id: str) -> dict[str, Any]:
        """Records a vote and returns the approval. One denial denies. `decision_id` is the decision that allowed the vote.

        Raises OwnApproval, UnknownApproval, ApprovalClosed and AlreadyVoted, and StaleVersion for a value of the board that has changed.
        """
        await self.check_voter(caller, approval_id)
        principal, now = caller.principal, self._now()
        asked = await self._database.read(lambda connection: _find_row(connection, principal.tenant, approval_id))
        is_of_board = asked is not None and json.loads(asked.act)["action"] == WRITE_STATE
        settle = await self._settling_write(caller, approval_id, decision_id) if is_of_board else None

        def work(batch: Batch) -> dict[str, Any]:
            locked = batch.run(_LOCK_PENDING, (principal.tenant, approval_id, now))  # serializes concurrent votes
            row = _find_row(batch.connection, principal.tenant, approval_id)
            if row is None:
                raise UnknownApproval
            if not locked or (row.grant_id and has_ended(batch.connection, row.tenant, row.task_id)):
                raise ApprovalClosed
            self._write_vote(batch, row, caller, vote, now)
            state = _state_after_vote(batch.connection, row, vote)
            if state != "pending":
                closed = now if state == "denied" and not row.grant_id else None
                batch.run(_UPDATE_STATE, (state, "" if vote.allows else vote.reason, closed, row.tenant, row.id))
                body = {"approval": row.id, "state": state, "by": principal.owner_key}
                write_notice(batch, Notice(row.tenant, "approval.decided", row.id, row.task_id, row.owner, body, now))
                if settle is not None:
                    settle(batch, state == "approved")
            self._audit.record(batch, _vote_record(row, caller, vote, decision_id, state))
            return self._full_document(batch.connection, _read_locked_row(batch.connection, row))

        try:
            return await self._database.write_or_refuse(work, UnknownApproval, ApprovalClosed)
        except IntegrityError:
            raise AlreadyVoted from None

    def _write_vote(self, batch: Batch, row: "Row[Any]", caller: Caller, vote: Vote, now: int) -> None:
        verdict = "approve" if vote.allows else "deny"
        vote_columns = {"voter": caller.principal.owner_key, "verdict": verdict, "reason": vote.reason, "at": now}
        batch.add(approval_votes, {"tenant": row.tenant, "approval_id": row.id, **vote_columns})

    async def sweep(self) -> None:
        """Closes expired approvals, and erases the arguments of approvals that were closed a week ago."""
        now = self._now()

        def work(batch: Batch) -> None:
            batch.run(_CLOSE_EXPIRED, (now,))
            batch.run(_ERASE_ARGUMENTS, (now - ARGUMENTS_KEPT_US,))

        await self._database.write_alone("approvals", work)

    def _summary_document(self, row: "Row[Any]") -> dict[str, Any]:
        """Returns what the requester may see of an approval."""
        act = json.loads(row.act)
        return {
            "id": row.id,
            "state": _state_at(row, self._now()),
            "prompt": row.prompt,
            "action": act["action"],
            "resource": act["resource"],
            "requester": {"principal": row.owner, "chain": json.loads(row.chain)},
            "task_id": row.task_id,
            "decision_id": row.decision_id,
            "reason": row.reason,
            "created": to_rfc3339(row.created),
            "expires": to_rfc3339(row.expires),
        }

    def _full_document(self, connection: Connection, row: "Row[Any]") -> dict[str, Any]:
        votes = read_votes(connection, row.tenant, row.id)
        return {
            **self._summary_document(row),
            "permission": json.loads(row.act)["permission"],
            "txn": row.txn,
            "arguments": decode_arguments(row.arguments),
            "beside": None if row.grant_id else decode_arguments(row.errand) or None,
            "arguments_sha256": row.arguments_hash,
            "definition_sha256": row.definition,
            "description": row.described,
            "policies": json.loads(row.policies),
            "needed": row.needed,
            "used_by": row.used_by,
            "votes": [{"by": one.voter, "verdict": one.verdict, "reason": one.reason, "at": to_rfc3339(one.at)} for one in votes],
        }


def _find_row(connection: Connection, tenant: str, approval_id: str) -> "Row[Any] | None":
    return connection.execute(select(approvals).where((approvals.c.tenant == tenant) & (approvals.c.id == approval_id))).first()


def _read_locked_row(connection: Connection, row: "Row[Any]") -> "Row[Any]":
    found = _find_row(connection, row.tenant, row.id)
    assert found is not None  # the transaction holds a lock on the row
    return found


def _is_callers_own(row: "Row[Any]", caller: Caller) -> bool:
    """Returns whether the caller is the requester; an agent also needs the same transaction or task."""
    delegation = caller.delegation
    return bool(
        row.owner == caller.principal.owner_key and (not delegation.path or row.txn == delegation.txn or row.task_id == delegation.task_id)
    )


def _state_at(row: "Row[Any]", now: int) -> str:
    return "expired" if row.state in ("pending", "approved") and row.expires <= now else str(row.state)


def _state_condition(state: str, now: int) -> Any:
    old = approvals.c.state.in_(("pending", "approved")) & (approvals.c.expires <= now)
    if state == "expired":
        return old | (approvals.c.state == state)
    if state == "pending":
        return (approvals.c.state == state) & (approvals.c.expires > now) & approvals.c.closed.is_(None)  # which the index has alone
    return (approvals.c.state == state) & (approvals.c.expires > now) if state == "approved" else approvals.c.state == state


def _state_after_vote(connection: Connection, row: "Row[Any]", vote: Vote) -> str:
    if not vote.allows:
        return "denied"
    votes_of_approval = (approval_votes.c.tenant == row.tenant) & (approval_votes.c.approval_id == row.id)
    count = connection.execute(select(func.count()).select_from(approval_votes).where(votes_of_approval)).scalar_one()
    return "approved" if count >= row.needed else "pending"


def _vote_record(row: "Row[Any]", caller: Caller, vote: Vote, decision_id: str, state: str) -> dict[str, Any]:
    principal = caller.principal
    return {
        "kind": "vote",
        "tenant": row.tenant,
        "decision_id": decision_id,
        "txn": row.txn,
        "task_id": row.task_id,
        "approval": row.id,
        "asked_by": row.decision_id,
        "principal": {"issuer": principal.issuer, "subject": principal.subject},
        "verdict": "approve" if vote.allows else "deny",
        "reason": vote.reason,
        "state": state,
        "arguments": row.arguments_hash,
        "definition": row.definition,
    }
