"""Creates approval requests for acts that policies ask about, and finds the approvals and the history that a ruling needs."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace
from sqlalchemy import Connection, func, select

from adapters.mcp_client.wire.messages import CAPABILITIES_KEY, LEVEL_KEY, META_PREFIX, VERSION_KEY
from gateway.storage.database import Batch
from gateway.tasks.log import to_rfc3339
from gateway.tasks.notices.feed import Notice, write_notice
from gateway.tasks.turns.stores import TaskStores
from policies.authority import RulingRequest, requester_of
from policies.callers import Caller
from policies.delegation import approval_rows
from policies.delegation.approval import Approval, ExactContent, Requester, description_of, exact_content_of
from policies.delegation.approval import decode_arguments as shown_arguments
from policies.delegation.history import VERB_FOLLOW_TASK, History, PriorAct, can_continue_from, read_history, read_totals
from policies.delegation.rulings import Act, Question
from policies.delegation.terms import DEFAULT_TERMS, Terms
from policies.tables import approvals
from registry.cards.card import Registration
from registry.drift.pins import pin_hash

PENDING_MAX = 50  # pending approval requests of one user
_ANSWER_MEMBERS = ("requestState", "inputResponses")  # MCP 2026-07-28: members of a request that answers questions
_CLIENT_META_KEYS = (
    VERSION_KEY,
    CAPABILITIES_KEY,
    LEVEL_KEY,
    f"{META_PREFIX}clientInfo",
    "dev.interlock/approval",
)  # only known names: other members can hold any text and are shown
_HIDDEN_META_KEYS = frozenset({"progressToken", "traceparent", "tracestate", "baggage", *_CLIENT_META_KEYS})  # hidden if terse
_WORDS_MAX = 32  # words in one hidden member
_WORD = re.compile(r"[!-~]{0,64}")
_encode = msgspec.json.Encoder().encode
_decode_params = msgspec.json.Decoder(dict[str, Any]).decode


class TooManyQuestions(Exception):
    """The user has PENDING_MAX pending approval requests."""


class PendingApproval(Struct, frozen=True):
    """An approval request that waits for votes. `expires` is in microseconds since 1970."""

    id: str
    prompt: str
    expires: int
    approvals_needed: int
    state: str = "pending"

    @property
    def punctuated_prompt(self) -> str:
        """Returns the prompt with a punctuation mark at its end, so that other sentences can follow."""
        return self.prompt if self.prompt.endswith((".", "!", "?", "…")) else f"{self.prompt}."


@dataclass(frozen=True, slots=True)
class ApprovalSubject:
    """What an approval request is about. `definition` is that of the tool, prompt or agent. `grant_id` is the grant of a paused task."""

    caller: Caller
    request: RulingRequest
    content: ExactContent
    definition: Mapping[str, Any]
    grant_id: str = ""
    send_options: Mapping[str, Any] | None = None


def definition_of(target: Registration, act: Act) -> Mapping[str, Any]:
    """Returns the definition that is approved with a call: that of the tool or prompt, or the agent's card."""
    if act.kind == "Agent":
        return target.card.document if target.card is not None else {}
    offered = target.tools if act.kind == "Tool" else target.prompts if act.kind == "Prompt" else ()
    return next((one.definition for one in offered if one.name == _name_at_server(act)), {"url": target.url})


def _name_at_server(act: Act) -> str:
    """Returns the name of a tool or prompt as its server knows it."""
    return act.resource.removeprefix(f"{act.parent}.")


def shown_to_approvers(
    arguments: Mapping[str, Any], definition: Mapping[str, Any], other_members: Mapping[str, Any] | None = None
) -> ExactContent:
    """Returns the exact content that approvers see. Raises NotShowable."""
    return exact_content_of(arguments, pin_hash(definition), other_members)


def other_request_members(act: Act, params: bytes, include_answers: bool) -> dict[str, Any]:
    """Returns what a request sends to a server beside the act's arguments. With `include_answers`, answers to questions too.

    Left out are the members that the act and its arguments state already. Members of protocol and gateway about client and trace are
    left out too, if their values are terse.
    """
    request_params: dict[str, Any] = _decode_params(params) if params else {}
    shown_members = ("uri",) if act.action == "readResource" else ("name", "arguments")
    found = {
        name: one
        for name, one in request_params.items()
        if name not in (*shown_members, "_meta", *(() if include_answers else _ANSWER_MEMBERS))
    }
    meta = {name: one for name, one in request_params.get("_meta", {}).items() if name not in _HIDDEN_META_KEYS or not _is_terse(one)}
    return {**found, "_meta": meta} if meta else found


def _is_terse(value: Any) -> bool:
    """Returns whether the value has only a few short words without blanks, such as names of capabilities."""
    words = list(_texts_in(value))
    return len(words) <= _WORDS_MAX and all(_WORD.fullmatch(word) for word in words)


def _texts_in(value: Any) -> Iterator[str]:
    """Yields the texts and member names at any depth."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for one in (*value, *value.values()) if isinstance(value, dict) else value:
            yield from _texts_in(one)


class ApprovalRequests:
    """Reads and writes approval requests for the authorizer."""

    def __init__(self, stores: TaskStores) -> None:
        self._stores = stores

    async def with_history(self, caller: Caller, request: RulingRequest, full: bool) -> RulingRequest:
        """Returns the request with the history of its transaction: all acts if `full`, else only the totals.

        A user's own call starts a transaction and has no history.
        """
        requester = requester_of(caller, request)
        history = History()
        if requester.txn:
            look = read_history if full else read_totals
            history = await self._stores.database.read(lambda connection: look(connection, requester.tenant, requester.txn))
        if request.act.verb == VERB_FOLLOW_TASK:
            history = history.without_act(request.act.permission, request.arguments or {})
        terms = request.terms if request.terms is not DEFAULT_TERMS else Terms()
        return replace(request, terms=replace(terms, history=history))

    async def can_continue_from(self, requester: Requester, prior_act: PriorAct) -> bool:
        """Returns whether an act may continue `prior_act` of its transaction without being counted again."""
        return bool(requester.txn) and await self._stores.database.read(
            lambda connection: can_continue_from(connection, requester.tenant, requester.txn, prior_act)
        )

    async def find_approval(
        self, caller: Caller, request: RulingRequest, target: Registration, params: bytes
    ) -> tuple[ApprovalSubject, Approval | None]:
        """Returns what people approve, and the approval of exactly that, if there is one. Raises NotShowable if it is too large to show.

        Answers to a server's elicitation were never shown to approvers. They are valid only under the approval that the call before
        them used.
        """
        requester, definition = requester_of(caller, request), definition_of(target, request.act)
        continued = request.terms.continues_decision_id
        used_approval = await self.used_approval(requester, continued) if continued else None
        others = other_request_members(request.act, params, include_answers=used_approval is None)
        content = shown_to_approvers(request.arguments or {}, definition, others)
        approval = used_approval[0] if used_approval else await self.find_matching_approval(requester, request, content)
        return ApprovalSubject(caller, request, content, definition), approval

    async def find_matching_approval(self, requester: Requester, request: RulingRequest, content: ExactContent) -> Approval | None:
        """Returns the approval that the caller names, else the newest valid approval for exactly this act, else None."""
        now, named = self._stores.now(), request.terms.approval_id

        def work(connection: Connection) -> Approval | None:
            if named:
                return approval_rows.find(connection, requester.tenant, named)
            found = approval_rows.find_matching(connection, requester.tenant, requester.owner, content.arguments_hash)
            return next((one for one in found if not one.mismatch_reason(requester, request.act.permission, content, now)), None)

        return await self._stores.database.read(work)

    async def used_approval(self, requester: Requester, decision_id: str) -> tuple[Approval, ExactContent] | None:
        """Returns the approval that a decision used without a later result, and the content that approvers saw."""
        return await self._stores.database.read(lambda connection: approval_rows.find_used_by(connection, requester, decision_id))

    async def with_approval_of_followed_call(self, caller: Caller, request: RulingRequest) -> RulingRequest | None:
        """Returns a follow-up request with the approval and the arguments of the call that it follows, or None without an approval."""
        found = await self.used_approval(requester_of(caller, request), request.terms.continues_decision_id)
        if found is None:
            return None
        approval, content = found
        terms = replace(request.terms, content=content, approval=approval.for_follow_up())
        return replace(request, arguments=shown_arguments(content.arguments), terms=terms)

    async def with_earlier_approval(self, caller: Caller, request: RulingRequest, target: Registration, decision_id: str) -> RulingRequest:
        """Returns the request of a task that paused after `decision_id` with the approval which that decision used.

        The approval is added only if it still matches the request; otherwise the approvers are asked again.
        """
        requester = requester_of(caller, request)
        found = await self.used_approval(requester, decision_id)
        if found is None:
            return request
        approval, content = found
        definition = definition_of(target, request.act)
        content = (
            replace(content, definition=pin_hash(definition))
            if request.arguments is None
            else shown_to_approvers(request.arguments, definition)
        )
        if approval.mismatch_reason(requester, request.act.permission, content, self._stores.now(), decision_id):
            return request  # the approvers are asked again
        return replace(request, terms=replace(request.terms, content=content, approval=approval, continues_decision_id=decision_id))

    async def check_pending_limit(self, requester: Requester) -> None:
        """Raises TooManyQuestions if the requester has as many pending approval requests as allowed."""
        now = self._stores.now()
        await self._stores.database.read(lambda connection: _check_pending_limit(connection, requester.tenant, requester.owner, now))

    def new_request(self, question: Question, subject: ApprovalSubject) -> tuple[Question, PendingApproval, dict[str, Any]]:
        """Returns the question with the id of its approval, the pending approval for the caller, and its row."""
        decision = replace(question.decision, approval=self._stores.new_id("ap"))
        requester, request = requester_of(subject.caller, subject.request), subject.request
        expires = decision.at + question.answer_valid_seconds * 1_000_000
        if subject.grant_id:
            expires = min(expires, int(subject.caller.delegation.not_after * 1_000_000))
        row = {
            "tenant": requester.tenant,
            "id": decision.approval,
            "owner": requester.owner,
            "txn": requester.txn,
            "task_id": requester.task_id,
            "grant_id": subject.grant_id,
            "decision_id": decision.id,
            "act": _encode(msgspec.structs.asdict(request.act)).decode(),
            "chain": _encode(requester.chain).decode(),
            "definition": subject.content.definition,
            "arguments_hash": subject.content.arguments_hash,
            "arguments": subject.content.arguments,
            "described": description_of(subject.definition),
            "policies": _encode(decision.policies).decode(),
            "prompt": question.prompt,
            "needed": question.approvals_needed,
            "created": decision.at,
            "expires": expires,
            "errand": _encode(subject.send_options or {}).decode() if subject.grant_id else subject.content.other_members or "{}",
        }
        numbered_question = Question(decision, question.prompt, question.approvals_needed, question.answer_valid_seconds)
        return numbered_question, PendingApproval(decision.approval, question.prompt, expires, question.approvals_needed), row

    def write(self, batch: Batch, row: dict[str, Any]) -> None:
        """Writes the row. Raises TooManyQuestions if concurrent requests of the user have reached the bound first."""
        _check_pending_limit(batch.connection, row["tenant"], row["owner"], row["created"])
        approval_rows.write_pending(batch, row)
        body = {"approval": row["id"], "prompt": row["prompt"], "needed": row["needed"], "expires": to_rfc3339(row["expires"])}
        notice = Notice(row["tenant"], "approval.requested", row["id"], row["task_id"], row["owner"], body, row["created"])
        write_notice(batch, notice)


def _check_pending_limit(connection: Connection, tenant: str, owner: str, now: int) -> None:
    own_pending = (approvals.c.tenant == tenant) & (approvals.c.owner == owner) & (approvals.c.state == "pending")
    query = select(func.count()).where(own_pending, approvals.c.expires > now)
    if connection.execute(query).scalar_one() >= PENDING_MAX:
        raise TooManyQuestions
