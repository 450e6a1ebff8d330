"""Callers: who stands at a door, with the roles and under the ceilings of this moment."""

import hashlib
import math
from collections.abc import Collection, Mapping, Sequence

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from policies.cache import BoundedCache
from policies.delegation.chain import CannotNarrow, Delegation, Hop
from policies.delegation.grants import GrantEnded
from policies.delegation.kills import Killed
from policies.delegation.permissions import ALL, NONE, Permissions
from policies.delegation.principal import Principal
from policies.environment import GrantRows, Surroundings, Verifier
from policies.tokens.verifier import Claims, TokenRefused

CACHED_SECONDS = 60.0
_encode = msgspec.json.Encoder().encode


class Caller(Struct, frozen=True):
    """Whoever stands at a door: a person, or an agent that acts for one. `key` sums up all that rulings depend on."""

    principal: Principal
    delegation: Delegation
    client_id: str
    token_id: str
    expires: float
    key: str
    thumbprint: str = ""  # of the key that has to be shown beside the token, where it is bound to one
    scope_map: Mapping[str, Permissions] | None = None  # what the scopes of the person's issuer stand for, where it has its own


class Supposed(Struct, frozen=True):
    """A person who is not here, through agents with the most that each may do: for questions about what would be ruled."""

    principal: Principal
    scope: Permissions = ALL
    path: tuple[Hop, ...] = ()


class Callers:
    """Finds out who comes with what. Remembers people whose token it saw."""

    def __init__(self, identity: Verifier, grants: GrantRows, around: Surroundings) -> None:
        self._identity = identity
        self._grants = grants
        self._around = around
        # by the id of the claims, which nothing else gets while they are here
        self._people: BoundedCache[int, tuple[Claims, Caller]] = BoundedCache(10_000, around.now)

    def forget(self) -> None:
        """Believes nothing found out before. Called after each change of registry, grants or policies."""
        self._people.clear()
        self._grants.forget()

    async def admit(self, token: str, audiences: Collection[str]) -> Caller:
        """Who a bearer token stands for. Raises TokenRefused, and Killed for what an operator has stopped."""
        claims = self._identity.cached(token, audiences)
        if claims is None:
            claims = await self._identity.verify(token, audiences)
        if claims.expires <= self._around.now():  # no skew here: whoever came in with it would be refused everything
            raise TokenRefused("expired")
        if claims.kind == "hop":
            return await self._actor(claims)
        if not self._around.fresh():
            await self._around.kills.reload()
        self._around.kills.admit(claims.tenant, claims.issuer, claims.subject)
        if claims.agent:  # what it may do is the registry's to say, now
            return self._vouched(claims)
        known = self._people.get(id(claims))
        if known is not None:
            return known[1]
        caller = _person(self._around, claims)
        self._people.put(id(claims), (claims, caller), CACHED_SECONDS)
        return caller

    async def acting(self, tenant: str, agent: str, grant_id: str) -> Caller:
        """An agent that proved who it is, and to have been handed the ticket of a grant. Raises TokenRefused and Killed."""
        delegation = await self._granted(tenant, grant_id)
        if delegation.actor != agent:
            raise TokenRefused("ticket")
        return _caller(delegation.actor, "", delegation.not_after, _today(self._around, delegation))

    async def at_work(self, tenant: str, agent: str, grant_id: str) -> Caller:
        """An agent in the turn that a grant was made for, with what is left of the grant now. Raises TokenRefused and Killed."""
        self._grants.forget(tenant, grant_id)
        return await self.acting(tenant, agent, grant_id)

    async def resumed(self, tenant: str, grant_id: str, task_id: str, callee: str = "") -> Caller:
        """Who left authority behind, with what is left of it: in `task_id`; `callee` is to be called again. Raises TokenRefused, Killed."""
        self._grants.forget(tenant, grant_id)
        now = _today(self._around, await self._granted(tenant, grant_id)).without(callee)
        return _caller(now.actor, "", now.not_after, now.rooted(grant_id, task_id, now.txn))

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
            await self._around.kills.reload()
            self._grants.forget(tenant, grant_id)
        try:
            return await self._grants.find(tenant, grant_id)
        except GrantEnded:
            raise TokenRefused("grant-ended") from None


def supposed(who: Supposed) -> Caller:
    """Nobody may do anything by it."""
    delegation = Delegation(who.principal, who.scope, math.inf, who.path)
    return Caller(who.principal, delegation, "", "", math.inf, _key(delegation))


def _person(around: Surroundings, claims: Claims) -> Caller:
    principal = _principal(around, claims.tenant, claims.issuer, claims.subject, claims.roles)
    scope = ALL if claims.scope is None else claims.scope
    if claims.agent:
        begun = Delegation(principal, scope, claims.expires, (Hop(claims.agent),))
        return _called(claims, _today(around, begun.rooted("", _standing(principal, claims.agent), claims.txn)))
    return _called(claims, Delegation(principal, scope, max(claims.expires, around.now() + around.task_ttl)))


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


def _check_pointer(claims: Claims, delegation: Delegation) -> None:
    """A hop token must say of its grant what the row says; a mix of two is a splice."""
    path = tuple(hop.agent for hop in reversed(delegation.path))
    said = (claims.actors, claims.task_id, claims.txn, claims.issuer, claims.subject)
    if said != (path, delegation.task_id, delegation.txn, delegation.principal.issuer, delegation.principal.subject):
        raise TokenRefused("chain")


def _called(claims: Claims, delegation: Delegation) -> Caller:
    caller = _caller(claims.client_id, claims.token_id, min(claims.expires, delegation.not_after), delegation)
    if not claims.thumbprint and claims.scope_map is None:
        return caller
    return replace(caller, thumbprint=claims.thumbprint, scope_map=claims.scope_map)


def _caller(client_id: str, token_id: str, expires: float, delegation: Delegation) -> Caller:
    return Caller(delegation.principal, delegation, client_id, token_id, expires, _key(delegation))


def _key(delegation: Delegation) -> str:
    """All of a delegation that rulings depend on, so that no two have the same that differ in it."""
    principal, path = delegation.principal, [(hop.agent, str(hop.ceiling)) for hop in delegation.path]
    parts = (principal.owner, principal.roles, str(delegation.scope), path, delegation.grant_id, delegation.task_id)
    return _encode(parts).decode()
