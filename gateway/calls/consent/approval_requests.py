"""Asking people about one act: what they are shown, what they said before, and the history that a ruling may depend on."""

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
from gateway.tasks.turns.store import TaskStores
from policies.authority import RulingRequest, requester_of
from policies.callers import Caller
from policies.delegation import approval_rows
from policies.delegation.approval import Approval, ExactContent, Requester, description_of, exact_content_of
from policies.delegation.approval import decode_arguments as shown_arguments
from policies.delegation.history import VERB_FOLLOW_TASK, History, PriorAct, can_continue_from, read_history, read_totals
from policies.delegation.rulings import Act, Question
from policies.delegation.terms import DEFAULT_TERMS, Terms
from policies.tables import approvals
from registry.cards.card import CLEARANCE_MAX, Registration
from registry.drift.pins import pin_hash

PENDING_MAX = 50  # questions of one person that wait for somebody
_ANSWER_MEMBERS = ("requestState", "inputResponses")  # MCP 2026-07-28: of a request that goes on
_CLIENT_META_KEYS = (
    VERSION_KEY,
    CAPABILITIES_KEY,
    LEVEL_KEY,
    f"{META_PREFIX}clientInfo",
    "dev.interlock/approval",
)  # other names may say anything
_HIDDEN_META_KEYS = frozenset({"progressToken", "traceparent", "tracestate", "baggage", *_CLIENT_META_KEYS})  # where they are terse
_WORDS_MAX = 32  # in one of them
_WORD = re.compile(r"[!-~]{0,64}")
_encode = msgspec.json.Encoder().encode
_decode_params = msgspec.json.Decoder(dict[str, Any]).decode


class TooManyQuestions(Exception):
    """As many questions of one person wait for somebody as may."""


class PendingApproval(Struct, frozen=True):
    """A question that people have been asked. `expires` in microseconds."""

    id: str
    prompt: str
    expires: int
    approvals_needed: int
    state: str = "pending"

    @property
    def punctuated_prompt(self) -> str:
        """The question with a mark at its end, so that other sentences can follow."""
        return self.prompt if self.prompt.endswith((".", "!", "?", "…")) else f"{self.prompt}."


@dataclass(frozen=True, slots=True)
class ApprovalSubject:
    """What people are asked about. `definition`: of the tool, prompt or agent. `grant_id`: what a kept task goes on with."""

    caller: Caller
    request: RulingRequest
    content: ExactContent
    definition: Mapping[str, Any]
    grant_id: str = ""
    send_options: Mapping[str, Any] | None = None


def terms_of(target: Registration, act: Act, approval_id: str = "") -> Terms:
    """What a ruling on a call of `target` has to know beside the act. `named`: an approval that the caller means."""
    if not approval_id and not target.sensitivity and not target.sensitivities and target.clearance == CLEARANCE_MAX:
        return DEFAULT_TERMS
    return Terms(target.sensitivity_of(_name_at_server(act)), target.clearance, approval_id=approval_id)


def definition_of(target: Registration, act: Act) -> Mapping[str, Any]:
    """The definition that is approved along with a call: a tool's, a prompt's, or the agent's card."""
    if act.kind == "Agent":
        return target.card.document if target.card is not None else {}
    offered = target.tools if act.kind == "Tool" else target.prompts if act.kind == "Prompt" else ()
    return next((one.definition for one in offered if one.name == _name_at_server(act)), {"url": target.url})


def _name_at_server(act: Act) -> str:
    """Of a tool or a prompt, as its server calls it."""
    return act.resource.removeprefix(f"{act.parent}.")


def shown_to_approvers(
    arguments: Mapping[str, Any], definition: Mapping[str, Any], beside: Mapping[str, Any] | None = None
) -> ExactContent:
    """Raises NotShowable."""
    return exact_content_of(arguments, pin_hash(definition), beside)


def other_request_members(act: Act, params: bytes, include_answers: bool) -> dict[str, Any]:
    """What is sent to a server along with the arguments of an act, as its client wrote it; with `answers`, those to questions too.

    Left out is what the act and its arguments say already, and what protocol and gateway say of the client and the trace, in so far as
    no sentence fits in it.
    """
    given: dict[str, Any] = _decode_params(params) if params else {}
    told = ("uri",) if act.action == "readResource" else ("name", "arguments")
    found = {name: one for name, one in given.items() if name not in (*told, "_meta", *(() if include_answers else _ANSWER_MEMBERS))}
    meta = {name: one for name, one in given.get("_meta", {}).items() if name not in _HIDDEN_META_KEYS or not _is_terse(one)}
    return {**found, "_meta": meta} if meta else found


def _is_terse(value: Any) -> bool:
    """Whether it has a few short words without blanks, such as the names of capabilities, and no others."""
    words = list(_texts_in(value))
    return len(words) <= _WORDS_MAX and all(_WORD.fullmatch(word) for word in words)


def _texts_in(value: Any) -> Iterator[str]:
    """The texts and the names of members, at any depth."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for one in (*value, *value.values()) if isinstance(value, dict) else value:
            yield from _texts_in(one)


class ApprovalRequests:
    """Reads and writes for the ledger."""

    def __init__(self, stores: TaskStores) -> None:
        self._stores = stores

    async def with_history(self, caller: Caller, request: RulingRequest, full: bool) -> RulingRequest:
        """The request with the history of its errand: all of it, or what one row tells. A person's own call begins an errand."""
        errand = requester_of(caller, request)
        history = History()
        if errand.txn:
            look = read_history if full else read_totals
            history = await self._stores.database.read(lambda connection: look(connection, errand.tenant, errand.txn))
        if request.act.verb == VERB_FOLLOW_TASK:
            history = history.without_act(request.act.permission, request.arguments or {})
        terms = request.terms if request.terms is not DEFAULT_TERMS else Terms()
        return replace(request, terms=replace(terms, history=history))

    async def can_continue_from(self, requester: Requester, prior_act: PriorAct) -> bool:
        """Whether an act may go on from that without being counted again. To be asked after `recalled`."""
        return bool(requester.txn) and await self._stores.database.read(
            lambda connection: can_continue_from(connection, requester.tenant, requester.txn, prior_act)
        )

    async def find_matching_approval(self, requester: Requester, request: RulingRequest, content: ExactContent) -> Approval | None:
        """The approval that the caller names, or else the newest that is about this very act and still good."""
        now, named = self._stores.now(), request.terms.approval_id

        def work(connection: Connection) -> Approval | None:
            if named:
                return approval_rows.find(connection, requester.tenant, named)
            found = approval_rows.find_matching(connection, requester.tenant, requester.owner, content.arguments_hash)
            return next((one for one in found if not one.mismatch_reason(requester, request.act.permission, content, now)), None)

        return await self._stores.database.read(work)

    async def used_approval(self, requester: Requester, decision_id: str) -> tuple[Approval, ExactContent] | None:
        """The approval that a decision used, of which nothing has come so far, and what was shown."""
        return await self._stores.database.read(lambda connection: approval_rows.find_used_by(connection, requester, decision_id))

    async def with_approval_of_followed_call(self, caller: Caller, request: RulingRequest) -> RulingRequest | None:
        """One about what an approved call has begun, which says nothing of its arguments: they are those that were approved."""
        found = await self.used_approval(requester_of(caller, request), request.terms.continues_decision_id)
        if found is None:
            return None
        approval, what = found
        terms = replace(request.terms, content=what, approval=approval.for_follow_up())
        return replace(request, arguments=shown_arguments(what.arguments), terms=terms)

    async def with_earlier_approval(self, caller: Caller, request: RulingRequest, target: Registration, decision_id: str) -> RulingRequest:
        """A request that had to wait for something else when `decision_id` had allowed it: with the approval that was used, if it holds."""
        errand = requester_of(caller, request)
        found = await self.used_approval(errand, decision_id)
        if found is None:
            return request
        approval, what = found
        definition = definition_of(target, request.act)
        what = (
            replace(what, definition=pin_hash(definition))
            if request.arguments is None
            else shown_to_approvers(request.arguments, definition)
        )
        if approval.mismatch_reason(errand, request.act.permission, what, self._stores.now(), decision_id):
            return request  # people are asked again
        return replace(request, terms=replace(request.terms, content=what, approval=approval, continues_decision_id=decision_id))

    async def check_pending_limit(self, requester: Requester) -> None:
        """Raises TooManyQuestions."""
        now = self._stores.now()
        await self._stores.database.read(lambda connection: _check_pending_limit(connection, requester.tenant, requester.owner, now))

    def new_request(self, question: Question, subject: ApprovalSubject) -> tuple[Question, PendingApproval, dict[str, Any]]:
        """The question under the id of its approval, as callers see that, and its row."""
        decision = replace(question.decision, approval=self._stores.new_id("ap"))
        errand, request = requester_of(subject.caller, subject.request), subject.request
        expires = decision.at + question.answer_valid_seconds * 1_000_000
        if subject.grant_id:
            expires = min(expires, int(subject.caller.delegation.not_after * 1_000_000))
        row = {
            "tenant": errand.tenant,
            "id": decision.approval,
            "owner": errand.owner,
            "txn": errand.txn,
            "task_id": errand.task_id,
            "grant_id": subject.grant_id,
            "decision_id": decision.id,
            "act": _encode(msgspec.structs.asdict(request.act)).decode(),
            "chain": _encode(errand.chain).decode(),
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
        asked = Question(decision, question.prompt, question.approvals_needed, question.answer_valid_seconds)
        return asked, PendingApproval(decision.approval, question.prompt, expires, question.approvals_needed), row

    def write(self, batch: Batch, row: dict[str, Any]) -> None:
        """Raises TooManyQuestions: whoever asked at the same moment may have come first."""
        _check_pending_limit(batch.connection, row["tenant"], row["owner"], row["created"])
        approval_rows.write_pending(batch, row)


def _check_pending_limit(connection: Connection, tenant: str, owner: str, now: int) -> None:
    mine = (approvals.c.tenant == tenant) & (approvals.c.owner == owner) & (approvals.c.state == "pending")
    query = select(func.count()).where(mine, approvals.c.expires > now)
    if connection.execute(query).scalar_one() >= PENDING_MAX:
        raise TooManyQuestions
