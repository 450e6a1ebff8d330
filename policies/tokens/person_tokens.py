"""Tokens for people, by assertions of their identity provider (identity assertion authorization grant, ID-JAG)."""

from dataclasses import dataclass

from policies.delegation.chain import Principal
from policies.delegation.permissions import Permissions
from policies.keys.signing import SigningKeys
from policies.tokens.claims import IdentityAssertionClaims
from policies.tokens.hop_tokens import (
    ExchangeRefused,
    GrantReference,
    MintingParameters,
    TokenExchangeResponse,
    parse_requested_scope,
    resource_pattern,
)
from policies.tokens.issued import ACCESS_JWT_TYPE, IssuedToken, access_token_claims
from policies.tokens.replay_guard import ReplayGuard
from policies.tokens.verifier import TokenRefused, TokenVerifier

TOKEN_LIFE = 300  # seconds, at most


@dataclass(frozen=True, slots=True)
class AssertionExchangeRequest:
    """An exchange: the authenticated agent and its client id, the assertion, and the requested `resource` and `scope`, or empty."""

    tenant: str
    agent: str
    client_id: str
    assertion: str
    resource: str
    scope: str
    thumbprint: str = ""


@dataclass(frozen=True, slots=True)
class AssertionExchangeResponse:
    token: TokenExchangeResponse
    grant_reference: GrantReference


class PersonTokens:
    """Exchanges each identity assertion for one token."""

    def __init__(self, signer: SigningKeys, identity: TokenVerifier, replay_guard: ReplayGuard, minting: MintingParameters) -> None:
        self._signer = signer
        self._identity = identity
        self._replay_guard = replay_guard
        self._minting = minting
        self._resources = resource_pattern(minting.issuer)

    async def redeem(self, request: AssertionExchangeRequest) -> AssertionExchangeResponse:
        """A short-lived token for the person, for one resource, issued to the agent. Raises ExchangeRefused."""
        try:
            vouched = await self._identity.verify_identity_assertion(request.assertion)
        except TokenRefused as refusal:
            raise ExchangeRefused("invalid_grant", f"the assertion is refused: {refusal.reason}") from None
        if vouched.client_id != request.client_id or vouched.tenant != request.tenant:
            raise ExchangeRefused("invalid_grant", "the assertion was not issued for this client")
        resource = self._choose_resource(request.resource, vouched)
        scope = _choose_scope(request.scope, vouched)
        self._check_ceiling(request, scope)
        if not await self._replay_guard.consume(request.tenant, f"id-jag {vouched.issuer} {vouched.token_id}", vouched.expires):
            raise ExchangeRefused("invalid_grant", "the assertion was used before")
        return AssertionExchangeResponse(
            self._mint_token(request, vouched, resource, scope), GrantReference(vouched.issuer, vouched.subject, "", "", "")
        )

    def _check_ceiling(self, request: AssertionExchangeRequest, scope: Permissions) -> None:
        """Raises ExchangeRefused for a scope above the agent's ceiling, rather than trimming it: the agent learns of it at once."""
        ceiling = self._minting.ceiling_now(request.tenant, request.agent)
        if ceiling is None:
            raise ExchangeRefused("invalid_grant", "the agent may not act now")
        if excess := sorted(pattern for pattern in scope.patterns if not ceiling.covers(pattern)):
            raise ExchangeRefused("invalid_scope", f"above the ceiling of this agent: {' '.join(excess)}")

    def _choose_resource(self, requested: str, vouched: IdentityAssertionClaims) -> str:
        resource = requested or vouched.resource
        if vouched.resource and resource != vouched.resource:
            raise ExchangeRefused("invalid_target", "the assertion is for another resource")
        if resource != self._minting.issuer and not self._resources.fullmatch(resource):
            raise ExchangeRefused("invalid_target", "resource must be the URL of this gateway, or of an agent or MCP endpoint of it")
        return resource

    def _mint_token(
        self, request: AssertionExchangeRequest, vouched: IdentityAssertionClaims, resource: str, scope: Permissions
    ) -> TokenExchangeResponse:
        now = int(self._minting.now())
        person = Principal(vouched.tenant, vouched.issuer, vouched.subject, vouched.roles)
        txn = self._minting.new_id("x")  # everything done with the token is one transaction
        kind = {"agent": request.agent, "roles": list(vouched.roles), "txn": txn}
        token = IssuedToken(person, resource, request.client_id, str(scope), request.thumbprint, kind)
        claims = access_token_claims(self._minting.issuer, self._minting.new_id("j"), now, now + TOKEN_LIFE, token)
        return TokenExchangeResponse(
            self._signer.sign(claims, ACCESS_JWT_TYPE), TOKEN_LIFE, str(scope), is_key_bound=bool(request.thumbprint)
        )


def _choose_scope(requested_text: str, vouched: IdentityAssertionClaims) -> Permissions:
    """The requested scope, which the assertion's scope must cover; without a request the assertion's scope. Raises ExchangeRefused."""
    if not requested_text:
        if vouched.scope is None or not vouched.scope.patterns:
            raise ExchangeRefused("invalid_scope", "scope is missing, and the assertion has none")
        return vouched.scope
    requested = parse_requested_scope(requested_text)
    if vouched.scope is not None and not requested.is_within(vouched.scope):
        raise ExchangeRefused("invalid_scope", "not in the scope of the assertion")
    return requested
