"""The authority: rules on every act by the delegation chain and then by Cedar, which must both allow it. Only it makes grants."""

import hashlib
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from policies.cache import BoundedCache, PartedCache
from policies.callers import Caller, HypotheticalCaller, hypothetical_caller
from policies.cedar.engine import CedarQuestion, PolicyEngine
from policies.delegation.approval import APPROVABLE_ACTIONS, Approval, Requester
from policies.delegation.chain import CannotNarrow, Delegation, Hop
from policies.delegation.class_rulings import ClassRulings
from policies.delegation.facts import FactNeeds
from policies.delegation.history import VERB_CONTINUE, VERB_FOLLOW_TASK, History, HistoryMark, PriorAct
from policies.delegation.kills import Killed
from policies.delegation.permissions import ALL_PERMISSIONS, Permissions
from policies.delegation.rights import chain_links, is_visible, permissions_of_roles
from policies.delegation.rulings import Act, Decision, Denial, Grant, Question, Ruling
from policies.delegation.step_up import scope_after_consent
from policies.delegation.terms import APPROVAL_NEEDED, DEFAULT_TERMS, Terms
from policies.environment import MEMORY_ACTIONS, RulingEnvironment
from policies.tokens.issuers import scope_covering

DELEGATED_ADMINISTRATION = "delegated-administration"
MEMORY_NOT_ENABLED = "memory-not-enabled"
# The act of an operator. No registry entry has this kind, so no policy about an entry grants it.
WRITE_REGISTRY = Act("registerAgent", "Key", "write", "registry:write", "write")
# An action that is not listed here counts as administration, so a new action can't be delegated by default.
DELEGABLE_ACTIONS = frozenset(
    {"invokeAgent", "callTool", "readResource", "getPrompt", "readState", "writeState", "runWorkflow", *MEMORY_ACTIONS}
)
CACHED_SECONDS = 60.0
POLICY_ERROR = "policy-error"  # may be transient, so it is not cached
_encode_canonical = msgspec.json.Encoder(order="sorted").encode


def is_delegated_administration(delegation: Delegation, act: Act) -> bool:
    """Whether an agent asks for administration: acts on the registry, secrets, policies, kills, approvals, grants or the audit log."""
    return bool(delegation.path) and act.action not in DELEGABLE_ACTIONS


class RulingRequest(Struct, frozen=True):
    """One act to be ruled on. For invokeAgent, `callee` is the agent with its ceiling, and `task_id` the id of the task to be created."""

    act: Act
    tenant: str
    arguments: Mapping[str, Any] | None = None
    ceiling: Permissions = ALL_PERMISSIONS  # of the server that offers the tool
    callee: Hop | None = None
    task_id: str = ""
    txn: str = ""
    trace_id: str = ""
    terms: Terms = DEFAULT_TERMS
    lasts_until: float = 0.0  # seconds since 1970: the end of the callee's authority by itself, for a run of a workflow; 0: the caller's


class _CachedVerdict(Struct, frozen=True):
    """The part of a ruling that does not depend on its decision, and that may be cached."""

    reason_id: str = ""  # empty: allowed
    policies: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    is_hidden: bool = False
    scope: str = ""
    note: str = ""  # the comment of the person who rejected the approval
    allowed_reason_id: str = "allowed"
    approval: Approval | None = None  # the approval that the act is allowed by
    problem: str = ""  # why a policy could not be evaluated


class Authority:
    """Rules on acts. Caches verdicts until policies, registry or grants change; each ruling still gets a decision of its own."""

    def __init__(self, engine: PolicyEngine, environment: RulingEnvironment) -> None:
        self._engine = engine
        self._environment = environment
        self.generation = 0  # incremented by each invalidation: results derived from earlier rulings may be outdated
        self._permissions_by_roles: BoundedCache[tuple[str, ...], Permissions] = BoundedCache(10_000, environment.now)
        self._rulings: PartedCache[_CachedVerdict] = PartedCache((50_000, 5_000), environment.now)
        self.class_rulings = ClassRulings(lambda: engine.rules.act_classes, environment.kills, environment.now)
        self.fact_needs: Callable[[], FactNeeds] = lambda: engine.fact_needs  # the facts about subjects that any policy may read

    @property
    def is_fresh(self) -> bool:
        """Whether this process has seen the changes that other processes made. If not, no cached ruling may be used."""
        return self._environment.is_fresh()

    def rulings_version(self) -> tuple[int, int] | None:
        """A value that changes whenever `could_allow` could answer otherwise; None while this process's caches may be outdated."""
        return self.generations if self.is_fresh else None

    @property
    def generations(self) -> tuple[int, int]:
        """A value that changes whenever `could_allow` could answer otherwise, as far as this process knows."""
        return self.generation, self._environment.kills.version

    def invalidate(self) -> None:
        """Drops all cached rulings. Called after each change of policies, registry or grants."""
        self.generation += 1
        self._rulings.clear()
        self.class_rulings.clear()

    def rule(self, caller: Caller, request: RulingRequest) -> Ruling:
        """Returns a Grant, Denial or Question, with its decision. The decision must be recorded before it takes effect."""
        arguments_digest = _arguments_digest(request.arguments)
        read = arguments_digest and self._engine.reads_input(request.act)
        verdict = self._find_or_evaluate(caller, request, request.arguments if read else None, arguments_digest if read else None)
        if verdict.reason_id == APPROVAL_NEEDED:
            verdict = _apply_approval(
                caller, request, verdict, self._environment.now(), self._engine.combined_ask(verdict.policies).approvals
            )
        if not verdict.reason_id and request.terms.history is not None and not _has_countable_arguments(self._engine, request):
            verdict = _CachedVerdict("not-countable", verdict.policies)
        child: Delegation | None = None
        if verdict.reason_id in ("", APPROVAL_NEEDED) and request.callee is not None:
            try:
                child = _delegate_to_callee(self._environment, caller, request, request.callee)
            except CannotNarrow as refusal:
                verdict = _CachedVerdict(reason_id=refusal.reason_id)
        decision = _build_decision(
            self._environment, caller, request, verdict, policy_version=self._engine.version, arguments_digest=arguments_digest
        )
        if verdict.reason_id and request.terms.facts is not None:
            decision = replace(decision, facts=self._engine.fact_notes(verdict.policies, request.terms.facts))
        if verdict.reason_id == APPROVAL_NEEDED:
            ask = self._engine.combined_ask(verdict.policies)
            return Question(decision, ask.prompt, ask.approvals, ask.seconds)
        if verdict.reason_id:
            return Denial(decision, verdict.is_hidden, note=verdict.note, **_missing_scope(self._environment, caller, request, verdict))
        marks = () if request.terms is DEFAULT_TERMS else (_history_mark(self._engine, request), request.terms.effect_mark())
        return Grant(decision, child or caller.delegation, *marks)

    def needs_history(self, act: Act) -> bool:
        """Whether a policy depends on what the transaction did before this act."""
        return self._engine.needs_history(act)

    def as_continuation(self, request: RulingRequest, history: History) -> RulingRequest:
        """The request to continue the act `terms.continues_decision_id`, with the history as it was when that act was ruled on."""
        act, terms = request.act, request.terms
        history_before = history.without_act(act.permission, request.arguments or {}, self._engine.total_names(act))
        terms = replace(terms, history=history_before, counted_with_decision_id=terms.continues_decision_id)
        return replace(request, act=replace(act, verb=VERB_CONTINUE), terms=terms)

    def prior_act_of(self, request: RulingRequest) -> PriorAct:
        """The act that the continued decision must have been about, for this request to continue it."""
        digest = _arguments_digest(request.arguments)
        return PriorAct(request.terms.continues_decision_id, request.act.permission, digest, self._engine.version)

    def deny_delegated_administration(self, caller: Caller, request: RulingRequest) -> Denial | None:
        """Returns a Denial where an agent asks to administer what belongs to a person; None where a person does."""
        if not is_delegated_administration(caller.delegation, request.act):
            return None
        verdict = _CachedVerdict(DELEGATED_ADMINISTRATION)
        return Denial(_build_decision(self._environment, caller, request, verdict, policy_version=self._engine.version))

    def rule_hypothetically(self, who: HypotheticalCaller, request: RulingRequest, draft: PolicyEngine | None = None) -> Decision:
        """Returns the decision that `rule` would make, by the policies of `draft` where given, without a grant. Nothing is recorded."""
        return (self if draft is None else Authority(draft, self._environment)).rule(hypothetical_caller(who), request).decision

    def grant_stop(self, caller: Caller, request: RulingRequest, callee: Hop | None = None, *, is_own: bool = True) -> Grant:
        """A grant to stop a task: verified to be the caller's own, or one that an operator may cancel. Raises CannotNarrow.

        Asks no policy, since stopping only ends what was allowed. The agent gets no more than the caller's authority of now.
        """
        held = caller.delegation if callee is None else _delegate_to_callee(self._environment, caller, request, callee)
        verdict = _CachedVerdict(allowed_reason_id="own-task" if is_own else "operator-cancels")
        return Grant(_build_decision(self._environment, caller, request, verdict, policy_version=self._engine.version), held)

    def grant_continuation(self, caller: Caller, request: RulingRequest) -> Grant:
        """A grant to ask the acting agent for the outcome of its turn, with what is left of its grant. Asks no policy. Raises Killed."""
        if self._environment.kills.stops(caller.delegation, request.act):
            raise Killed
        verdict = _CachedVerdict(allowed_reason_id="turn-under-way")
        return Grant(_build_decision(self._environment, caller, request, verdict, policy_version=self._engine.version), caller.delegation)

    def may_stop(self, caller: Caller, act: Act) -> bool:
        """Whether the caller could stop a task that `act` began. No policy is evaluated, as in `grant_stop`."""
        return caller.delegation.effective_permissions().covers(act.permission) and not self._environment.kills.stops(
            caller.delegation, act
        )

    def could_allow(self, caller: Caller, act: Act) -> bool:
        """Whether `act` could be allowed with some arguments: used to filter lists. Policies are evaluated once for a class of acts."""
        alone = partial(self._could_allow_alone, caller, act)
        return self.class_rulings.could_allow(caller, act, alone) if self.is_fresh else alone()[0]

    def _could_allow_alone(self, caller: Caller, act: Act) -> tuple[bool, bool]:
        """Whether this act could be allowed, and whether that holds for its class too: no policy failed."""
        request = RulingRequest(act, caller.principal.tenant)
        if not (self._engine.reads_input(act) or self._engine.needs_history(act) or self._engine.reads_facts(act)):
            reason_id = self._find_or_evaluate(caller, request, None, None).reason_id
            return reason_id in ("", APPROVAL_NEEDED), reason_id != POLICY_ERROR
        if self._environment.kills.stops(caller.delegation, act) or is_delegated_administration(caller.delegation, act):
            return False, False
        if self._environment.missing_memory(caller.delegation, act.action):
            return False, False
        held = caller.expires > self._environment.now() and caller.delegation.effective_permissions().covers(act.permission)
        best = self._engine.best_verdict(_cedar_question(caller, request, None))
        return held and best.allowed, held and not best.has_error

    def could_use(self, caller: Caller, action: str, pattern: str) -> bool:
        """Whether token, ceilings, roles and entry leave the caller anything of what a pattern covers. Used to filter lists."""
        held = caller.delegation.effective_permissions().overlaps(pattern) and self._rights_of(caller).overlaps(pattern)
        return held and not self._environment.missing_memory(caller.delegation, action)

    def _find_or_evaluate(
        self, caller: Caller, request: RulingRequest, arguments: Mapping[str, Any] | None, digest: str | None
    ) -> _CachedVerdict:
        """Returns the verdict. Kill, expiry, server ceiling and clearance are checked on every call; the rest may be cached."""
        act = request.act
        if self._environment.kills.stops(caller.delegation, act):
            return _CachedVerdict("killed", is_hidden=not self.can_see(caller, act))
        if is_delegated_administration(caller.delegation, act):
            return _CachedVerdict(DELEGATED_ADMINISTRATION)
        if caller.expires <= self._environment.now():
            return _CachedVerdict(reason_id="token-expired")
        if not request.ceiling.covers(act.permission):
            missing = (f"{act.permission} (server {act.parent})",)
            return _CachedVerdict("ceiling-exceeded", missing=missing, is_hidden=not self.can_see(caller, act))
        if request.terms is not DEFAULT_TERMS:
            excess = request.terms.find_clearance_excess(requester_of(caller, request), act.parent, self._environment.clearance_now)
            if excess is not None:
                return _CachedVerdict(excess[0], missing=(excess[1],), is_hidden=not self.can_see(caller, act))
        facts = request.terms.facts_digest(self._engine.fact_needs.subject) if request.terms.facts is not None else ""
        key = (caller.ruling_key, request.tenant, act.action, act.kind, act.resource, act.permission, digest, facts)
        recalled = request.terms.history is not None
        known = self._rulings.get(key) if not recalled and self._environment.is_fresh() else None
        if known is not None:
            return known
        verdict = self._evaluate(caller, request, arguments)
        if verdict.reason_id != POLICY_ERROR and not recalled:
            self._rulings.put(key, verdict, CACHED_SECONDS)
        return verdict

    def _evaluate(self, caller: Caller, request: RulingRequest, arguments: Mapping[str, Any] | None) -> _CachedVerdict:
        """Returns the verdict of the token's scope, the ceilings of the chain, and the policies, in this order."""
        act, delegation = request.act, caller.delegation
        hidden = not self.can_see(caller, act)
        if not delegation.scope.covers(act.permission):
            missing = (f"{act.permission} (token)",)
            return _CachedVerdict("scope-missing", missing=missing, is_hidden=hidden, scope=act.permission)
        for hop in delegation.path:
            if not hop.ceiling.covers(act.permission):
                return _CachedVerdict("ceiling-exceeded", missing=(f"{act.permission} (agent {hop.agent})",), is_hidden=hidden)
        if lacking := self._environment.missing_memory(delegation, act.action):
            return _CachedVerdict(MEMORY_NOT_ENABLED, missing=(lacking,), is_hidden=hidden)
        result = self._engine.decide(_cedar_question(caller, request, arguments, self._engine.all_total_names))
        if result.allowed:
            return _CachedVerdict(policies=result.policies)
        if result.needs_approval and act.action in APPROVABLE_ACTIONS:
            return _CachedVerdict(APPROVAL_NEEDED, result.policies, is_hidden=hidden)
        if result.has_error:
            return _CachedVerdict(POLICY_ERROR, result.policies, is_hidden=hidden, problem=result.problem)
        if result.policies:
            return _CachedVerdict(request.terms.reason_of_forbid(result.policies), result.policies, is_hidden=hidden)
        return _CachedVerdict("user-lacks-permission", missing=(f"{act.permission} (user)",), is_hidden=hidden)

    def can_see(self, caller: Caller, act: Act) -> bool:
        """Whether the caller may know that the resource exists. An invisible resource is answered as if it did not exist."""
        return is_visible(self._rights_of(caller), caller.delegation, act)

    def _rights_of(self, caller: Caller) -> Permissions:
        roles = caller.principal.roles
        rights = self._permissions_by_roles.get(roles)
        if rights is None:
            rights = permissions_of_roles(self._environment.role_permissions, roles)
            self._permissions_by_roles.put(roles, rights, CACHED_SECONDS)
        return rights


def _cedar_question(
    caller: Caller, request: RulingRequest, arguments: Mapping[str, Any] | None, totals: Collection[str] = ()
) -> CedarQuestion:
    delegation, history, effect, facts = caller.delegation, request.terms.history, request.terms.effect, request.terms.facts
    return CedarQuestion(
        principal=caller.principal,
        act=request.act,
        tenant=request.tenant,
        scopes=tuple(sorted(delegation.scope.patterns)),
        chain=tuple(hop.agent for hop in delegation.path),
        depth=len(delegation.path),
        task=delegation.task_id,
        input=arguments,
        history=history.to_policy_context(request.act.permission, totals) if history else None,
        effect=effect.effect if effect else "",
        subject=effect.subject if effect else "",
        facts=facts.to_policy_context(effect.priority) if facts and effect else None,
    )


def _build_decision(
    environment: RulingEnvironment,
    caller: Caller,
    request: RulingRequest,
    verdict: _CachedVerdict,
    *,
    policy_version: str,
    arguments_digest: str = "",
) -> Decision:
    delegation, roles, terms = caller.delegation, caller.principal.roles, request.terms
    decision = Decision(
        environment.new_id("d"),
        int(environment.now() * 1_000_000),
        not verdict.reason_id,
        verdict.reason_id or verdict.allowed_reason_id,
        caller.principal.owner_key,
        roles,
        chain_links(permissions_of_roles(environment.role_permissions, roles), delegation) if delegation.path else (),
        request.act,
        policies=verdict.policies,
        missing=verdict.missing,
        grant_id=delegation.grant_id,
        task_id=request.task_id or delegation.task_id,
        txn=request.txn or delegation.txn,
        trace_id=request.trace_id,
        arguments=arguments_digest,
        policy_version=policy_version,
        scope=() if delegation.scope == ALL_PERMISSIONS else tuple(sorted(delegation.scope.patterns)),
        problem=verdict.problem,
    )
    if verdict.approval is not None:
        used = verdict.approval
        decision = replace(decision, approval=used.id, approvers=used.approvers, continues_decision_id=used.used_by)
    if terms.effect is not None or terms.counted_with_decision_id:
        subject, effect = ("", "") if terms.effect is None else (terms.effect.subject, terms.effect.effect)
        decision = replace(decision, counted_with_decision_id=terms.counted_with_decision_id, subject=subject, effect=effect)
    return decision


def _missing_scope(environment: RulingEnvironment, caller: Caller, request: RulingRequest, verdict: _CachedVerdict) -> dict[str, str]:
    """The permission that the token's scope lacks, and the scope that it needs, in the notation of its issuer.

    A client of a person who signed in asks for exactly that scope. There is none where the person may not use the permission either.
    """
    permission = verdict.scope
    wanted = permission if caller.scope_map is None or not permission else scope_covering(caller.scope_map, permission)
    if caller.session_id and permission and not caller.delegation.path:
        ceiling = None if request.callee is None else request.callee.ceiling
        may_hold = partial(environment.has_permission, caller.principal, ALL_PERMISSIONS)
        wanted = scope_after_consent(caller.delegation.scope, permission, ceiling, may_hold)
    return {"missing_permission": permission, "scope_to_request": wanted} if wanted or not caller.session_id else {}


def _arguments_digest(arguments: Mapping[str, Any] | None) -> str:
    return "" if arguments is None else hashlib.sha256(_encode_canonical(arguments)).hexdigest()


def _delegate_to_callee(environment: RulingEnvironment, caller: Caller, request: RulingRequest, callee: Hop) -> Delegation:
    """Returns the delegation for the called agent: the caller's with one more hop, which has the agent's ceiling.

    The hop asks for all permissions, so it only appends to the path. The ceiling counts when the agent makes its next call. A run that
    a person or a service starts, or that does not end with the task of its caller, lasts as long as its workflow and the operator say.
    """
    held = caller.delegation
    narrowed = held.narrow(callee.agent, callee.ceiling, ALL_PERMISSIONS, held.not_after)
    if request.lasts_until and (not held.path or not held.task_id):
        not_after = min(request.lasts_until, environment.now() + environment.run_ttl)
        narrowed = narrowed.lasting_until(not_after, environment.roles_until(held.principal.issuer))
    return narrowed.with_ids(environment.new_id("g"), request.task_id, request.txn)


def requester_of(caller: Caller, request: RulingRequest) -> Requester:
    """The requester that an approval of this request is bound to, beside the act. A task to be created counts as its own requester."""
    delegation, principal = caller.delegation, caller.principal
    chain = tuple(hop.agent for hop in delegation.path)
    txn, task_id = request.txn or delegation.txn, request.task_id or delegation.task_id
    return Requester(principal.tenant, principal.owner_key, chain, txn, task_id)


def _history_mark(engine: PolicyEngine, request: RulingRequest) -> HistoryMark:
    recalled = request.act.verb != VERB_FOLLOW_TASK and engine.needs_history(request.act)
    return request.terms.history_mark(recalled, engine.total_names(request.act), request.arguments)


def _apply_approval(caller: Caller, request: RulingRequest, verdict: _CachedVerdict, now: float, approvals_needed: int) -> _CachedVerdict:
    """The verdict on an act that needs approval, after the votes so far."""
    reason_id, note = request.terms.approval_outcome(
        requester_of(caller, request), request.act.permission, verdict.policies, int(now * 1_000_000), approvals_needed
    )
    return replace(verdict, reason_id=reason_id, note=note, approval=None if reason_id else request.terms.approval)


def _has_countable_arguments(engine: PolicyEngine, request: RulingRequest) -> bool:
    return request.terms.has_countable_arguments(engine.total_names(request.act), request.arguments)
