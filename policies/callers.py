"""Callers of requests, with their current roles and under the current ceilings."""

import hashlib
import math
from collections.abc import Collection, Mapping, Sequence

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from policies.cache import BoundedCache
from policies.delegation.chain import CannotNarrow, Delegation, Hop, Principal
from policies.delegation.grants import GrantEnded, Grants
from policies.delegation.kills import Killed
from policies.delegation.permissions import ALL_PERMISSIONS, NO_PERMISSIONS, Permissions
from policies.delegation.rulings import Grant
from policies.delegation.run_as import SERVICE_ISSUER
from policies.environment import RulingEnvironment
from policies.tokens.verifier import Claims, TokenRefused, TokenVerifier

CACHED_SECONDS = 60.0
_encode = msgspec.json.Encoder().encode


class Caller(Struct, frozen=True):
    """The authenticated caller of a request: a person, or an agent that acts for one.

    `ruling_key` identifies everything about the caller that rulings depend on.
    """

    principal: Principal
    delegation: Delegation
    client_id: str
    token_id: str
    expires: float
    ruling_key: str
    thumbprint: str = ""  # RFC 9449: the thumbprint of the key that the token is bound to
    scope_map: Mapping[str, Permissions] | None = None  # what the scopes of the person's issuer stand for, where it has scopes of its own
    session_id: str = ""  # of a person who signed in at the gateway


class RolesOutdated(TokenRefused):
    """The roles of a grant were vouched for too long ago: the person has to sign in again. Raised for grants of runs of workflows."""

    def __init__(self) -> None:
        super().__init__("roles-outdated")


class HypotheticalCaller(Struct, frozen=True):
    """A person, and optionally a chain of agents with their highest ceilings, for questions about what would be ruled."""

    principal: Principal
    scope: Permissions = ALL_PERMISSIONS
    path: tuple[Hop, ...] = ()


class CallerResolver:
    """Resolves tokens and stored grants to callers. Caches the callers of person tokens."""

    def __init__(self, identity: TokenVerifier, grants: Grants, environment: RulingEnvironment) -> None:
        self._identity = identity
        self._grants = grants
        self._environment = environment
        # by the id of the claims object, which stays unique while the entry holds the object
        self._callers_by_claims: BoundedCache[int, tuple[Claims, Caller]] = BoundedCache(10_000, environment.now)

    def invalidate(self) -> None:
        """Drops all cached callers and grants. Called after each change of registry, grants or policies."""
        self._callers_by_claims.clear()
        self._grants.invalidate()

    async def authenticate(self, token: str, audiences: Collection[str]) -> Caller:
        """The caller that a bearer token stands for. Raises TokenRefused, and Killed for what an operator has stopped."""
        claims = self._identity.find_cached(token, audiences)
        if claims is None:
            claims = await self._identity.verify(token, audiences)
        if claims.expires <= self._environment.now():  # without clock skew: every act of a caller with an expired token is denied
            raise TokenRefused("expired")
        if claims.kind == "hop":
            return await self._resolve_hop_token(claims)
        if not self._environment.is_fresh():
            await self._environment.kills.reload()
        self._environment.kills.check_person(claims.tenant, claims.issuer, claims.subject)
        if claims.agent:  # the agent's permissions come from the registry at each request
            return self._resolve_person_token(claims)
        known = self._callers_by_claims.get(id(claims))
        if known is not None:
            return known[1]
        caller = _person_caller(self._environment, claims)
        self._callers_by_claims.put(id(claims), (claims, caller), CACHED_SECONDS)
        return caller

    async def resolve_agent(self, tenant: str, agent: str, grant_id: str) -> Caller:
        """The caller of an authenticated agent that presented the ticket of a grant. Raises TokenRefused, RolesOutdated and Killed."""
        return await self._resolve_agent(tenant, agent, grant_id)

    async def _resolve_agent(self, tenant: str, agent: str, grant_id: str, with_outdated_roles: bool = False) -> Caller:
        delegation = await self._find_grant(tenant, grant_id, with_outdated_roles)
        if delegation.actor != agent:
            raise TokenRefused("ticket")
        return _caller_from_delegation(delegation.actor, "", delegation.not_after, _with_current_limits(self._environment, delegation))

    async def resolve_agent_in_turn(self, tenant: str, agent: str, grant_id: str, *, with_outdated_roles: bool = False) -> Caller:
        """The caller of an agent in the turn that a grant was made for, with what is left of the grant.

        With `with_outdated_roles`, a person whose roles count no more has none, which suffices to stop what was begun. Raises TokenRefused,
        RolesOutdated and Killed.
        """
        self._grants.invalidate(tenant, grant_id)
        return await self._resolve_agent(tenant, agent, grant_id, with_outdated_roles)

    async def resolve_detached(self, tenant: str, agent: str, grant_id: str) -> Caller:
        """The caller of an agent that starts work which does not end with its own task. It has the same chain, and so no more authority.

        Raises TokenRefused and Killed.
        """
        held = (await self.resolve_agent_in_turn(tenant, agent, grant_id)).delegation
        return _caller_from_delegation(held.actor, "", held.not_after, held.with_ids("", "", held.txn))

    async def resolve_resumed(self, tenant: str, grant_id: str, task_id: str, callee: str = "") -> Caller:
        """The caller with what is left of a stored grant, in `task_id`. `callee` is the agent to be called again.

        Raises TokenRefused and Killed.
        """
        self._grants.invalidate(tenant, grant_id)
        now = _with_current_limits(self._environment, await self._find_grant(tenant, grant_id)).without_actor(callee)
        return _caller_from_delegation(now.actor, "", now.not_after, now.with_ids(grant_id, task_id, now.txn))

    async def resolve_service(self, tenant: str, name: str, lifetime: float, txn: str = "") -> Caller:
        """The caller of a service principal, for a run that nobody starts. `lifetime`: seconds of the run's authority. Raises Killed.

        `txn`: a new transaction, where what the run begins with is ruled on in it; otherwise the first call begins one.
        """
        environment = self._environment
        if not environment.is_fresh():
            await environment.kills.reload()
        environment.kills.check_person(tenant, SERVICE_ISSUER, name)
        principal = _principal_with_current_roles(environment, tenant, SERVICE_ISSUER, name, ())
        return _caller_from_delegation(
            "", "", math.inf, Delegation(principal, environment.service_ceiling(name), environment.now() + lifetime, txn=txn)
        )

    async def resolve_session(self, principal: Principal, scope: Permissions, expires: float) -> Caller:
        """The caller of a browser's session, with the person's roles of now. `principal.roles` are those that the issuer vouched for.

        `expires`: seconds since 1970 at which the session ends. Raises TokenRefused for a session that has ended, and Killed.
        """
        environment = self._environment
        if expires <= environment.now():
            raise TokenRefused("expired")
        if not self._identity.trusts(principal.issuer):
            raise TokenRefused("issuer")
        if not environment.is_fresh():
            await environment.kills.reload()
        environment.kills.check_person(principal.tenant, principal.issuer, principal.subject)
        current = _principal_with_current_roles(environment, principal.tenant, principal.issuer, principal.subject, principal.roles)
        until = max(expires, environment.now() + environment.task_ttl)
        return _caller_from_delegation("", "", expires, Delegation(current, scope, until))

    async def _resolve_hop_token(self, claims: Claims) -> Caller:
        """The caller of a hop token: the grant row says what the agent may do, and the token can only narrow it."""
        delegation = await self._find_grant(claims.tenant, claims.grant_id)
        _check_grant_reference(claims, delegation)
        try:
            return _caller_from_claims(
                claims, _with_current_limits(self._environment, delegation).narrow_scope(claims.scope or NO_PERMISSIONS)
            )
        except CannotNarrow:
            raise TokenRefused("scope") from None

    def _resolve_person_token(self, claims: Claims) -> Caller:
        """The caller of a token that a person's identity provider issued to an agent."""
        caller = _person_caller(self._environment, claims)
        if self._environment.kills.has_any and self._environment.kills.is_delegation_stopped(caller.delegation):
            raise Killed
        return caller

    async def _find_grant(self, tenant: str, grant_id: str, with_outdated_roles: bool = False) -> Delegation:
        if not self._environment.is_fresh():
            await self._environment.kills.reload()
            self._grants.invalidate(tenant, grant_id)
        try:
            found = await self._grants.find(tenant, grant_id)
        except GrantEnded:
            raise TokenRefused("grant-ended") from None
        if found.roles_until > self._environment.now():
            return found
        if not with_outdated_roles:
            raise RolesOutdated
        return found.with_principal(Principal(tenant, found.principal.issuer, found.principal.subject))


def caller_before(caller: Caller) -> Caller:
    """The caller that called the acting agent: the person, or the agent before it in the chain."""
    before = caller.delegation.without_actor(caller.delegation.actor)
    return _caller_from_delegation(before.actor, "", before.not_after, before)


def caller_of_grant(grant: Grant) -> Caller:
    """The caller with the authority of a Grant: its own caller, or where the act invokes an agent, that agent."""
    return _caller_from_delegation(grant.delegation.actor, "", grant.delegation.not_after, grant.delegation)


def hypothetical_caller(who: HypotheticalCaller) -> Caller:
    """A caller for rehearsals. It comes from no token, and its rulings are never carried out."""
    delegation = Delegation(who.principal, who.scope, math.inf, who.path)
    return Caller(who.principal, delegation, "", "", math.inf, _ruling_key(delegation))


def _person_caller(environment: RulingEnvironment, claims: Claims) -> Caller:
    principal = _principal_with_current_roles(environment, claims.tenant, claims.issuer, claims.subject, claims.roles)
    scope = ALL_PERMISSIONS if claims.scope is None else claims.scope
    if claims.agent:
        begun = Delegation(principal, scope, claims.expires, (Hop(claims.agent),))
        return _caller_from_claims(
            claims, _with_current_limits(environment, begun.with_ids("", _standing_task_id(principal, claims.agent), claims.txn))
        )
    return _caller_from_claims(claims, Delegation(principal, scope, max(claims.expires, environment.now() + environment.task_ttl)))


def _standing_task_id(principal: Principal, agent: str) -> str:
    """The task id for an agent that acts by tokens of its own for a person: the same for all of them.

    It separates what the agent does from what the person does, and from what other agents do.
    """
    return "v_" + hashlib.sha256(f"{principal.owner_key}\n{agent}".encode()).hexdigest()[:32]


def _with_current_limits(environment: RulingEnvironment, delegation: Delegation) -> Delegation:
    """Applies the current ceilings and roles to a delegation. Raises TokenRefused when an agent of the chain is not active."""
    principal = delegation.principal
    if principal.issuer == SERVICE_ISSUER:
        delegation = delegation.within(environment.service_ceiling(principal.subject))
    ceilings = [environment.ceiling_now(principal.tenant, hop.agent) for hop in delegation.path]
    known = tuple(ceiling for ceiling in ceilings if ceiling is not None)
    if len(known) < len(ceilings):
        raise TokenRefused("agent-not-active")
    return delegation.with_ceilings(known).with_principal(
        _principal_with_current_roles(environment, principal.tenant, principal.issuer, principal.subject, principal.roles)
    )


def _principal_with_current_roles(
    environment: RulingEnvironment, tenant: str, issuer: str, subject: str, vouched: Sequence[str]
) -> Principal:
    return Principal(tenant, issuer, subject, environment.roles_now(issuer, subject, vouched))


def _check_grant_reference(claims: Claims, delegation: Delegation) -> None:
    """Raises TokenRefused where a hop token and the row of its grant differ, which indicates a splice of two grants."""
    path = tuple(hop.agent for hop in reversed(delegation.path))
    claimed = (claims.actors, claims.task_id, claims.txn, claims.issuer, claims.subject)
    if claimed != (path, delegation.task_id, delegation.txn, delegation.principal.issuer, delegation.principal.subject):
        raise TokenRefused("chain")


def _caller_from_claims(claims: Claims, delegation: Delegation) -> Caller:
    caller = _caller_from_delegation(claims.client_id, claims.token_id, min(claims.expires, delegation.not_after), delegation)
    if not claims.thumbprint and claims.scope_map is None and not claims.session_id:
        return caller
    return replace(caller, thumbprint=claims.thumbprint, scope_map=claims.scope_map, session_id=claims.session_id)


def _caller_from_delegation(client_id: str, token_id: str, expires: float, delegation: Delegation) -> Caller:
    return Caller(delegation.principal, delegation, client_id, token_id, expires, _ruling_key(delegation))


def _ruling_key(delegation: Delegation) -> str:
    """A text of all members of a delegation that rulings depend on: two delegations that differ in one have different keys."""
    principal, path = delegation.principal, [(hop.agent, str(hop.ceiling)) for hop in delegation.path]
    parts = (principal.owner_key, principal.roles, str(delegation.scope), path, delegation.grant_id, delegation.task_id)
    return _encode(parts).decode()
