"""Pausing: tasks that wait until people approve them, and then continue or end by the decision."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec
from sqlalchemy import Row, select

from adapters.contract import Failed
from adapters.task import Message, TaskState, encode
from gateway.calls.authorizer import CallAuthorizer, commit_opening, denial_of
from gateway.calls.consent.approval_requests import ApprovalRequests, ApprovalSubject, definition_of, shown_to_approvers
from gateway.calls.consent.credential_scan import check_no_credential
from gateway.storage.database import Batch
from gateway.tasks.log import TaskNotWaiting, TaskRecord, TaskRow, to_rfc3339
from gateway.tasks.turns.recorder import TurnRecorder, TurnState
from gateway.tasks.turns.stores import TaskStores
from policies.audit.log import decision_record
from policies.authority import RulingRequest, requester_of
from policies.callers import Caller
from policies.delegation import approval_rows
from policies.delegation.approval import Approval, ExactContent, NotShowable
from policies.delegation.rulings import Act, Grant, Question
from policies.tables import approvals
from registry.cards.card import Registration
from registry.drift.pins import pin_hash

BATCH_SIZE = 100
_CLOSE_APPROVAL = "UPDATE approvals SET state = ?, closed = ? WHERE tenant = ? AND id = ? AND closed IS NULL"


class AwaitsApproval(TaskNotWaiting):
    """The task waits for an approval, and no message can replace that."""


@dataclass(frozen=True, slots=True)
class ApprovalMessage:
    """The message that a paused task will send, and its options: skill, accepted output modes, metadata."""

    message: Message
    send_options: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class PausedTask:
    """A task to pause. `previous` is the task before; None for a new one. `message` is for the log, `approval_message` for the agent."""

    row: TaskRow
    previous: TaskRow | None
    message: Message
    target: Registration
    approval_message: ApprovalMessage
    extra_write: Callable[[Batch], None] | None


@dataclass(frozen=True, slots=True)
class DecidedTask:
    """A paused task whose approval was decided or has expired."""

    approval: Approval
    grant_id: str
    send_options: Mapping[str, Any]
    arguments: str
    arguments_hash: str


class TaskPausing:
    """Pauses tasks. A paused task is a row with the grant that it will continue under; the process holds nothing in memory for it."""

    def __init__(self, authorizer: CallAuthorizer, stores: TaskStores, turns: TurnRecorder) -> None:
        self._authorizer = authorizer
        self._stores = stores
        self._turns = turns
        self._approval_requests = ApprovalRequests(stores)
        self._after_approval_id = ""  # the last approval of the previous batch, if more may follow

    async def pause(self, caller: Caller, paused_task: PausedTask, request: RulingRequest, question: Question) -> TurnState:
        """Records the paused task with the request for approval, and returns its state (A2A 1.0 s7.6).

        The task gets a grant row with the caller's own authority, under which it is ruled on again after the approval.

        Raises CallRefused, TooManyQuestions, IdempotencyKeyUsed and TaskNotWaiting.
        """
        definition = definition_of(paused_task.target, request.act)
        try:
            content = shown_to_approvers(
                request.arguments if request.arguments is not None else members_to_approve(paused_task.approval_message), definition
            )
        except NotShowable:
            raise await self._authorizer.record_refusal(caller, denial_of(question, "approval-too-large")) from None
        await self._approval_requests.check_pending_limit(requester_of(caller, request))
        delegation = caller.delegation.with_ids(self._stores.new_id("g"), paused_task.row.id, paused_task.row.txn)
        subject = ApprovalSubject(caller, request, content, definition, delegation.grant_id, paused_task.approval_message.send_options)
        approval_question, pending, approval = self._approval_requests.new_request(question, subject)
        text = (
            f"{pending.punctuated_prompt} Approval {pending.id} waits for an approver until {to_rfc3339(pending.expires)}. "
            "After the approval the task continues by itself; a message cannot replace the approval."
        )
        row = msgspec.structs.replace(paused_task.row, decision_id=approval_question.decision.id, grant_id=delegation.grant_id)
        opened = self._turns.transitions.paused_events(paused_task.previous, row, paused_task.message, text)
        stores, approval_requests, record = (
            self._stores,
            self._approval_requests,
            decision_record(approval_question.decision, caller.principal),
        )

        def work(batch: Batch) -> None:
            stores.audit.record(batch, record)
            stores.grants.add(batch, delegation, caller.delegation.grant_id, approval_question.decision.at)
            approval_requests.write(batch, approval)
            if paused_task.previous:
                stores.tasks.advance(batch, paused_task.previous, opened.row, opened.events)
            else:
                stores.tasks.open(batch, opened.row, opened.events)
            if paused_task.extra_write:
                paused_task.extra_write(batch)

        await commit_opening(stores, work, opened)
        if paused_task.previous is None:
            return opened
        record_now = await stores.tasks.read_record(row.tenant, row.owner, row.id)
        return TurnState(record_now.row, record_now.events)

    async def decided_tasks(self) -> list[DecidedTask]:
        """Returns up to BATCH_SIZE tasks whose approval is decided or expired; the next call continues after them.

        Several processes may get the same task; the resumption lets one of them have it.
        """
        now = self._stores.now()
        is_decided = (approvals.c.state != "pending") | (approvals.c.expires <= now)
        conditions = (approvals.c.closed.is_(None), approvals.c.grant_id != "", approvals.c.id > self._after_approval_id, is_decided)
        query = select(approvals).where(*conditions).order_by(approvals.c.id).limit(BATCH_SIZE)

        def due(row: "Row[Any]", approval: Approval) -> DecidedTask:
            if approval.expires <= now and approval.state in ("pending", "approved"):
                approval = msgspec.structs.replace(approval, state="expired")
            return DecidedTask(approval, row.grant_id, json.loads(row.errand), row.arguments, row.arguments_hash)

        found = await self._stores.database.read(
            lambda connection: [due(row, approval_rows.approval_from_row(connection, row)) for row in connection.execute(query).all()]
        )
        self._after_approval_id = found[-1].approval.id if len(found) == BATCH_SIZE else ""
        return found

    async def check_answerable(self, row: TaskRow, message: Message) -> None:
        """Raises AwaitsApproval if the task waits for an approval, and BadMessage if the message holds a credential."""
        if row.state is not TaskState.AUTH_REQUIRED:
            return
        check_no_credential(message)
        of_task = (approvals.c.tenant == row.tenant) & (approvals.c.grant_id == row.grant_id) & (approvals.c.task_id == row.id)
        query = select(approvals.c.id).where(of_task, approvals.c.closed.is_(None), approvals.c.grant_id != "")
        if await self._stores.database.read(lambda connection: connection.execute(query).first()) is not None:
            raise AwaitsApproval

    async def with_earlier_approval(
        self, caller: Caller, ruling_request: RulingRequest, target: Registration, row: TaskRow
    ) -> RulingRequest:
        """Returns the ruling request with the approval that the task's first attempt used, if that approval still holds."""
        return await self._approval_requests.with_earlier_approval(caller, ruling_request, target, row.decision_id)

    async def return_approval(self, grant: Grant) -> None:
        """Makes the approval of a call usable again, because the call was not sent."""
        if grant.decision.approval:
            tenant = grant.delegation.principal.tenant
            await self._stores.database.write(lambda batch: approval_rows.mark_unused(batch, tenant, grant.decision))

    def resumed_state(self, old: TaskRow, new: TaskRow) -> TurnState:
        """Returns the state of a task that resumes. Writes nothing."""
        return self._turns.transitions.resumed_state(old, new)

    async def reject_and_close(self, decided_task: DecidedTask, record: TaskRecord, problem: str) -> None:
        """Rejects the task and closes its approval."""
        await self.reject(TurnState(record.row, record.events), Failed(problem, rejected=True))
        await self.close_approval(decided_task)

    async def reject(self, paused: TurnState, failure: Failed) -> None:
        """Ends a task that cannot continue."""
        await self._turns.end_task(paused, failure)

    def with_consent_grant(self, caller: Caller, row: TaskRow) -> tuple[TaskRow, Callable[[Batch], None]]:
        """Returns the row with a new grant, and the write of the grant. A task that waits for a consent is resumed under it."""
        delegation = caller.delegation.with_ids(self._stores.new_id("g"), row.id, row.txn)
        write_grant = partial(self._stores.grants.add, delegation=delegation, parent_id="", now_us=row.updated)
        return msgspec.structs.replace(row, grant_id=delegation.grant_id), write_grant

    async def close_approval(self, decided_task: DecidedTask) -> None:
        """Closes the approval: denied and expired ones as such, any other as void."""
        state = decided_task.approval.state if decided_task.approval.state in ("denied", "expired") else "void"
        where, now = (decided_task.approval.requester.tenant, decided_task.approval.id), self._stores.now()
        await self._stores.database.write(lambda batch: batch.run(_CLOSE_APPROVAL, (state, now, *where)))


def members_to_approve(approval_message: ApprovalMessage) -> dict[str, Any]:
    """Returns the members of a message that approvers see: its content and options, no ids."""
    members = msgspec.json.decode(encode(approval_message.message))
    return {
        "message": {name: members[name] for name in ("parts", "metadata", "extensions") if name in members},
        **approval_message.send_options,
    }


def shown_exactly(decided_task: DecidedTask, target: Registration, act: Act) -> ExactContent:
    """Returns the exact content that approvers saw, with the current hash of the target's definition."""
    return ExactContent(decided_task.arguments, decided_task.arguments_hash, pin_hash(definition_of(target, act)))


def last_message(record: TaskRecord) -> Message:
    """Returns the last message that was sent to the task."""
    return next(event.message for event in reversed(record.events) if event.kind == "message")


def outcome_text(approval: Approval) -> str:
    """Returns the reason why the task ends, for its status message."""
    if approval.state == "denied":
        return f"Denied by an approver: {approval.reason}" if approval.reason else "Denied by an approver."
    return "No approver allowed it in time."
