"""Asking people about one act: what they are shown, what they said before, and the history that a ruling may depend on."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace
from sqlalchemy import Connection, func, select

from adapters.mcp_client.wire.messages import CAPABILITIES_KEY, LEVEL_KEY, META, VERSION_KEY
from gateway.storage.database import Batch
from gateway.tasks.turns.store import Memory
from policies.authority import Request, errand_of
from policies.callers import Caller
from policies.delegation import approval_rows
from policies.delegation.approval import Approval, Errand, Exact, described, exact
from policies.delegation.approval import shown as shown_arguments
from policies.delegation.history import FOLLOW, History, Step, glance, is_open, recall
from policies.delegation.rulings import Act, Question
from policies.delegation.terms import PLAIN, Terms
from policies.tables import approvals
from registry.cards.card import CLEARANCE_MAX, Registration
from registry.drift.pins import pin

PENDING_MAX = 50  # questions of one person that wait for somebody
_ANSWERS = ("requestState", "inputResponses")  # MCP 2026-07-28: of a request that goes on
_CLIENTS = (VERSION_KEY, CAPABILITIES_KEY, LEVEL_KEY, f"{META}clientInfo", "dev.interlock/approval")  # other names may say anything
_NOT_SHOWN = frozenset({"progressToken", "traceparent", "tracestate", "baggage", *_CLIENTS})  # where they are terse
_WORDS_MAX = 32  # in one of them
_WORD = re.compile(r"[!-~]{0,64}")
_encode = msgspec.json.Encoder().encode
_params = msgspec.json.Decoder(dict[str, Any]).decode


class TooManyQuestions(Exception):
    """As many questions of one person wait for somebody as may."""


class Pending(Struct, frozen=True):
    """A question that people have been asked. `expires` in microseconds."""

    id: str
    prompt: str
    expires: int
    needed: int
    state: str = "pending"

    @property
    def sentence(self) -> str:
        """The question with a mark at its end, so that other sentences can follow."""
        return self.prompt if self.prompt.endswith((".", "!", "?", "…")) else f"{self.prompt}."


@dataclass(frozen=True, slots=True)
class Matter:
    """What people are asked about. `definition`: of the tool, prompt or agent. `grant_id`: what a kept task goes on with."""

    caller: Caller
    request: Request
    what: Exact
    definition: Mapping[str, Any]
    grant_id: str = ""
    errand: Mapping[str, Any] | None = None


def terms_of(target: Registration, act: Act, named: str = "") -> Terms:
    """What a ruling on a call of `target` has to know beside the act. `named`: an approval that the caller means."""
    if not named and not target.sensitivity and not target.sensitivities and target.clearance == CLEARANCE_MAX:
        return PLAIN
    return Terms(target.sensitivity_of(_own_name(act)), target.clearance, named=named)


def defined(target: Registration, act: Act) -> Mapping[str, Any]:
    """The definition that is approved along with a call: a tool's, a prompt's, or the agent's card."""
    if act.kind == "Agent":
        return target.card.document if target.card is not None else {}
    offered = target.tools if act.kind == "Tool" else target.prompts if act.kind == "Prompt" else ()
    return next((one.definition for one in offered if one.name == _own_name(act)), {"url": target.url})


def _own_name(act: Act) -> str:
    """Of a tool or a prompt, as its server calls it."""
    return act.resource.removeprefix(f"{act.parent}.")


def shown(arguments: Mapping[str, Any], definition: Mapping[str, Any], beside: Mapping[str, Any] | None = None) -> Exact:
    """Raises NotShowable."""
    return exact(arguments, pin(definition), beside)


def beside(act: Act, params: bytes, answers: bool) -> dict[str, Any]:
    """What is sent to a server along with the arguments of an act, as its client wrote it; with `answers`, those to questions too.

    Left out is what the act and its arguments say already, and what protocol and gateway say of the client and the trace, in so far as
    no sentence fits in it.
    """
    given: dict[str, Any] = _params(params) if params else {}
    told = ("uri",) if act.action == "readResource" else ("name", "arguments")
    found = {name: one for name, one in given.items() if name not in (*told, "_meta", *(() if answers else _ANSWERS))}
    meta = {name: one for name, one in given.get("_meta", {}).items() if name not in _NOT_SHOWN or not _terse(one)}
    return {**found, "_meta": meta} if meta else found


def _terse(said: Any) -> bool:
    """Whether it has a few short words without blanks, such as the names of capabilities, and no others."""
    words = list(_words(said))
    return len(words) <= _WORDS_MAX and all(_WORD.fullmatch(word) for word in words)


def _words(said: Any) -> Iterator[str]:
    """The texts and the names of members, at any depth."""
    if isinstance(said, str):
        yield said
    elif isinstance(said, dict | list):
        for one in (*said, *said.values()) if isinstance(said, dict) else said:
            yield from _words(one)


class Asking:
    """Reads and writes for the ledger."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory

    async def recalled(self, caller: Caller, request: Request, whole: bool) -> Request:
        """The request with the history of its errand: all of it, or what one row tells. A person's own call begins an errand."""
        errand = errand_of(caller, request)
        history = History()
        if errand.txn:
            look = recall if whole else glance
            history = await self._memory.database.read(lambda connection: look(connection, errand.tenant, errand.txn))
        if request.act.verb == FOLLOW:
            history = history.before(request.act.permission, request.arguments or {})
        terms = request.terms if request.terms is not PLAIN else Terms()
        return replace(request, terms=replace(terms, history=history))

    async def is_open(self, errand: Errand, step: Step) -> bool:
        """Whether an act may go on from that without being counted again. To be asked after `recalled`."""
        return bool(errand.txn) and await self._memory.database.read(
            lambda connection: is_open(connection, errand.tenant, errand.txn, step)
        )

    async def said(self, errand: Errand, request: Request, what: Exact) -> Approval | None:
        """The approval that the caller names, or else the newest that is about this very act and still good."""
        now, named = self._memory.now(), request.terms.named

        def work(connection: Connection) -> Approval | None:
            if named:
                return approval_rows.find(connection, errand.tenant, named)
            found = approval_rows.matching(connection, errand.tenant, errand.owner, what.arguments_hash)
            return next((one for one in found if not one.unfit(errand, request.act.permission, what, now)), None)

        return await self._memory.database.read(work)

    async def begun(self, errand: Errand, decision_id: str) -> tuple[Approval, Exact] | None:
        """The approval that a decision used, of which nothing has come so far, and what was shown."""
        return await self._memory.database.read(lambda connection: approval_rows.used_by(connection, errand, decision_id))

    async def of_what_was_begun(self, caller: Caller, request: Request) -> Request | None:
        """One about what an approved call has begun, which says nothing of its arguments: they are those that were approved."""
        found = await self.begun(errand_of(caller, request), request.terms.begun)
        if found is None:
            return None
        approval, what = found
        terms = replace(request.terms, exact=what, approval=approval.lasting())
        return replace(request, arguments=shown_arguments(what.arguments), terms=terms)

    async def carried(self, caller: Caller, request: Request, target: Registration, decision_id: str) -> Request:
        """A request that had to wait for something else when `decision_id` had allowed it: with the approval that was used, if it holds."""
        errand = errand_of(caller, request)
        found = await self.begun(errand, decision_id)
        if found is None:
            return request
        approval, what = found
        definition = defined(target, request.act)
        what = replace(what, definition=pin(definition)) if request.arguments is None else shown(request.arguments, definition)
        if approval.unfit(errand, request.act.permission, what, self._memory.now(), decision_id):
            return request  # people are asked again
        return replace(request, terms=replace(request.terms, exact=what, approval=approval, begun=decision_id))

    async def check_room(self, errand: Errand) -> None:
        """Raises TooManyQuestions."""
        now = self._memory.now()
        await self._memory.database.read(lambda connection: _check_room(connection, errand.tenant, errand.owner, now))

    def posed(self, question: Question, matter: Matter) -> tuple[Question, Pending, dict[str, Any]]:
        """The question under the id of its approval, as callers see that, and its row."""
        decision = replace(question.decision, approval=self._memory.new_id("ap"))
        errand, request = errand_of(matter.caller, matter.request), matter.request
        expires = decision.at + question.seconds * 1_000_000
        if matter.grant_id:
            expires = min(expires, int(matter.caller.delegation.not_after * 1_000_000))
        row = {
            "tenant": errand.tenant,
            "id": decision.approval,
            "owner": errand.owner,
            "txn": errand.txn,
            "task_id": errand.task_id,
            "grant_id": matter.grant_id,
            "decision_id": decision.id,
            "act": _encode(msgspec.structs.asdict(request.act)).decode(),
            "chain": _encode(errand.chain).decode(),
            "definition": matter.what.definition,
            "arguments_hash": matter.what.arguments_hash,
            "arguments": matter.what.arguments,
            "described": described(matter.definition),
            "policies": _encode(decision.policies).decode(),
            "prompt": question.prompt,
            "needed": question.needed,
            "created": decision.at,
            "expires": expires,
            "errand": _encode(matter.errand or {}).decode() if matter.grant_id else matter.what.beside or "{}",
        }
        asked = Question(decision, question.prompt, question.needed, question.seconds)
        return asked, Pending(decision.approval, question.prompt, expires, question.needed), row

    def keep(self, batch: Batch, row: dict[str, Any]) -> None:
        """Raises TooManyQuestions: whoever asked at the same moment may have come first."""
        _check_room(batch.connection, row["tenant"], row["owner"], row["created"])
        approval_rows.keep(batch, row)


def _check_room(connection: Connection, tenant: str, owner: str, now: int) -> None:
    mine = (approvals.c.tenant == tenant) & (approvals.c.owner == owner) & (approvals.c.state == "pending")
    query = select(func.count()).where(mine, approvals.c.expires > now)
    if connection.execute(query).scalar_one() >= PENDING_MAX:
        raise TooManyQuestions
