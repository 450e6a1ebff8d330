"""The authority: rules on every act. What the chain still holds, then Cedar; both must allow. The only maker of a Grant."""

import hashlib
from collections.abc import Collection, Mapping
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from policies.cache import BoundedCache
from policies.callers import Caller, Supposed, supposed
from policies.cedar.engine import CedarQuestion, PolicyEngine
from policies.delegation.administration import REASON as DELEGATED_ADMINISTRATION
from policies.delegation.administration import is_delegated_administration
from policies.delegation.approval import ASKABLE, Approval, Errand
from policies.delegation.chain import CannotNarrow, Delegation, Hop
from policies.delegation.history import FOLLOW, GO_ON, History, Mark, Step
from policies.delegation.kills import Killed
from policies.delegation.permissions import ALL, Permissions
from policies.delegation.rights import links, rights_of, visible
from policies.delegation.rulings import Act, Decision, Denial, Grant, Question, Ruling
from policies.delegation.terms import ASKS, PLAIN, Terms
from policies.environment import Surroundings
from policies.tokens.issuers import scope_for

CACHED_SECONDS = 60.0
ERROR = "policy-error"  # may be over with the next question, so it is not remembered
_canonical = msgspec.json.Encoder(order="sorted").encode


class Request(Struct, frozen=True):
    """One act, ready to be ruled on. For invokeAgent `callee` is the agent with its ceiling, and `task_id` the task to come."""

    act: Act
    tenant: str
    arguments: Mapping[str, Any] | None = None
    ceiling: Permissions = ALL  # of the server whose tool it is
    callee: Hop | None = None
    task_id: str = ""
    txn: str = ""
    trace_id: str = ""
    terms: Terms = PLAIN


class _Verdict(Struct, frozen=True):
    """What can be remembered of a ruling."""

    reason_id: str = ""  # empty: allowed
    policies: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    hidden: bool = False
    scope: str = ""
    note: str = ""  # of whoever denied it
    why: str = "allowed"
    approval: Approval | None = None  # without which it would not be allowed
    problem: str = ""  # why a policy could not be evaluated


class Authority:
    """Rules. Remembers rulings that nothing has changed since; every ruling still gets its own decision."""

    def __init__(self, engine: PolicyEngine, around: Surroundings) -> None:
        self._engine = engine
        self._around = around
        self.generation = 0  # counts what was forgotten: what follows from an earlier ruling may not hold any more
        self._rights: BoundedCache[tuple[str, ...], Permissions] = BoundedCache(10_000, around.now)  # by roles, whose meaning is settled
        self._verdicts: BoundedCache[tuple[str | None, ...], _Verdict] = BoundedCache(50_000, around.now)

    @property
    def fresh(self) -> bool:
        """Whether this process knows what others changed; if not, nothing that was kept may be believed."""
        return self._around.fresh()

    def current(self) -> tuple[int, int] | None:
        """Changes whenever `may` could answer otherwise; None while this process can't know."""
        return (self.generation, self._around.kills.version) if self.fresh else None

    def forget(self) -> None:
        """Believes nothing ruled before. Called after each change of policies, registry or grants."""
        self.generation += 1
        self._verdicts.clear()

    def rule(self, caller: Caller, request: Request) -> Ruling:
        """Grant or Denial, with the decision that explains it. What is decided must be kept before it takes effect."""
        told = _digest(request.arguments)
        read = told and self._engine.reads_input(request.act)
        verdict = self._verdict(caller, request, request.arguments if read else None, told if read else None)
        if verdict.reason_id == ASKS:
            verdict = _answered(caller, request, verdict, self._around.now(), self._engine.asking(verdict.policies).approvals)
        if not verdict.reason_id and not _countable(self._engine, request):
            verdict = _Verdict("not-countable", verdict.policies)
        child: Delegation | None = None
        if verdict.reason_id in ("", ASKS) and request.callee is not None:
            try:
                child = _child(self._around.new_id("g"), caller, request, request.callee)
            except CannotNarrow as refusal:
                verdict = _Verdict(reason_id=refusal.reason_id)
        decision = _decision(self._around, (self._engine.version, told), caller, request, verdict)
        if verdict.reason_id == ASKS:
            ask = self._engine.asking(verdict.policies)
            return Question(decision, ask.prompt, ask.approvals, ask.seconds)
        if verdict.reason_id:
            return Denial(decision, verdict.hidden, verdict.scope, verdict.note, _wanted(caller, verdict.scope))
        return Grant(decision, child or caller.delegation, None if request.terms is PLAIN else _mark(self._engine, request))

    def recalls(self, act: Act) -> bool:
        """Whether a policy wants to know what the errand did before."""
        return self._engine.recalls(act)

    def uncounted(self, request: Request, counted: History) -> Request:
        """The request of an act that goes on from one which `counted` tells of, as it was ruled on then."""
        act, terms = request.act, request.terms
        before = counted.before(act.permission, request.arguments or {}, self._engine.totals(act))
        return replace(request, act=replace(act, verb=GO_ON), terms=replace(terms, history=before, goes_on=terms.begun))

    def step(self, request: Request) -> Step:
        """What a decision has to have been of for this act to go on from it."""
        return Step(request.terms.begun, request.act.permission, _digest(request.arguments), self._engine.version)

    def deny_delegated(self, caller: Caller, request: Request) -> Denial | None:
        """The Denial of an act on what is a person's own, where an agent asks for it; None for the person, about whom nothing is decided.

        For acts that need no right: who registered an agent changes it, who has an account disconnects it.
        """
        if not is_delegated_administration(caller.delegation, request.act):
            return None
        verdict = _Verdict(DELEGATED_ADMINISTRATION)
        return Denial(_decision(self._around, (self._engine.version, ""), caller, request, verdict))

    def suppose(self, who: Supposed, request: Request) -> Decision:
        """What would be ruled. Nobody may do anything by it: no Grant is handed out, and nothing of it is kept."""
        return self.rule(supposed(who), request).decision

    def stopping(self, caller: Caller, request: Request, callee: Hop | None = None) -> Grant:
        """Leave to have an agent or a server stop a task, which whoever asks has shown to be the caller's own. No policy is asked, since it
        only ends what was allowed once; the agent is handed no more than the caller has now. Raises CannotNarrow.
        """
        held = caller.delegation if callee is None else _child(self._around.new_id("g"), caller, request, callee)
        return Grant(_decision(self._around, (self._engine.version, ""), caller, request, _Verdict(why="own-task")), held)

    def going_on(self, caller: Caller, request: Request) -> Grant:
        """Leave to go on with a turn of the agent that acts, which was allowed when it began: to ask the agent what became of it.

        No policy is asked again, as none is while a turn goes on; `caller` is what is left of the grant that the turn was begun with,
        and nothing is handed on beyond that. Raises Killed.
        """
        if self._around.kills.stops(caller.delegation, request.act):
            raise Killed
        return Grant(
            _decision(self._around, (self._engine.version, ""), caller, request, _Verdict(why="turn-under-way")), caller.delegation
        )

    def may_stop(self, caller: Caller, act: Act) -> bool:
        """Whether the caller could have a task stopped that the act began: no policy is asked, as above."""
        return caller.delegation.held().covers(act.permission) and not self._around.kills.stops(caller.delegation, act)

    def may(self, caller: Caller, act: Act) -> bool:
        """Whether `act` could be allowed with some arguments: for lists. Leaves no trace."""
        request = Request(act, caller.principal.tenant)
        if not self._engine.reads_input(act) and not self._engine.recalls(act):
            return self._verdict(caller, request, None, None).reason_id in ("", ASKS)
        if self._around.kills.stops(caller.delegation, act) or is_delegated_administration(caller.delegation, act):
            return False
        held = caller.expires > self._around.now() and caller.delegation.held().covers(act.permission)
        return held and self._engine.visible(_question(caller, request, None))

    def sees(self, caller: Caller, act: Act) -> bool:
        """Whether the caller may know of the resource at all; what they may not is answered as if it did not exist."""
        return self._visible(caller, act)

    def _verdict(self, caller: Caller, request: Request, arguments: Mapping[str, Any] | None, digest: str | None) -> _Verdict:
        act = request.act
        if self._around.kills.stops(caller.delegation, act):
            return _Verdict("killed", (), (), not self._visible(caller, act))
        if is_delegated_administration(caller.delegation, act):
            return _Verdict(DELEGATED_ADMINISTRATION)
        if caller.expires <= self._around.now():
            return _Verdict(reason_id="token-expired")
        if not request.ceiling.covers(act.permission):
            return _Verdict(
                "ceiling-exceeded",
                (),
                (f"{act.permission} (server {act.parent})",),
                not self._visible(caller, act),
            )
        if request.terms is not PLAIN:
            excess = request.terms.excess(errand_of(caller, request), act.parent, self._around.clearance_now)
            if excess is not None:
                return _Verdict(excess[0], (), (excess[1],), not self._visible(caller, act))
        key = (caller.key, request.tenant, act.action, act.kind, act.resource, act.permission, digest)
        recalled = request.terms.history is not None
        known = self._verdicts.get(key) if not recalled and self._around.fresh() else None
        if known is not None:
            return known
        verdict = self._weigh(caller, request, arguments)
        if verdict.reason_id != ERROR and not recalled:
            self._verdicts.put(key, verdict, CACHED_SECONDS)
        return verdict

    def _weigh(self, caller: Caller, request: Request, arguments: Mapping[str, Any] | None) -> _Verdict:
        act, delegation = request.act, caller.delegation
        hidden = not self._visible(caller, act)
        if not delegation.scope.covers(act.permission):
            return _Verdict("scope-missing", (), (f"{act.permission} (token)",), hidden, act.permission)
        for hop in delegation.path:
            if not hop.ceiling.covers(act.permission):
                return _Verdict("ceiling-exceeded", (), (f"{act.permission} (agent {hop.agent})",), hidden)
        answer = self._engine.decide(_question(caller, request, arguments, self._engine.all_totals))
        if answer.allowed:
            return _Verdict(policies=answer.policies)
        if answer.asks and act.action in ASKABLE:
            return _Verdict(ASKS, answer.policies, (), hidden)
        if answer.error:
            return _Verdict(ERROR, answer.policies, (), hidden, problem=answer.problem)
        if answer.policies:
            return _Verdict("policy-forbids", answer.policies, (), hidden)
        return _Verdict("user-lacks-permission", (), (f"{act.permission} (user)",), hidden)

    def _visible(self, caller: Caller, act: Act) -> bool:
        roles = caller.principal.roles
        rights = self._rights.get(roles)
        if rights is None:
            rights = rights_of(self._around.role_permissions, roles)
            self._rights.put(roles, rights, CACHED_SECONDS)
        return visible(rights, caller.delegation, act)


def _question(caller: Caller, request: Request, arguments: Mapping[str, Any] | None, totals: Collection[str] = ()) -> CedarQuestion:
    delegation, history = caller.delegation, request.terms.history
    return CedarQuestion(
        principal=caller.principal,
        act=request.act,
        tenant=request.tenant,
        scopes=tuple(sorted(delegation.scope.patterns)),
        chain=tuple(hop.agent for hop in delegation.path),
        depth=len(delegation.path),
        task=delegation.task_id,
        input=arguments,
        history=history.context(request.act.permission, totals) if history else None,
    )


def _decision(around: Surroundings, basis: tuple[str, str], caller: Caller, request: Request, verdict: _Verdict) -> Decision:
    """`basis`: the version of the policies, and the digest of what they read of the arguments."""
    delegation = caller.delegation
    return Decision(
        id=around.new_id("d"),
        at=int(around.now() * 1_000_000),
        allowed=not verdict.reason_id,
        reason_id=verdict.reason_id or verdict.why,
        principal=caller.principal.owner,
        roles=caller.principal.roles,
        chain=links(rights_of(around.role_permissions, caller.principal.roles), delegation) if delegation.path else (),
        act=request.act,
        policies=verdict.policies,
        missing=verdict.missing,
        grant_id=delegation.grant_id,
        task_id=request.task_id or delegation.task_id,
        txn=request.txn or delegation.txn,
        trace_id=request.trace_id,
        arguments=basis[1],
        policy_version=basis[0],
        scope=() if delegation.scope == ALL else tuple(sorted(delegation.scope.patterns)),
        approval=verdict.approval.id if verdict.approval else "",
        approvers=verdict.approval.approvers if verdict.approval else (),
        began=verdict.approval.used_by if verdict.approval else "",
        goes_on=request.terms.goes_on,
        problem=verdict.problem,
    )


def _wanted(caller: Caller, permission: str) -> str:
    """The scope that a token needs for the permission, by the name that its issuer has for it."""
    return permission if caller.scope_map is None or not permission else scope_for(caller.scope_map, permission)


def _digest(arguments: Mapping[str, Any] | None) -> str:
    return "" if arguments is None else hashlib.sha256(_canonical(arguments)).hexdigest()


def _child(grant_id: str, caller: Caller, request: Request, callee: Hop) -> Delegation:
    narrowed = caller.delegation.narrow(callee.agent, callee.ceiling, ALL, caller.delegation.not_after)
    return narrowed.rooted(grant_id, request.task_id, request.txn)


def errand_of(caller: Caller, request: Request) -> Errand:
    """What an approval of this request is bound to, beside the act itself. A task that is to come is its own."""
    delegation, principal = caller.delegation, caller.principal
    chain = tuple(hop.agent for hop in delegation.path)
    txn, task_id = request.txn or delegation.txn, request.task_id or delegation.task_id
    return Errand(principal.tenant, principal.owner, chain, txn, task_id)


def _countable(engine: PolicyEngine, request: Request) -> bool:
    return request.terms.history is None or request.terms.countable(engine.totals(request.act), request.arguments)


def _mark(engine: PolicyEngine, request: Request) -> Mark:
    recalled = request.act.verb != FOLLOW and engine.recalls(request.act)
    return request.terms.mark(recalled, engine.totals(request.act), request.arguments)


def _answered(caller: Caller, request: Request, verdict: _Verdict, now: float, needed: int) -> _Verdict:
    """What becomes of an act that people have to allow, now that they may have said something."""
    errand = errand_of(caller, request)
    reason_id, note = request.terms.answered(errand, request.act.permission, verdict.policies, int(now * 1_000_000), needed)
    return replace(verdict, reason_id=reason_id, note=note, approval=None if reason_id else request.terms.approval)
