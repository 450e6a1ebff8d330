"""Access evaluations in the terms of AuthZEN 1.0: a subject, an action, a resource and a context."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from msgspec.structs import replace

from gateway.audit.explanations import REASONS
from gateway.calls.authorizer import terms_of
from gateway.state.claims.claim import Holder
from gateway.state.effects.declared import with_effect
from gateway.state.effects.reading import EffectCaller
from gateway.state.effects.store import SubjectEffects
from gateway.storage.database import Database
from policies.authority import Authority, RulingRequest
from policies.callers import Caller, HypotheticalCaller
from policies.cedar.engine import PolicyEngine
from policies.cedar.schema import ENTITY_TYPES
from policies.delegation.chain import Hop, Principal
from policies.delegation.facts import FactNeeds
from policies.delegation.history import SENSITIVITY_MAX, History, read_history, read_totals
from policies.delegation.permissions import BadPermission, Permissions, parse_ceiling
from policies.delegation.rulings import SERVER_KINDS, Act, Decision, Denial
from policies.delegation.terms import DEFAULT_TERMS, Terms
from policies.environment import RolesNow
from policies.what_if.acts import act_of_resource
from registry.cards.card import KNOWN_STATUSES, Family, Registration
from registry.store import Registry, UnknownName

CALL_ACTIONS = ("invokeAgent", "callTool", "getPrompt", "readResource")
EFFECT_ACTIONS = ("invokeAgent", "callTool")  # calls on which operators may declare effects
KINDS_BY_LOWERCASE: Mapping[str, str] = {kind.lower(): kind for kind in ENTITY_TYPES}


class BadEvaluation(Exception):
    """An evaluation request that is not valid; the message says why."""


@dataclass(frozen=True, slots=True)
class AccessEvaluation:
    """One evaluation.

    `is_hypothetical`: the subject is another person than the caller, or the caller with other roles, scopes, agents or another transaction.
    `transaction` is the `txn` whose history counts, or "" for a new one.
    """

    person: Principal
    roles: tuple[str, ...] | None  # None: the person's current roles, as far as the gateway knows them
    act: Act
    arguments: Mapping[str, Any] | None
    scope: Permissions
    chain: tuple[str, ...]
    is_hypothetical: bool
    transaction: str = ""


def parse_evaluation(caller: Caller, document: Mapping[str, Any]) -> AccessEvaluation:
    """Reads one evaluation (AuthZEN 1.0 s5, s6.1). Raises BadEvaluation."""
    subject, context = _read_entity(document, "subject"), _read_object(document, "context")
    if subject["type"].lower() != "user":
        raise BadEvaluation("subject.type must be user; put agents of the chain in context.chain")
    me, properties = caller.principal, _read_object(subject, "properties", "subject.")
    person = _parse_person(subject["id"], me)
    own = person.owner_key == me.owner_key
    roles = _read_texts(properties, "roles", "subject.properties.")
    try:
        scope = Permissions.parse(_read_texts(context, "scopes", "context.") or ("*",))
    except BadPermission as error:
        raise BadEvaluation(f"context.scopes: {error}") from error
    arguments = _read_object(context, "arguments", "context.") if "arguments" in context else None
    chain = _read_texts(context, "chain", "context.") or ()
    transaction, own_transaction = context.get("errand", ""), caller.delegation.txn
    if not isinstance(transaction, str):
        raise BadEvaluation("context.errand must be a string")
    supposed = not own or roles is not None or "scopes" in context or "chain" in context or transaction not in ("", own_transaction)
    known = me.roles if own and roles is None else roles
    return AccessEvaluation(
        person, known, _parse_act(document), arguments, scope, chain, supposed, transaction if supposed else own_transaction
    )


def as_hypothetical(caller: Caller, evaluation: AccessEvaluation) -> AccessEvaluation:
    """Returns the evaluation as one that does not depend on the caller's token: of the caller, with the roles and the scope of now."""
    if evaluation.is_hypothetical:
        return evaluation
    person, scope = caller.principal, caller.delegation.scope
    return AccessEvaluation(evaluation.person, person.roles, evaluation.act, evaluation.arguments, scope, evaluation.chain, True)


class AccessEvaluator:
    """Evaluates requests by the rules that calls follow. An evaluation permits nothing and is not recorded."""

    def __init__(
        self, authority: Authority, registry: Registry, database: Database, roles_now: RolesNow, *, effects: SubjectEffects
    ) -> None:
        self._authority = authority
        self._registry = registry
        self._database = database
        self._roles_now = roles_now
        self._effects = effects

    async def evaluate(self, caller: Caller, evaluation: AccessEvaluation, draft: PolicyEngine | None = None) -> dict[str, Any]:
        """Returns the response (AuthZEN 1.0 s6.2), by the policies of `draft` where given, which needs a hypothetical evaluation.

        A resource that the caller may not know of is answered like one that does not exist.
        """
        try:
            if evaluation.person.tenant != caller.principal.tenant:
                raise UnknownName(evaluation.person.tenant)
            if not evaluation.is_hypothetical and evaluation.act.action in CALL_ACTIONS and not self._is_visible(caller, evaluation.act):
                raise UnknownName(evaluation.act.resource)  # before the registry is read, so that the time taken does not reveal the entry
            return await self._rule(caller, evaluation, self._find_target(caller.principal.tenant, evaluation.act), draft)
        except UnknownName:
            return refused_evaluation(404, "There is no such subject or resource.")
        except BadEvaluation as error:  # the arguments do not say whom the call acts on
            return refused_evaluation(400, str(error))

    def _is_visible(self, caller: Caller, act: Act) -> bool:
        return self._authority.can_see(caller, act) or self._authority.could_allow(caller, act)

    async def _rule(
        self, caller: Caller, evaluation: AccessEvaluation, target: Registration | None, draft: PolicyEngine | None
    ) -> dict[str, Any]:
        recalls = (self._authority if draft is None else draft).needs_history(evaluation.act)
        request = await self._build_ruling_request(caller.principal.tenant, evaluation, target, recalls)
        if target is not None and target.effects and evaluation.act.action in EFFECT_ACTIONS:
            needs = self._authority.fact_needs() if draft is None else draft.fact_needs
            request = await self._with_facts(caller, evaluation, request, target, needs=needs)
        if evaluation.is_hypothetical:
            person = evaluation.person
            roles = self._roles_now(person.issuer, person.subject, ()) if evaluation.roles is None else evaluation.roles
            path = tuple(self._hop(person.tenant, agent) for agent in evaluation.chain)
            supposed = HypotheticalCaller(Principal(person.tenant, person.issuer, person.subject, roles), evaluation.scope, path)
            return _decision_document(self._authority.rule_hypothetically(supposed, request, draft), evaluation.transaction)
        ruling = self._authority.rule(caller, request)
        if isinstance(ruling, Denial) and ruling.is_hidden:
            raise UnknownName(evaluation.act.resource)
        return _decision_document(ruling.decision, evaluation.transaction)

    async def _build_ruling_request(
        self, tenant: str, evaluation: AccessEvaluation, target: Registration | None, recalls: bool
    ) -> RulingRequest:
        """`recalls`: whether the ruling depends on what the transaction did before."""
        of_target = DEFAULT_TERMS if target is None else terms_of(target, evaluation.act)
        terms = await self._build_terms(tenant, evaluation, of_target, recalls)
        if target is None:
            return RulingRequest(evaluation.act, tenant, evaluation.arguments, txn=evaluation.transaction, terms=terms)
        ceiling = parse_ceiling(target.ceiling)
        if target.family is Family.AGENT:
            return RulingRequest(evaluation.act, tenant, callee=Hop(target.name, ceiling), txn=evaluation.transaction, terms=terms)
        return RulingRequest(evaluation.act, tenant, evaluation.arguments, ceiling, txn=evaluation.transaction, terms=terms)

    async def _with_facts(
        self, caller: Caller, evaluation: AccessEvaluation, request: RulingRequest, target: Registration, *, needs: FactNeeds
    ) -> RulingRequest:
        """Returns the request with the declared effect of the call, and the facts about its subject. Raises BadEvaluation."""
        act, held = evaluation.act, caller.delegation
        name = act.resource.removeprefix(f"{act.parent}." if act.kind == "Tool" else f"{act.parent}/")
        declared = target.effect_of("" if name == act.parent else name)
        terms = with_effect(request.terms, declared, evaluation.arguments or {})
        if terms.effect is None:
            return request
        chain = evaluation.chain if evaluation.is_hypothetical else tuple(hop.agent for hop in held.path)
        holder = Holder(evaluation.person.owner_key, chain, "" if evaluation.is_hypothetical else held.task_id, evaluation.transaction)
        effect, facts = await self._effects.read(EffectCaller(request.tenant, holder), terms.effect, needs)
        if facts is None:
            raise BadEvaluation(f"context.{effect.missing_field} {effect.missing_problem}")
        return replace(request, terms=replace(terms, effect=effect, facts=facts))

    async def _build_terms(self, tenant: str, evaluation: AccessEvaluation, target_terms: Terms, recalls: bool) -> Terms:
        """Returns the terms with the history or totals of the transaction, where the ruling depends on them."""
        if not recalls and target_terms.clearance == SENSITIVITY_MAX:
            return target_terms
        look, history = read_history if recalls else read_totals, History()
        if evaluation.transaction:
            history = await self._database.read(lambda connection: look(connection, tenant, evaluation.transaction))
        return Terms(target_terms.sensitivity, target_terms.clearance, history)

    def _find_target(self, tenant: str, act: Act) -> Registration | None:
        """Returns the entry to call, or None for an act that is not a call. Raises UnknownName when the entry can't be called."""
        if act.action not in CALL_ACTIONS:
            return None
        found = self._registry.find(tenant, act.parent)
        family = Family.AGENT if act.action == "invokeAgent" else Family.SERVER
        names = {f"{found.name}.{one.name}" for one in (found.tools if act.kind == "Tool" else found.prompts)}
        if found.family is not family or found.status not in KNOWN_STATUSES or (act.kind in SERVER_KINDS and act.resource not in names):
            raise UnknownName(act.resource)
        return found

    def _hop(self, tenant: str, agent: str) -> Hop:
        ceiling = self._registry.active_ceiling_of(tenant, agent)
        if ceiling is None:
            raise UnknownName(agent)
        return Hop(agent, parse_ceiling(tuple(ceiling)))


def refused_evaluation(status: int, message: str) -> dict[str, Any]:
    """Returns the response for an evaluation that failed (AuthZEN 1.0 s7.2.1)."""
    return {"decision": False, "context": {"error": {"status": status, "message": message}}}


def _decision_document(decision: Decision, transaction: str) -> dict[str, Any]:
    context = {
        "reason_id": decision.reason_id,
        "reason": REASONS.get(decision.reason_id, decision.reason_id),
        "policies": list(decision.policies),
        "missing": list(decision.missing),
        **({"problem": decision.problem} if decision.problem else {}),
        "chain": [{"agent": link.agent, "permissions": list(link.permissions)} for link in decision.chain],
        "policy_version": decision.policy_version,
        "errand": transaction or None,
    }
    return {"decision": decision.allowed, "context": context}


def _parse_person(text: str, asker: Principal) -> Principal:
    """Reads `tenant|issuer|subject`, or a subject alone, which belongs to the asker's tenant and issuer."""
    if text.count("|") >= 2:
        tenant, issuer, subject = text.split("|", 2)
        return Principal(tenant, issuer, subject)
    return Principal(asker.tenant, asker.issuer, text)


def _parse_act(document: Mapping[str, Any]) -> Act:
    action, resource = _read_object(document, "action").get("name"), _read_entity(document, "resource")
    if not isinstance(action, str) or not action:
        raise BadEvaluation("action.name must be a string")
    kind = KINDS_BY_LOWERCASE.get(resource["type"].lower(), "")
    try:
        return act_of_resource(action, kind, resource["id"])
    except BadPermission:
        raise BadEvaluation(f"{action[:100]!r} is not an action on a resource of this type and id") from None


def _read_entity(document: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = _read_object(document, name)
    for member in ("type", "id"):
        if not isinstance(found.get(member), str) or not found[member]:
            raise BadEvaluation(f"{name}.{member} must be a string")
    return found


def _read_object(document: Mapping[str, Any], name: str, prefix: str = "") -> Mapping[str, Any]:
    found = document.get(name, {})
    if not isinstance(found, dict):
        raise BadEvaluation(f"{prefix}{name} must be an object")
    return found


def _read_texts(document: Mapping[str, Any], name: str, prefix: str) -> tuple[str, ...] | None:
    found: Sequence[Any] | None = document.get(name)
    if found is None:
        return None
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise BadEvaluation(f"{prefix}{name} must be a list of strings")
    return tuple(found)
