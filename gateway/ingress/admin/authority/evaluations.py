"""What would be ruled, in the words of AuthZEN 1.0: a subject, an action, a resource, and the context."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gateway.audit.explanations import REASONS
from gateway.calls.consent.approval_requests import terms_of
from gateway.storage.database import Database
from policies.authority import Authority, Request
from policies.callers import Caller, Supposed
from policies.cedar.schema import TYPES
from policies.delegation.chain import Hop
from policies.delegation.history import HIGHEST, History, glance, recall
from policies.delegation.permissions import BadPermission, Permissions, ceiling_of
from policies.delegation.principal import Principal
from policies.delegation.rulings import SERVED, Act, Decision, Denial
from policies.delegation.terms import PLAIN, Terms
from policies.environment import RolesNow
from policies.what_if.acts import named_act
from registry.cards.card import Family, Registration, Status
from registry.store import Registry, UnknownName

CALLED = ("invokeAgent", "callTool", "getPrompt", "readResource")
KINDS: Mapping[str, str] = {kind.lower(): kind for kind in TYPES}


class BadEvaluation(Exception):
    """A question that can't be put; the message says why."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One question. `supposed`: it is about somebody else than whoever asks, or about them with other roles, scopes, agents, or errands.

    `errand`: whose history counts, by its `txn`; empty: one that begins.
    """

    person: Principal
    roles: tuple[str, ...] | None  # None: those of today, as far as we know them
    act: Act
    arguments: Mapping[str, Any] | None
    scope: Permissions
    chain: tuple[str, ...]
    supposed: bool
    errand: str = ""


def asked_of(caller: Caller, given: Mapping[str, Any]) -> Evaluation:
    """Reads one evaluation (AuthZEN 1.0 s5, s6.1). Raises BadEvaluation."""
    subject, context = _entity(given, "subject"), _object(given, "context")
    if subject["type"].lower() != "user":
        raise BadEvaluation("subject.type is user; agents that it goes through are context.chain")
    me, properties = caller.principal, _object(subject, "properties", "subject.")
    person = _person(subject["id"], me)
    own = person.owner == me.owner
    roles = _texts(properties, "roles", "subject.properties.")
    try:
        scope = Permissions.of(_texts(context, "scopes", "context.") or ("*",))
    except BadPermission as error:
        raise BadEvaluation(f"context.scopes: {error}") from error
    arguments = _object(context, "arguments", "context.") if "arguments" in context else None
    chain = _texts(context, "chain", "context.") or ()
    errand, mine = context.get("errand", ""), caller.delegation.txn
    if not isinstance(errand, str):
        raise BadEvaluation("context.errand is a text")
    supposed = not own or roles is not None or "scopes" in context or "chain" in context or errand not in ("", mine)
    known = me.roles if own and roles is None else roles
    return Evaluation(person, known, _act(given), arguments, scope, chain, supposed, errand if supposed else mine)


class Evaluations:
    """Answers questions, by the rules of the doors. Nobody may do anything by an answer, and none is kept."""

    def __init__(self, authority: Authority, registry: Registry, database: Database, roles_now: RolesNow) -> None:
        self._authority = authority
        self._registry = registry
        self._database = database
        self._roles_now = roles_now

    async def evaluate(self, caller: Caller, asked: Evaluation) -> dict[str, Any]:
        """The response (AuthZEN 1.0 s6.2). What the caller may not know of is told like what does not exist."""
        try:
            if asked.person.tenant != caller.principal.tenant:
                raise UnknownName(asked.person.tenant)
            if not asked.supposed and asked.act.action in CALLED and not self._knows(caller, asked.act):
                raise UnknownName(asked.act.resource)  # before the registry is asked, which takes longer for what is there
            return await self._ruled(caller, asked, self._target(caller.principal.tenant, asked.act))
        except UnknownName:
            return refused(404, "There is no such subject or resource.")

    def _knows(self, caller: Caller, act: Act) -> bool:
        return self._authority.sees(caller, act) or self._authority.may(caller, act)

    async def _ruled(self, caller: Caller, asked: Evaluation, target: Registration | None) -> dict[str, Any]:
        request = await self._request(caller.principal.tenant, asked, target)
        if asked.supposed:
            person = asked.person
            roles = self._roles_now(person.issuer, person.subject, ()) if asked.roles is None else asked.roles
            path = tuple(self._hop(person.tenant, agent) for agent in asked.chain)
            supposed = Supposed(Principal(person.tenant, person.issuer, person.subject, roles), asked.scope, path)
            return _answer(self._authority.suppose(supposed, request), asked.errand)
        ruling = self._authority.rule(caller, request)
        if isinstance(ruling, Denial) and ruling.hidden:
            raise UnknownName(asked.act.resource)
        return _answer(ruling.decision, asked.errand)

    async def _request(self, tenant: str, asked: Evaluation, target: Registration | None) -> Request:
        terms = await self._terms(tenant, asked, PLAIN if target is None else terms_of(target, asked.act))
        if target is None:
            return Request(asked.act, tenant, asked.arguments, txn=asked.errand, terms=terms)
        ceiling = ceiling_of(target.ceiling)
        if target.family is Family.AGENT:
            return Request(asked.act, tenant, callee=Hop(target.name, ceiling), txn=asked.errand, terms=terms)
        return Request(asked.act, tenant, asked.arguments, ceiling, txn=asked.errand, terms=terms)

    async def _terms(self, tenant: str, asked: Evaluation, labels: Terms) -> Terms:
        """With what the errand did and saw, where that counts, as the ledger has it."""
        recalls = self._authority.recalls(asked.act)
        if not recalls and labels.clearance == HIGHEST:
            return labels
        look, history = recall if recalls else glance, History()
        if asked.errand:
            history = await self._database.read(lambda connection: look(connection, tenant, asked.errand))
        return Terms(labels.sensitivity, labels.clearance, history)

    def _target(self, tenant: str, act: Act) -> Registration | None:
        """Raises UnknownName for what is not there to be called."""
        if act.action not in CALLED:
            return None
        found = self._registry.find(tenant, act.parent)
        family = Family.AGENT if act.action == "invokeAgent" else Family.SERVER
        names = {f"{found.name}.{one.name}" for one in (found.tools if act.kind == "Tool" else found.prompts)}
        if (
            found.family is not family
            or found.status not in (Status.ACTIVE, Status.DOWN)
            or (act.kind in SERVED and act.resource not in names)
        ):
            raise UnknownName(act.resource)
        return found

    def _hop(self, tenant: str, agent: str) -> Hop:
        ceiling = self._registry.ceiling(tenant, agent)
        if ceiling is None:
            raise UnknownName(agent)
        return Hop(agent, ceiling_of(tuple(ceiling)))


def refused(status: int, message: str) -> dict[str, Any]:
    """An evaluation that came to nothing (AuthZEN 1.0 s7.2.1)."""
    return {"decision": False, "context": {"error": {"status": status, "message": message}}}


def _answer(decision: Decision, errand: str) -> dict[str, Any]:
    context = {
        "reason_id": decision.reason_id,
        "reason": REASONS.get(decision.reason_id, decision.reason_id),
        "policies": list(decision.policies),
        "missing": list(decision.missing),
        **({"problem": decision.problem} if decision.problem else {}),
        "chain": [{"agent": link.agent, "permissions": list(link.permissions)} for link in decision.chain],
        "policy_version": decision.policy_version,
        "errand": errand or None,
    }
    return {"decision": decision.allowed, "context": context}


def _person(text: str, me: Principal) -> Principal:
    """`tenant|issuer|subject`; a subject alone is of the asker's issuer."""
    if text.count("|") >= 2:
        tenant, issuer, subject = text.split("|", 2)
        return Principal(tenant, issuer, subject)
    return Principal(me.tenant, me.issuer, text)


def _act(given: Mapping[str, Any]) -> Act:
    action, resource = _object(given, "action").get("name"), _entity(given, "resource")
    if not isinstance(action, str) or not action:
        raise BadEvaluation("action.name is a text")
    kind = KINDS.get(resource["type"].lower(), "")
    try:
        return named_act(action, kind, resource["id"])
    except BadPermission:
        raise BadEvaluation(f"{action[:100]!r} is no action on a resource of this type and id") from None


def _entity(given: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = _object(given, name)
    for member in ("type", "id"):
        if not isinstance(found.get(member), str) or not found[member]:
            raise BadEvaluation(f"{name}.{member} is a text")
    return found


def _object(given: Mapping[str, Any], name: str, where: str = "") -> Mapping[str, Any]:
    found = given.get(name, {})
    if not isinstance(found, dict):
        raise BadEvaluation(f"{where}{name} is an object")
    return found


def _texts(given: Mapping[str, Any], name: str, where: str) -> tuple[str, ...] | None:
    found: Sequence[Any] | None = given.get(name)
    if found is None:
        return None
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise BadEvaluation(f"{where}{name} is a list of texts")
    return tuple(found)
