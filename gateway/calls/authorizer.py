"""The ledger: asks for a ruling, keeps it before anything follows from it, and makes the Call that a Grant allows."""

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import structlog
from msgspec.structs import replace
from sqlalchemy.exc import IntegrityError

from adapters.contract import Call
from gateway.calls.consent.approval_requests import Asking, Matter, Pending, beside, defined, shown
from gateway.calls.limits.deadlines import from_loop
from gateway.calls.outgoing.builder import Calls
from gateway.calls.outgoing.upstreams import Adapters, Outside, ToolServers, Trail
from gateway.calls.revocation.spool import Spool
from gateway.storage.database import Batch, NotKept
from gateway.tasks.log import KeyUsed, TaskEnded, TaskRow
from gateway.tasks.turns.store import Memory, Turned
from policies.audit.log import decision_record
from policies.authority import Authority, Request, errand_of
from policies.callers import Caller
from policies.delegation.approval import NotShowable
from policies.delegation.approval_rows import ApprovalGone, use
from policies.delegation.chain import Hop
from policies.delegation.history import FOLLOW, HIGHEST, STOP, HistoryMoved, leave
from policies.delegation.rulings import Act, Decision, Denial, Grant, Question, Ruling
from policies.tokens.hop_tokens import HopTokens
from policies.tokens.tickets import TICKET, keep_ticket
from policies.tokens.verifier import TokenRefused
from registry.cards.card import Registration

__all__ = ["Adapters", "ApprovalNeeded", "Ledger", "Outside", "Refused", "ToolServers", "Trail", "denied", "kept_opening", "while_moving"]
T = TypeVar("T")
InPerson = Callable[[Caller, Act], Awaitable[None]]
"""Raises Refused where an agent asks for what only the person does (gateway/server/composition/authorization.py)."""
TRIES = 100  # to rule on an act whose errand goes on meanwhile
BUSY = "the errand went on again and again meanwhile"
log = structlog.get_logger()


class Refused(Exception):
    """The ruling was not a Grant. It is kept; `ruling.decision` explains it."""

    def __init__(self, ruling: Denial | Question) -> None:
        super().__init__(ruling.decision.reason_id)
        self.ruling = ruling


class ApprovalNeeded(Refused):
    """People have to allow the act first. They are asked; the same call goes through once when they have."""

    def __init__(self, ruling: Question, pending: Pending) -> None:
        super().__init__(ruling)
        self.pending = pending


class Ledger:
    """Decisions and what hangs on them. Nothing leaves before the record of why it may is durable."""

    def __init__(self, authority: Authority, tokens: HopTokens, memory: Memory, outside: Outside, spool: Spool) -> None:
        self._authority = authority
        self.calls = Calls(tokens, memory, outside)
        self._memory = memory
        self._outside = outside
        self._spool = spool
        self._asking = Asking(memory)

    async def kept(self, caller: Caller, request: Request, target: Registration | None = None, sent: bytes = b"") -> Grant:
        """The Grant, kept. `target` and `sent` as for `granted`. Raises Refused, but not for what only stops the caller's own."""
        if request.act.verb == STOP:
            await self.keep_or_spool(grant := self.stopping(caller, request))
            return grant
        for _ in range(TRIES):
            grant = await self.granted(caller, request, target, sent)
            try:
                await self.keep(grant)
            except HistoryMoved:
                continue
            except ApprovalGone:
                request = replace(request, terms=replace(request.terms, named=grant.decision.approval))
                continue
            return grant
        raise NotKept(BUSY)

    async def granted(self, caller: Caller, request: Request, target: Registration | None = None, sent: bytes = b"") -> Grant:
        """The Grant, not kept yet. Any other ruling is kept, and raised as Refused.

        `target`: whose act people can be asked about; where that may be, they are, unless they said something before. `sent`: the
        parameters that it will get.
        """
        request, ruling = await self.ruled(caller, request)
        if not isinstance(ruling, Grant) and request.act.verb == FOLLOW:
            approved = await self._asking.of_what_was_begun(caller, request)
            ruling = self._authority.rule(caller, approved) if approved is not None else ruling
        if isinstance(ruling, Grant):
            return ruling
        if isinstance(ruling, Question):
            if target is None or request.arguments is None or request.act.verb == FOLLOW:
                raise await self.refusal(caller, denied(ruling, "policy-forbids"))
            return await self._allowed(caller, request, ruling, (target, sent))
        raise await self.refusal(caller, ruling)

    async def ruling(self, caller: Caller, request: Request) -> Grant | Question:
        """What the authority says, not kept yet. A denial is kept, and raised as Refused."""
        _, ruling = await self.ruled(caller, request)
        if isinstance(ruling, Denial):
            raise await self.refusal(caller, ruling)
        return ruling

    async def refusal(self, caller: Caller, ruling: Denial | Question) -> Refused:
        """Keeps a ruling that is not a Grant; returns what to raise."""
        record = decision_record(ruling.decision, caller.principal)
        _log_refusal(ruling.decision)
        await self._memory.database.write(lambda batch: self._memory.audit.append(batch, record))
        return Refused(ruling)

    async def ruled(self, caller: Caller, request: Request) -> tuple[Request, Ruling]:
        """What the authority says, with what the errand did before where a policy asks for that. Nothing is kept."""
        if self._authority.recalls(request.act) or request.terms.clearance < HIGHEST:
            request = await _recalled(self._authority, self._asking, caller, request)
        return request, self._authority.rule(caller, request)

    async def _allowed(self, caller: Caller, request: Request, question: Question, goes: tuple[Registration, bytes]) -> Grant:
        """The Grant that people's approval makes of a question. `goes`: to whom, and the parameters as sent.

        Answers to what the server asked meanwhile are part of nothing that people were shown; they go with the approval that the call
        before them used, and with no other. Raises ApprovalNeeded, and Refused when they said no.
        """
        errand, definition = errand_of(caller, request), defined(goes[0], request.act)
        begun = await self._asking.begun(errand, request.terms.begun) if request.terms.begun else None
        try:
            what = shown(request.arguments or {}, definition, beside(request.act, goes[1], answers=begun is None))
        except NotShowable:
            raise await self.refusal(caller, denied(question, "approval-too-large")) from None
        approval = begun[0] if begun else await self._asking.said(errand, request, what)
        if approval is not None or request.terms.named:
            request = replace(request, terms=replace(request.terms, exact=what, approval=approval))
            ruling = self._authority.rule(caller, request)
            if isinstance(ruling, Grant):
                return ruling
            if isinstance(ruling, Denial):
                raise await self.refusal(caller, ruling)
            if approval is not None and approval.state == "pending" and approval.needed >= ruling.needed:
                again = Question(replace(ruling.decision, approval=approval.id), approval.prompt, approval.needed)
                await self.refusal(caller, again)
                raise ApprovalNeeded(again, Pending(approval.id, approval.prompt, approval.expires, approval.needed))
        await self._asking.check_room(errand)
        asked, pending, row = self._asking.posed(question, Matter(caller, request, what, definition))
        await _pose(self._memory, self._asking, caller, asked, row)
        raise ApprovalNeeded(asked, pending)

    def stopping(self, caller: Caller, request: Request, callee: Hop | None = None) -> Grant:
        """The Grant to have a task stopped that is the caller's own, not kept yet. Raises CannotNarrow."""
        return self._authority.stopping(caller, request, callee)

    async def keep_or_spool(self, grant: Grant, call: Call | None = None) -> None:
        """As `keep`, for an act that only reduces authority: it goes on when nothing can be kept now, and is kept later."""
        try:
            await self.keep(grant, call)
        except NotKept:
            await self._spool.put(decision_record(grant.decision, grant.delegation.principal))

    def sees(self, caller: Caller, act: Act) -> bool:
        """Whether the caller may know of the resource at all."""
        return self._authority.sees(caller, act)

    async def keep(self, grant: Grant, call: Call | None = None) -> None:
        """Keeps a Grant that opens no task, with the row that a hop token or ticket made from it points to."""
        memory, decision = self._memory, grant.decision
        record = decision_record(decision, grant.delegation.principal)
        left = grant.delegation if call is None else grant.delegation.until(from_loop(call.deadline, memory.now()))

        def work(batch: Batch) -> None:
            _settle(batch, grant)
            memory.audit.append(batch, record)
            if left.grant_id != decision.grant_id:
                memory.grants.add(batch, left, decision.grant_id, decision.at)
                _keep_ticket(batch, call, decision.at)

        await memory.database.write(work)

    async def open(self, call: Call, opened: Turned, before: TaskRow | None, also: Callable[[Batch], None] | None = None) -> None:
        """Keeps the decision, the grant with its ticket, the task with its first events and what `also` adds, in one commit.

        Raises KeyUsed, and HistoryMoved or ApprovalGone when it has to be ruled on again.
        """
        memory, row, grant = self._memory, opened.row, call.grant
        record = decision_record(grant.decision, grant.delegation.principal)
        left = grant.delegation.until(from_loop(call.deadline, memory.now()))

        def work(batch: Batch) -> None:
            _settle(batch, grant)
            memory.audit.append(batch, record)
            if left.grant_id != grant.decision.grant_id:  # a tool is called with the caller's own
                memory.grants.add(batch, left, grant.decision.grant_id, row.updated)
                _keep_ticket(batch, call, row.updated)
            if before:
                memory.tasks.advance(batch, before, row, opened.events)
            else:
                memory.tasks.open(batch, row, opened.events)
            if also:
                also(batch)

        await kept_opening(memory, work, opened, before)

    def post_outcome(self, grant: Grant, outcome: str) -> None:
        """Records how a call without a task went; nobody waits for it."""
        decision = grant.decision
        record = {
            "kind": "outcome",
            "tenant": grant.delegation.principal.tenant,
            "decision_id": decision.id,
            "txn": decision.txn,
            "task_id": decision.task_id,
            "outcome": outcome,
            "duration_us": self._memory.now() - decision.at,
        }
        self._memory.database.post(lambda batch: self._memory.audit.append(batch, record))


async def _recalled(authority: Authority, asking: Asking, caller: Caller, request: Request) -> Request:
    """With what its errand did before. An act that answers a question of one that was counted then is not counted again."""
    recalls = authority.recalls(request.act)
    request = await asking.recalled(caller, request, recalls)
    history = request.terms.history
    if not recalls or history is None or not request.terms.begun or request.act.verb:
        return request
    is_open = await asking.is_open(errand_of(caller, request), authority.step(request))
    return authority.uncounted(request, history) if is_open else request


async def _pose(memory: Memory, asking: Asking, caller: Caller, asked: Question, row: dict[str, Any]) -> None:
    record = decision_record(asked.decision, caller.principal)
    _log_refusal(asked.decision)

    def work(batch: Batch) -> None:
        memory.audit.append(batch, record)
        asking.keep(batch, row)

    await memory.database.write(work)


def _keep_ticket(batch: Batch, call: Call | None, now_us: int) -> None:
    """With the grant that it stands for, where the agent is handed one."""
    if call is not None and call.target.delegation == "ticket" and TICKET in call.headers:
        keep_ticket(batch, call.headers[TICKET], call.grant.delegation, now_us)


async def while_moving(attempt: Callable[[], Awaitable[T]]) -> T:
    """What `attempt` comes to, which rules anew each time that its errand went on meanwhile, or its approval went.

    Raises NotKept when that does not end.
    """
    for _ in range(TRIES):
        try:
            return await attempt()
        except (HistoryMoved, ApprovalGone):
            continue
    raise NotKept(BUSY)


def _settle(batch: Batch, grant: Grant) -> None:
    """Uses what the Grant depends on, and leaves its mark. Raises HistoryMoved, ApprovalGone."""
    decision, tenant = grant.decision, grant.delegation.principal.tenant
    if decision.approval:
        use(batch, tenant, decision)
    if grant.mark is not None and decision.txn:
        leave(batch, (tenant, decision.txn), grant.mark, decision.at)


def denied(question: Question, reason_id: str) -> Denial:
    """A question that nobody can be asked."""
    return Denial(replace(question.decision, reason_id=reason_id))


async def kept_opening(memory: Memory, work: Callable[[Batch], None], opened: Turned, before: TaskRow | None) -> None:
    """Runs `work`, which keeps the first events of a task or its next ones, and tells whoever follows it. Raises KeyUsed."""
    row = opened.row
    try:
        await memory.database.write(work)
    except TaskEnded:
        if before:
            raise
        raise TokenRefused("grant-ended") from None
    except IntegrityError as error:
        raise (NotKept("an id was taken") if row.idempotency_key is None else KeyUsed()) from error
    memory.tasks.moved(row, opened.events)


def _log_refusal(decision: Decision) -> None:
    """For the operator, who sees why things do not work before anybody asks; the audit has the whole story."""
    log.info(
        "refused",
        decision_id=decision.id,
        reason_id=decision.reason_id,
        principal=decision.principal,
        chain=[link.agent for link in decision.chain],
        permission=decision.act.permission,
        missing=decision.missing,
        policies=decision.policies,
        **({"problem": decision.problem} if decision.problem else {}),
        task_id=decision.task_id,
    )
