"""Authorization of calls: obtains a ruling and records it before the call is sent."""

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, TypeVar

from msgspec.structs import replace
from sqlalchemy.exc import IntegrityError

from adapters.contract import Call
from gateway.audit.refusal_log import log_refusal
from gateway.calls.consent.approval_requests import (
    ApprovalRequests,
    ApprovalSubject,
    PendingApproval,
)
from gateway.calls.costs.reservations import Reserving, raise_spent, reserve_before
from gateway.calls.outgoing.builder import CallBuilder, to_wall_clock
from gateway.calls.outgoing.unsent import give_back_unsent
from gateway.calls.outgoing.upstreams import Upstreams
from gateway.calls.revocation.spool import Spool
from gateway.state.effects.conflicts import record_conflict
from gateway.state.effects.rulings import rule_on_effect, without_repetition
from gateway.state.effects.states import UNKNOWN
from gateway.state.effects.store import SubjectEffects
from gateway.storage.database import Batch, WriteFailed
from gateway.tasks.log import IdempotencyKeyUsed, ParentTaskEnded, TaskRow
from gateway.tasks.turns.recorder import TurnState
from gateway.tasks.turns.stores import TaskStores
from policies.audit.log import decision_record, outcome_record
from policies.authority import Authority, RulingRequest, requester_of
from policies.callers import Caller
from policies.delegation.approval import Approval, NotShowable
from policies.delegation.approval_rows import ApprovalGone, mark_used
from policies.delegation.chain import Hop
from policies.delegation.history import SENSITIVITY_MAX, VERB_FOLLOW_TASK, VERB_STOP_TASK, HistoryChanged, record_mark
from policies.delegation.rulings import Act, Decision, Denial, Grant, Question, Ruling
from policies.delegation.terms import DEFAULT_TERMS, Terms
from policies.tokens.hop_tokens import HopTokens
from policies.tokens.tickets import TICKET_HEADER, write_ticket
from policies.tokens.verifier import TokenRefused
from registry.cards.card import CLEARANCE_MAX, Registration

T = TypeVar("T")
R = TypeVar("R")
ExtraWrite = Callable[[Batch], None] | None
RequireInPerson = Callable[[Caller, Act], Awaitable[None]]
"""Raises CallRefused if an agent requests an act that is reserved for the person (gateway/server/composition/access/authorization.py)."""
RULING_ATTEMPTS_MAX = 100  # to rule on an act while other acts of its transaction are recorded
HISTORY_BUSY_TEXT = "other acts of the transaction were recorded during every attempt"


class CallRefused(Exception):
    """The ruling is recorded and is not a Grant. `ruling.decision` explains it."""

    def __init__(self, ruling: Denial | Question) -> None:
        super().__init__(ruling.decision.reason_id)
        self.ruling = ruling


class ApprovalNeeded(CallRefused):
    """People must approve the act first. The request for their approval is recorded; after it the same call is allowed once."""

    def __init__(self, ruling: Question, pending: PendingApproval) -> None:
        super().__init__(ruling)
        self.pending = pending


class CallAuthorizer:
    """Rules on acts and records the rulings. Nothing is sent upstream before the record of its Grant is durable.

    The methods differ in what they do with each ruling. A raised ruling is recorded before.

        method                  Grant                   Question            Denial
        rule_only               returned                returned            returned
        rule_or_refuse          returned                returned            recorded, raised
        grant_or_refuse         returned                recorded, raised    recorded, raised
        authorize_and_record    recorded, returned      recorded, raised    recorded, raised

    `record_grant` and `record_task_opening` record a ruling that was returned unrecorded.
    """

    def __init__(self, authority: Authority, hop_tokens: HopTokens, stores: TaskStores, upstreams: Upstreams, spool: Spool) -> None:
        self._authority = authority
        self.call_builder = CallBuilder(hop_tokens, stores, upstreams)
        self._stores = stores
        self._spool = spool
        self._approval_requests = ApprovalRequests(stores)
        self.effects = SubjectEffects(stores.database, stores.now)

    async def authorize_and_record(
        self, caller: Caller, request: RulingRequest, target: Registration | None = None, params: bytes = b"", *, reserve: Reserving = None
    ) -> Grant:
        """Returns the recorded Grant. Stopping the caller's own task needs no permission.

        The parameters mean what they mean for `grant_or_refuse`, and `reserve` is a reservation to take.
        Raises CallRefused, BudgetSpent and WriteFailed.
        """
        if request.act.verb == VERB_STOP_TASK:
            await self.record_or_spool(grant := self.grant_stop(caller, request))
            return grant
        for _ in range(RULING_ATTEMPTS_MAX):
            grant = await self.grant_or_refuse(caller, request, target, params)
            try:
                await self.record_grant(grant, reservation=reserve)
            except HistoryChanged:
                continue
            except ApprovalGone:
                request = replace(request, terms=replace(request.terms, approval_id=grant.decision.approval))
                continue
            return grant
        raise WriteFailed(HISTORY_BUSY_TEXT)

    async def grant_or_refuse(
        self, caller: Caller, request: RulingRequest, target: Registration | None = None, params: bytes = b""
    ) -> Grant:
        """Returns the Grant without recording it. Records any other ruling and raises it as CallRefused.

        With a `target` the gateway may ask people to approve the act, unless an earlier answer applies. `params` are the request's
        parameters as the target will receive them.
        """
        request, ruling = await self.rule_only(caller, request)
        if not isinstance(ruling, Grant) and request.act.verb == VERB_FOLLOW_TASK:
            approved = await self._approval_requests.with_approval_of_followed_call(caller, request)
            ruling = self._authority.rule(caller, approved) if approved is not None else ruling
        if isinstance(ruling, Grant):
            return ruling
        if isinstance(ruling, Denial):
            raise await self.record_refusal(caller, ruling)
        if target is None or request.arguments is None or request.act.verb == VERB_FOLLOW_TASK:
            raise await self.record_refusal(caller, denial_of(ruling, "policy-forbids"))
        try:
            subject, approval = await self._approval_requests.find_approval(caller, request, target, params)
        except NotShowable:
            raise await self.record_refusal(caller, denial_of(ruling, "approval-too-large")) from None
        if (grant := await self._grant_by_approval(subject, approval)) is not None:
            return grant
        raise await self._ask_for_approval(subject, ruling)

    async def rule_or_refuse(self, caller: Caller, request: RulingRequest) -> Grant | Question:
        """Returns the ruling without recording it. Records a denial and raises it as CallRefused."""
        _, ruling = await self.rule_only(caller, request)
        if isinstance(ruling, Denial):
            raise await self.record_refusal(caller, ruling)
        return ruling

    async def record_refusal(self, caller: Caller, ruling: Denial | Question) -> CallRefused:
        """Records a ruling that is not a Grant. Returns the exception to raise."""
        record = _refusal_record(ruling, caller)
        log_refusal(ruling.decision)
        await self._stores.database.write(partial(_write_refusal, self._stores, caller.principal.tenant, ruling.decision, record))
        return CallRefused(ruling)

    async def rule_only(self, caller: Caller, request: RulingRequest) -> tuple[RulingRequest, Ruling]:
        """Returns the request and its ruling, with the history of the transaction if a policy reads it. Records nothing."""
        if self._authority.needs_history(request.act) or request.terms.clearance < SENSITIVITY_MAX:
            request = await _with_history(self._authority, self._approval_requests, caller, request)
        if request.terms.effect is not None:
            return await rule_on_effect(self._authority, self.effects, caller, request, request.terms.effect)
        return request, self._authority.rule(caller, request)

    async def _grant_by_approval(self, subject: ApprovalSubject, approval: Approval | None) -> Grant | None:
        """Returns the Grant for an act that people have approved, or None if they have not been asked.

        Raises CallRefused if people denied the act, and ApprovalNeeded if the approval waits for more votes. Both are recorded.
        """
        caller, request = subject.caller, subject.request
        if approval is None and not request.terms.approval_id:
            return None
        approved = replace(request, terms=replace(request.terms, content=subject.content, approval=approval))
        ruling = without_repetition(request, self._authority.rule(caller, approved))
        if isinstance(ruling, Grant):
            return ruling
        if isinstance(ruling, Denial):
            raise await self.record_refusal(caller, ruling)
        if approval is None or approval.state != "pending" or approval.approvals_needed < ruling.approvals_needed:
            return None
        question = Question(replace(ruling.decision, approval=approval.id), approval.prompt, approval.approvals_needed)
        await self.record_refusal(caller, question)
        raise ApprovalNeeded(question, PendingApproval(approval.id, approval.prompt, approval.expires, approval.approvals_needed))

    async def _ask_for_approval(self, subject: ApprovalSubject, question: Question) -> ApprovalNeeded:
        """Records the question with a request for approval. Returns the exception to raise. Raises TooManyQuestions."""
        await self._approval_requests.check_pending_limit(requester_of(subject.caller, subject.request))
        approval_question, pending, row = self._approval_requests.new_request(question, subject)
        await _record_question(self._stores, self._approval_requests, subject.caller, approval_question, row)
        return ApprovalNeeded(approval_question, pending)

    def grant_stop(self, caller: Caller, request: RulingRequest, callee: Hop | None = None, *, is_own: bool = True) -> Grant:
        """Returns an unrecorded Grant to stop a task of the caller, or one that an operator cancels. Raises CannotNarrow."""
        return self._authority.grant_stop(caller, request, callee, is_own=is_own)

    async def record_or_spool(self, grant: Grant, call: Call | None = None) -> None:
        """Records the Grant of an act that only reduces authority. If the database cannot be written, the record goes to the spool."""
        try:
            await self.record_grant(grant, call)
        except WriteFailed:
            await self._spool.spool_record(decision_record(grant.decision, grant.delegation.principal))

    def can_see(self, caller: Caller, act: Act) -> bool:
        """Returns whether the caller may know that the resource exists."""
        return self._authority.can_see(caller, act)

    async def record_grant(self, grant: Grant, call: Call | None = None, *, reservation: Reserving = None) -> None:
        """Records a Grant that opens no task, with the grant row that a hop token or ticket refers to, and takes its `reservation`.

        Raises BudgetSpent where a budget has no room; then nothing is recorded.
        """
        stores, decision = self._stores, grant.decision
        record = decision_record(decision, grant.delegation.principal)
        delegation = grant.delegation if call is None else grant.delegation.with_deadline(to_wall_clock(call.deadline, stores.now()))

        def work(batch: Batch) -> None:
            write_grant_effects(batch, grant, self.effects)
            stores.audit.record(batch, record)
            if delegation.grant_id != decision.grant_id:
                stores.grants.add(batch, delegation, decision.grant_id, decision.at)
                _write_ticket(batch, call, decision.at)

        is_taken = reservation is not None or grant.effect_mark is not None or bool(decision.approval)
        both = work if reservation is None else reserve_before(work, reservation, grant)
        spent = await stores.database.write(both, partial(give_back_unsent, stores, self.effects, grant) if is_taken else None)
        if spent is not None:
            raise_spent(spent, reservation)

    async def record_task_opening(
        self,
        call: Call,
        opened: TurnState,
        previous: TaskRow | None,
        extra_write: ExtraWrite = None,
        *,
        reservation: Reserving = None,
        on_abandoned: Callable[[], object] | None = None,
    ) -> None:
        """Records the decision, the grant with its ticket, the events that open or resume the task, and `extra_write`, in one commit.

        Takes `reservation` first, or raises BudgetSpent and records nothing. Raises IdempotencyKeyUsed, and HistoryChanged or ApprovalGone
        if the act must be ruled on again. Calls `on_abandoned` if the caller was canceled during the commit.
        """
        stores, row, grant = self._stores, opened.row, call.grant
        record = decision_record(grant.decision, grant.delegation.principal)
        delegation = grant.delegation.with_deadline(to_wall_clock(call.deadline, stores.now()))

        def work(batch: Batch) -> None:
            write_grant_effects(batch, grant, self.effects)
            stores.audit.record(batch, record)
            if delegation.grant_id != grant.decision.grant_id:  # a tool is called under the caller's own grant
                stores.grants.add(batch, delegation, grant.decision.grant_id, row.updated)
                _write_ticket(batch, call, row.updated)
            if previous:
                stores.tasks.advance(batch, previous, row, opened.events)
            else:
                stores.tasks.open(batch, row, opened.events)
            if extra_write:
                extra_write(batch)

        both = work if reservation is None else reserve_before(work, reservation, grant, row.id, delegation.deadline)
        if (spent := await commit_opening(stores, both, opened, on_abandoned)) is not None:
            raise_spent(spent, reservation)

    def record_outcome(self, grant: Grant, outcome: str, effect_state: str = UNKNOWN) -> None:
        """Records the outcome of a call without a task, without waiting for the commit. `effect_state`: how its effect ended."""
        record = outcome_record(grant, outcome, self._stores.now() - grant.decision.at)
        self._stores.database.post(lambda batch: self._stores.audit.record(batch, record))
        if grant.effect_mark is not None:
            self.effects.end_later(grant, effect_state)


def _refusal_record(ruling: Denial | Question, caller: Caller) -> dict[str, Any]:
    """Returns the audit record of a refusal; one that the caller was answered as unknown is marked."""
    is_hidden = isinstance(ruling, Denial) and ruling.is_hidden
    return decision_record(ruling.decision, caller.principal) | ({"hidden": True} if is_hidden else {})


def _write_refusal(stores: TaskStores, tenant: str, decision: Decision, record: Mapping[str, Any], batch: Batch) -> None:
    """Writes the record of a refusal, and the conflict where it rests on facts about a subject."""
    stores.audit.record(batch, record)
    if decision.facts:
        record_conflict(batch, tenant, decision)


async def _with_history(authority: Authority, approval_requests: ApprovalRequests, caller: Caller, request: RulingRequest) -> RulingRequest:
    """Returns the request with the history of its transaction. An act that answers a question of a counted act is not counted again."""
    needs_history = authority.needs_history(request.act)
    request = await approval_requests.with_history(caller, request, needs_history)
    history = request.terms.history
    if not needs_history or history is None or not request.terms.continues_decision_id or request.act.verb:
        return request
    is_open = await approval_requests.can_continue_from(requester_of(caller, request), authority.prior_act_of(request))
    return authority.as_continuation(request, history) if is_open else request


async def _record_question(
    stores: TaskStores, approval_requests: ApprovalRequests, caller: Caller, question: Question, row: dict[str, Any]
) -> None:
    record = decision_record(question.decision, caller.principal)
    log_refusal(question.decision)

    def work(batch: Batch) -> None:
        stores.audit.record(batch, record)
        approval_requests.write(batch, row)

    await stores.database.write(work)


def terms_of(target: Registration, act: Act, approval_id: str = "") -> Terms:
    """Returns what a ruling on a call of `target` needs beside the act. `approval_id` is the approval that the caller names."""
    if not approval_id and not target.sensitivity and not target.sensitivities and target.clearance == CLEARANCE_MAX:
        return DEFAULT_TERMS
    name_at_server = act.resource.removeprefix(f"{act.parent}.")
    return Terms(target.sensitivity_of(name_at_server), target.clearance, approval_id=approval_id)


def _write_ticket(batch: Batch, call: Call | None, now_us: int) -> None:
    """Writes the row of the ticket in the call's headers, if the agent gets one."""
    if call is not None and call.target.delegation == "ticket" and TICKET_HEADER in call.headers:
        write_ticket(batch, call.headers[TICKET_HEADER], call.grant.delegation, now_us)


async def retry_while_history_changes(attempt: Callable[[], Awaitable[T]]) -> T:
    """Returns the result of `attempt`, and repeats it while its transaction's history changes or its approval is gone.

    Raises WriteFailed after RULING_ATTEMPTS_MAX attempts.
    """
    for _ in range(RULING_ATTEMPTS_MAX):
        try:
            return await attempt()
        except (HistoryChanged, ApprovalGone):
            continue
    raise WriteFailed(HISTORY_BUSY_TEXT)


def write_grant_effects(batch: Batch, grant: Grant, effects: SubjectEffects) -> None:
    """Marks the approval as used and records the act in its transaction's history, and what it does to its subject.

    Raises HistoryChanged and ApprovalGone.
    """
    decision, tenant = grant.decision, grant.delegation.principal.tenant
    if decision.approval:
        mark_used(batch, tenant, decision)
    if grant.history_mark is not None and decision.txn:
        record_mark(batch, (tenant, decision.txn), grant.history_mark, decision.at)
    if grant.effect_mark is not None:
        effects.record(batch, grant, grant.effect_mark)


def denial_of(question: Question, reason_id: str) -> Denial:
    """Returns a denial in place of a question that cannot be put to people."""
    return Denial(replace(question.decision, reason_id=reason_id))


async def commit_opening(
    stores: TaskStores, work: Callable[[Batch], R], opened: TurnState, on_abandoned: Callable[[], object] | None = None
) -> R:
    """Runs `work`, which writes the first or the next events of a task, and publishes them to followers.

    Returns what `work` returns; anything but None says that it wrote nothing. Raises IdempotencyKeyUsed, TaskMoved, and TokenRefused if
    the task that caused this one has ended. Calls `on_abandoned` if the caller was canceled during the commit.
    """
    row = opened.row

    def finish_abandoned(refusal: R) -> None:
        if refusal is None:
            stores.tasks.publish(row, opened.events)
            if on_abandoned is not None:
                on_abandoned()

    try:
        refusal = await stores.database.write(work, finish_abandoned)
    except ParentTaskEnded:
        raise TokenRefused("grant-ended") from None
    except IntegrityError as error:
        raise (WriteFailed("an id was taken") if row.idempotency_key is None else IdempotencyKeyUsed()) from error
    if refusal is None:
        stores.tasks.publish(row, opened.events)
    return refusal
