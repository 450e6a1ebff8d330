"""The authority: rules on every act. What the chain still holds, then Cedar; both must allow. The only maker of a Grant."""

import hashlib
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from policies.approval import ASKABLE, Approval, Errand
from policies.bounded import BoundedCache
from policies.cedar import CedarQuestion, PolicyEngine
from policies.delegation import CannotNarrow, Delegation, Hop
from policies.grant import Act, Decision, Denial, Grant, Question, Ruling
from policies.grants import GrantEnded
from policies.history import Mark
from policies.identity import Claims, TokenRefused
from policies.kills import Killed
from policies.permissions import ALL, NONE, Permissions
from policies.principal import Principal
from policies.rights import links, rights_of, visible
from policies.surroundings import GrantRows, Surroundings, Verifier
from policies.terms import ASKS, PLAIN, Terms

CACHED_SECONDS = 60.0
_canonical = msgspec.json.Encoder(order="sorted").encode


class Caller(Struct, frozen=True):
    """Whoever stands at a door: a person, or an agent that acts for one. `key` sums up all that rulings depend on."""

    principal: Principal
    delegation: Delegation
    client_id: str
    token_id: str
    expires: float
    key: str
    thumbprint: str = ""  # of the key that has to be shown beside the token, where it is bound to one


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


class Supposed(Struct, frozen=True):
    """A person who is not here, through agents with the most that each may do: for questions about what would be ruled."""

    principal: Principal
    scope: Permissions = ALL
    path: tuple[Hop, ...] = ()


class Authority:
    """Rules. Remembers rulings that nothing has changed since; every ruling still gets its own decision."""

    def __init__(self, identity: Verifier, engine: PolicyEngine, grants: GrantRows, around: Surroundings) -> None:
        self._identity = identity
        self._engine = engine
        self._grants = grants
        self._around = around
        self.generation = 0  # counts what was forgotten: what follows from an earlier ruling may not hold any more
        self._verdicts: BoundedCache[tuple[str, str, str, str, str], _Verdict] = BoundedCache(50_000, around.now)
        self._people: BoundedCache[int, tuple[Claims, Caller]] = BoundedCache(10_000, around.now)

    @property
    def fresh(self) -> bool:
        """Whether this process knows what others changed; if not, nothing that was kept may be believed."""
        return self._around.fresh()

    def forget(self) -> None:
        """Believes nothing ruled before. Called after each change of policies, registry or grants."""
        self.generation += 1
        self._verdicts.clear()
        self._people.clear()
        self._grants.forget()

    async def admit(self, token: str, audiences: Collection[str]) -> Caller:
        """Who a bearer token stands for. Raises TokenRefused, and Killed for what an operator has stopped."""
        if not self._around.fresh():
            await self._around.kills.reload()
        claims = self._identity.cached(token, audiences)
        if claims is None:
            claims = await self._identity.verify(token, audiences)
        if claims.expires <= self._around.now():  # no skew here: whoever came in with it would be refused everything
            raise TokenRefused("expired")
        if claims.kind == "hop":
            return await self._actor(claims)
        self._around.kills.admit(claims.tenant, claims.issuer, claims.subject)
        if claims.agent:  # what it may do is the registry's to say, now
            return self._vouched(claims)
        known = self._people.get(id(claims))
        if known is not None and known[0] is claims:
            return known[1]
        caller = _person(self._around, claims)
        self._people.put(id(claims), (claims, caller), CACHED_SECONDS)
        return caller

    def rule(self, caller: Caller, request: Request) -> Ruling:
        """Grant or Denial, with the decision that explains it. What is decided must be kept before it takes effect."""
        told = "" if request.arguments is None else hashlib.sha256(_canonical(request.arguments)).hexdigest()
        read = told and self._engine.reads_input(request.act)
        verdict = self._verdict(caller, request, request.arguments if read else None, told if read else "")
        if verdict.reason_id == ASKS:
            verdict = _answered(caller, request, verdict, self._around.now())
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
            return Denial(decision, verdict.hidden, verdict.scope, verdict.note)
        return Grant(decision, child or caller.delegation, None if request.terms is PLAIN else _mark(self._engine, request))

    def recalls(self, act: Act) -> bool:
        """Whether a policy wants to know what the errand did before."""
        return self._engine.recalls(act)

    async def resumed(self, tenant: str, grant_id: str, task_id: str, callee: str = "") -> Caller:
        """Who left authority behind, with what is left of it: in `task_id`; `callee` is to be called again. Raises TokenRefused, Killed."""
        self._grants.forget(tenant, grant_id)
        now = _today(self._around, await self._granted(tenant, grant_id)).without(callee)
        return _caller(now.actor, "", now.not_after, now.rooted(grant_id, task_id, now.txn))

    def suppose(self, who: Supposed, request: Request) -> Decision:
        """What would be ruled. Nobody may do anything by it: no Grant is handed out, and nothing of it is kept."""
        return self.rule(_supposed(who), request).decision

    def stopping(self, caller: Caller, request: Request, callee: Hop) -> Grant:
        """Leave to have an agent stop a task, which whoever asks has shown to be the caller's own. No policy is asked, since it only ends
        what was allowed once; the agent is handed no more than the caller has now. Raises CannotNarrow.
        """
        child = _child(self._around.new_id("g"), caller, request, callee)
        return Grant(_decision(self._around, (self._engine.version, ""), caller, request, _Verdict(why="own-task")), child)

    def may(self, caller: Caller, act: Act) -> bool:
        """Whether `act` could be allowed with some arguments: for lists. Leaves no trace."""
        request = Request(act, caller.principal.tenant)
        if not self._engine.reads_input(act) and not self._engine.recalls(act):
            return self._verdict(caller, request, None, "").reason_id in ("", ASKS)
        if self._around.kills.stops(caller.delegation, act):
            return False
        held = caller.expires > self._around.now() and caller.delegation.held().covers(act.permission)
        return held and self._engine.visible(_question(caller, request, None))

    def sees(self, caller: Caller, act: Act) -> bool:
        """Whether the caller may know of the resource at all; what they may not is answered as if it did not exist."""
        return self._visible(caller, act)

    def _verdict(self, caller: Caller, request: Request, arguments: Mapping[str, Any] | None, digest: str) -> _Verdict:
        act = request.act
        if self._around.kills.stops(caller.delegation, act):
            return _Verdict("killed", (), (), not self._visible(caller, act))
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
        key = (caller.key, request.tenant, act.permission, act.resource, digest)
        recalled = request.terms.history is not None
        known = self._verdicts.get(key) if not recalled and self._around.fresh() else None
        if known is not None:
            return known
        verdict, certain = self._weigh(caller, request, arguments)
        if certain and not recalled:
            self._verdicts.put(key, verdict, CACHED_SECONDS)
        return verdict

    def _weigh(self, caller: Caller, request: Request, arguments: Mapping[str, Any] | None) -> tuple[_Verdict, bool]:
        """The verdict, and whether it may be remembered."""
        act, delegation = request.act, caller.delegation
        hidden = not self._visible(caller, act)
        if not delegation.scope.covers(act.permission):
            return _Verdict("scope-missing", (), (f"{act.permission} (token)",), hidden, act.permission), True
        for hop in delegation.path:
            if not hop.ceiling.covers(act.permission):
                return _Verdict("ceiling-exceeded", (), (f"{act.permission} (agent {hop.agent})",), hidden), True
        answer = self._engine.decide(_question(caller, request, arguments, self._engine.all_totals))
        if answer.allowed:
            return _Verdict(policies=answer.policies), True
        if answer.asks and act.action in ASKABLE:
            return _Verdict(ASKS, answer.policies, (), hidden), True
        if answer.error:
            return _Verdict("policy-error", answer.policies, (), hidden), False
        if answer.policies:
            return _Verdict("policy-forbids", answer.policies, (), hidden), True
        return _Verdict("user-lacks-permission", (), (f"{act.permission} (user)",), hidden), True

    def _visible(self, caller: Caller, act: Act) -> bool:
        return visible(rights_of(self._around.role_permissions, caller.principal.roles), caller.delegation, act)

    async def acting(self, tenant: str, agent: str, grant_id: str) -> Caller:
        """An agent that proved who it is, and to have been handed the ticket of a grant. Raises TokenRefused and Killed."""
        if not self._around.fresh():
            await self._around.kills.reload()
        delegation = await self._granted(tenant, grant_id)
        if delegation.actor != agent:
            raise TokenRefused("ticket")
        return _caller(delegation.actor, "", delegation.not_after, _today(self._around, delegation))

    async def _actor(self, claims: Claims) -> Caller:
        """An agent with a hop token: the grant row says what it may, the token can only say less."""
        delegation = await self._granted(claims.tenant, claims.grant_id)
        _check_pointer(claims, delegation)
        try:
            return _called(claims, _today(self._around, delegation).scoped(claims.scope or NONE))
        except CannotNarrow:
            raise TokenRefused("scope") from None

    def _vouched(self, claims: Claims) -> Caller:
        """An agent that a person's identity provider vouched for."""
        caller = _person(self._around, claims)
        if self._around.kills.active and self._around.kills.delegated(caller.delegation):
            raise Killed
        return caller

    async def _granted(self, tenant: str, grant_id: str) -> Delegation:
        if not self._around.fresh():
            self._grants.forget(tenant, grant_id)
        try:
            return await self._grants.find(tenant, grant_id)
        except GrantEnded:
            raise TokenRefused("grant-ended") from None


def _person(around: Surroundings, claims: Claims) -> Caller:
    principal = _principal(around, claims.tenant, claims.issuer, claims.subject, claims.roles)
    scope = ALL if claims.scope is None else claims.scope
    if claims.agent:
        begun = Delegation(principal, scope, claims.expires, (Hop(claims.agent),))
        return _called(claims, _today(around, begun.rooted("", _standing(principal, claims.agent), claims.txn)))
    return _called(claims, Delegation(principal, scope, claims.expires))


def _standing(principal: Principal, agent: str) -> str:
    """What stands for the task that an agent would have been sent with, whichever of its tokens for a person it comes with.

    It tells what the agent began from what the person did, and both from what other agents did.
    """
    return "v_" + hashlib.sha256(f"{principal.owner}\n{agent}".encode()).hexdigest()[:32]


def _today(around: Surroundings, delegation: Delegation) -> Delegation:
    """The same authority under the ceilings and with the roles of now. Raises TokenRefused when an agent of the chain may not act."""
    principal = delegation.principal
    ceilings = [around.ceiling_now(principal.tenant, hop.agent) for hop in delegation.path]
    known = tuple(ceiling for ceiling in ceilings if ceiling is not None)
    if len(known) < len(ceilings):
        raise TokenRefused("agent-not-active")
    return delegation.limited(known).of(_principal(around, principal.tenant, principal.issuer, principal.subject, principal.roles))


def _principal(around: Surroundings, tenant: str, issuer: str, subject: str, vouched: Sequence[str]) -> Principal:
    return Principal(tenant, issuer, subject, around.roles_now(issuer, subject, vouched))


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
        chain=links(rights_of(around.role_permissions, caller.principal.roles), delegation),
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
        **_approved(request.terms.approval, verdict),
    )


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
    return request.terms.mark(engine.recalls(request.act), engine.totals(request.act), request.arguments)


def _answered(caller: Caller, request: Request, verdict: _Verdict, now: float) -> _Verdict:
    """What becomes of an act that people have to allow, now that they may have said something."""
    errand = errand_of(caller, request)
    reason_id, note = request.terms.answered(errand, request.act.permission, verdict.policies, int(now * 1_000_000))
    return replace(verdict, reason_id=reason_id, note=note)


def _check_pointer(claims: Claims, delegation: Delegation) -> None:
    """A hop token must say of its grant what the row says; a mix of two is a splice."""
    path = tuple(hop.agent for hop in reversed(delegation.path))
    said = (claims.actors, claims.task_id, claims.txn, claims.subject)
    if said != (path, delegation.task_id, delegation.txn, delegation.principal.subject):
        raise TokenRefused("chain")


def _called(claims: Claims, delegation: Delegation) -> Caller:
    caller = _caller(claims.client_id, claims.token_id, min(claims.expires, delegation.not_after), delegation)
    return replace(caller, thumbprint=claims.thumbprint) if claims.thumbprint else caller


def _caller(client_id: str, token_id: str, expires: float, delegation: Delegation) -> Caller:
    return Caller(delegation.principal, delegation, client_id, token_id, expires, _key(delegation))


def _supposed(who: Supposed) -> Caller:
    delegation = Delegation(who.principal, who.scope, math.inf, who.path)
    return Caller(who.principal, delegation, "", "", math.inf, _key(delegation))


def _key(delegation: Delegation) -> str:
    """All of a delegation that rulings depend on."""
    principal = delegation.principal
    path = ">".join(f"{hop.agent}[{hop.ceiling}]" for hop in delegation.path)
    return "\n".join((principal.owner, ",".join(principal.roles), str(delegation.scope), path, delegation.grant_id, delegation.task_id))


def _approved(approval: Approval | None, verdict: _Verdict) -> dict[str, Any]:
    """Which approval an allowed act uses, and whose it is."""
    if approval is None or verdict.reason_id:
        return {}
    return {"approval": approval.id, "approvers": approval.approvers}
