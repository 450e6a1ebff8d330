"""Hop tokens: issued to agents with a task, and exchanged by them. Each refers to a grant row and can only narrow it."""

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from policies.delegation.chain import CannotNarrow, Delegation
from policies.delegation.grants import GrantEnded, Grants
from policies.delegation.kills import Killed
from policies.delegation.permissions import NO_PERMISSIONS, BadPermission, Permissions
from policies.delegation.rulings import Grant
from policies.keys.signing import SigningKeys
from policies.tokens.issued import ACCESS_JWT_TYPE, IssuedToken, access_token_claims
from policies.tokens.verifier import Claims, TokenRefused, TokenVerifier


async def _never_running(_tenant: str, _task_id: str) -> bool:
    """The default of `is_running`: without a task log no turn is known to run, and no token is renewed."""
    return False


@dataclass(frozen=True, slots=True)
class MintingParameters:
    """Parameters of token minting. `issuer` is the gateway's public URL, `ttl` the lifetime of hop tokens in seconds (at most 120).

    `ceiling_now` returns an agent's current ceiling by tenant and name, None where the agent may not act. `is_running` tells whether a turn
    of a task is running, by tenant and id.
    """

    issuer: str
    ttl: int
    new_id: Callable[[str], str]
    now: Callable[[], float]
    ceiling_now: Callable[[str, str], Permissions | None]
    is_running: Callable[[str, str], Awaitable[bool]] = _never_running


@dataclass(frozen=True, slots=True)
class TokenExchangeRequest:
    """A token exchange (RFC 8693): the authenticated agent, the audience of its tokens, and the requested resource and scope."""

    tenant: str
    agent: str
    agent_audience: str
    subject_token: str
    resource: str
    scope: str
    thumbprint: str = ""  # of the key that the token will be bound to


@dataclass(frozen=True, slots=True)
class TokenExchangeResponse:
    access_token: str
    expires_in: int
    scope: str
    delegation: Delegation | None = None
    is_key_bound: bool = False  # to a key by DPoP (RFC 9449)
    renewed: bool = False  # it replaces the token that the agent was given with its task


@dataclass(frozen=True, slots=True)
class GrantReference:
    """The person, transaction, task and grant that a token of the gateway refers to."""

    issuer: str
    subject: str
    txn: str
    task_id: str
    grant_id: str


class ExchangeRefused(Exception):
    """An exchange is refused. `error` is an OAuth error code; `description` is safe to show.

    `grant_reference` is for the audit log; None where the token has none.
    """

    def __init__(self, error: str, description: str) -> None:
        super().__init__(description)
        self.error = error
        self.description = description
        self.grant_reference: GrantReference | None = None


class HopTokens:
    """Mints tokens for grants, exchanges and renews them."""

    def __init__(self, signer: SigningKeys, identity: TokenVerifier, grants: Grants, minting: MintingParameters) -> None:
        self._signer = signer
        self._identity = identity
        self._grants = grants
        self._minting = minting
        self._resources = resource_pattern(minting.issuer)

    @property
    def ttl(self) -> int:
        """The lifetime of a hop token in seconds."""
        return self._minting.ttl

    def mint_credential(self, grant: Grant, audience: str) -> str:
        """The token that the invoked agent is given. `audience` is the agent's own URL.

        Its scope is what the ceilings leave, since an exchange refuses a token with more than that.
        """
        return self._mint_token(grant.delegation, grant.delegation.effective_permissions(), audience)[0]

    async def exchange(self, request: TokenExchangeRequest) -> TokenExchangeResponse:
        """A token for one resource of this gateway with at most `request.scope`. Raises ExchangeRefused."""
        claims = await self._verify_subject_token(request)
        try:
            return await self._exchange_claims(request, claims)
        except ExchangeRefused as refusal:
            refusal.grant_reference = _grant_reference_of(claims, request.tenant)
            raise

    def is_renewal(self, request: TokenExchangeRequest) -> bool:
        """Whether an agent requests a token for itself, in place of the one that it was given."""
        return request.resource == request.agent_audience and not self._resources.fullmatch(request.resource)

    async def renew(self, request: TokenExchangeRequest) -> TokenExchangeResponse:
        """A new token in place of the one that an agent was given with a task, which may have expired, while the task's turn runs.

        The old token only refers to the grant, which must be valid together with its ancestors. The new token has at most the old one's
        scope, under the current ceilings; without `request.scope` it has the same. Raises ExchangeRefused.
        """
        try:
            claims = self._identity.read_issued(request.subject_token, request.agent_audience)
        except TokenRefused as refusal:
            raise ExchangeRefused("invalid_grant", f"the subject_token is refused: {refusal.reason}") from None
        try:
            return await self._renew_token(request, claims)
        except ExchangeRefused as refusal:
            refusal.grant_reference = _grant_reference_of(claims, request.tenant)
            raise

    async def _renew_token(self, request: TokenExchangeRequest, claims: Claims) -> TokenExchangeResponse:
        delegation = await self._delegation(request, claims)
        if (delegation.task_id, delegation.txn) != (claims.task_id, claims.txn):
            raise ExchangeRefused("invalid_grant", "the subject_token was issued for another task")
        if not claims.task_id or not await self._minting.is_running(request.tenant, claims.task_id):
            raise ExchangeRefused(
                "invalid_grant", "a token can only be renewed while the agent works on its task, which is paused or has ended"
            )
        requested = parse_requested_scope(request.scope) if request.scope else claims.scope or NO_PERMISSIONS
        narrowed = self._narrow_delegation(request, claims, delegation, requested)
        token, seconds = self._mint_token(narrowed, requested, request.resource, request.thumbprint)
        return TokenExchangeResponse(token, seconds, str(requested), narrowed, bool(request.thumbprint), renewed=True)

    async def _exchange_claims(self, request: TokenExchangeRequest, claims: Claims) -> TokenExchangeResponse:
        if not self._resources.fullmatch(request.resource):
            raise ExchangeRefused("invalid_target", "resource must be the URL of an agent or MCP endpoint of this gateway, or your own")
        requested = parse_requested_scope(request.scope)
        delegation = await self._delegation(request, claims)
        narrowed = self._narrow_delegation(request, claims, delegation, requested)
        if claims.expires <= self._minting.now():
            raise ExchangeRefused("invalid_grant", "the subject_token has expired; renew it first")
        ending = msgspec.structs.replace(narrowed, not_after=min(claims.expires, delegation.not_after))
        token, seconds = self._mint_token(ending, requested, request.resource, request.thumbprint)
        self._identity.owners.remember(token, ending.principal.owner_key)  # the agent calls the gateway with it
        return TokenExchangeResponse(token, seconds, str(requested), narrowed, bool(request.thumbprint))

    async def _delegation(self, request: TokenExchangeRequest, claims: Claims) -> Delegation:
        """The current delegation of the grant that the token refers to, if it was made for this agent. Raises ExchangeRefused."""
        if claims.kind != "hop" or claims.tenant != request.tenant or claims.client_id != request.agent:
            raise ExchangeRefused("invalid_grant", "the subject_token was not issued to this client")
        try:
            delegation = await self._grants.find(claims.tenant, claims.grant_id)
        except GrantEnded:
            raise ExchangeRefused("invalid_grant", "the task that the subject_token stands for has ended or was revoked") from None
        except Killed:
            raise ExchangeRefused("invalid_grant", "an operator has stopped the person or an agent of the chain (killed)") from None
        if delegation.actor != request.agent:
            raise ExchangeRefused("invalid_grant", "the subject_token was not issued to this client")
        return delegation

    def _narrow_delegation(
        self, request: TokenExchangeRequest, claims: Claims, delegation: Delegation, requested: Permissions
    ) -> Delegation:
        """The delegation narrowed by the token, the current ceilings and the request. Raises ExchangeRefused."""
        ceilings = tuple(self._current_ceiling(request.tenant, hop.agent) for hop in delegation.path)
        try:
            return delegation.narrow_scope(claims.scope or NO_PERMISSIONS).with_ceilings(ceilings).narrow_scope(requested)
        except CannotNarrow as refusal:
            raise ExchangeRefused("invalid_scope", f"not held by this delegation: {refusal.missing or 'anything'}") from None

    def _current_ceiling(self, tenant: str, agent: str) -> Permissions:
        """The agent's current ceiling. Raises ExchangeRefused if it may not act: no token is issued that would be refused when used."""
        ceiling = self._minting.ceiling_now(tenant, agent)
        if ceiling is None:
            raise ExchangeRefused("invalid_grant", "an agent of the chain may not act now")
        return ceiling

    async def _verify_subject_token(self, request: TokenExchangeRequest) -> Claims:
        try:
            return await self._identity.verify(request.subject_token, (request.agent_audience,))
        except TokenRefused as refusal:
            raise ExchangeRefused("invalid_grant", f"the subject_token is refused: {refusal.reason}") from None

    def _mint_token(self, delegation: Delegation, scope: Permissions, audience: str, thumbprint: str = "") -> tuple[str, int]:
        now = int(self._minting.now())
        expires = min(now + self._minting.ttl, int(delegation.not_after))
        actor = _actor_claim(delegation)
        kind = {
            "act": actor,
            "txn": delegation.txn,
            "task": delegation.task_id,
            "dlg_max": delegation.depth_max,
            "grant": delegation.grant_id,
        }
        token = IssuedToken(delegation.principal, audience, actor.get("sub", ""), str(scope), thumbprint, kind)
        claims = access_token_claims(self._minting.issuer, self._minting.new_id("j"), now, expires, token)
        return self._signer.sign(claims, ACCESS_JWT_TYPE), max(0, expires - now)


def resource_pattern(issuer: str) -> re.Pattern[str]:
    """A pattern of the URLs that a token may be for: an agent, one MCP server, or all tools. It matches exactly."""
    return re.compile(rf"{re.escape(issuer)}/(mcp(/[a-z0-9-]{{1,64}})?|agents/[a-z0-9-]{{1,64}})")


def _grant_reference_of(claims: Claims, tenant: str) -> GrantReference | None:
    """The reference in a hop token of this tenant; else None."""
    if claims.kind != "hop" or claims.tenant != tenant:
        return None
    return GrantReference(claims.issuer, claims.subject, claims.txn, claims.task_id, claims.grant_id)


def _actor_claim(delegation: Delegation) -> dict[str, Any]:
    """The `act` claim (RFC 8693 s4.1): the current actor outside, earlier ones inside."""
    nested: dict[str, Any] = {}
    for hop in delegation.path:
        nested = {"sub": hop.agent, "act": nested} if nested else {"sub": hop.agent}
    return nested


def parse_requested_scope(scope: str) -> Permissions:
    """The requested scope: at least one permission, single spaces, no duplicates. Raises ExchangeRefused."""
    texts = scope.split(" ")
    try:
        requested = Permissions.parse(texts)
    except BadPermission as error:
        raise ExchangeRefused("invalid_scope", f"{error}; name each permission that the call needs") from None
    if len(requested.patterns) != len(texts):
        raise ExchangeRefused("invalid_scope", "a permission is requested twice")
    return requested
