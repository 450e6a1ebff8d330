"""Tokens for people whom their identity provider vouched for to a client of ours (identity assertion authorization grant, ID-JAG)."""

from dataclasses import dataclass

from policies.delegation.permissions import Permissions
from policies.tokens.claims import Vouched
from policies.tokens.hop_tokens import TYPE, Exchanged, ExchangeRefused, Minting, Pointer, Signer, requested_scope, resources_of
from policies.tokens.replay_guard import SpentIds
from policies.tokens.verifier import Identity, TokenRefused

LIFE = 300  # seconds, at most


@dataclass(frozen=True, slots=True)
class Redeeming:
    """The authenticated agent with its client id, the assertion, and what it asks for; `scope` and `resource` may be empty."""

    tenant: str
    agent: str
    client_id: str
    assertion: str
    resource: str
    scope: str
    thumbprint: str = ""


@dataclass(frozen=True, slots=True)
class Redeemed:
    token: Exchanged
    pointer: Pointer


class PersonTokens:
    """Gives one token for each assertion."""

    def __init__(self, signer: Signer, identity: Identity, spent: SpentIds, minting: Minting) -> None:
        self._signer = signer
        self._identity = identity
        self._spent = spent
        self._minting = minting
        self._resources = resources_of(minting.issuer)

    async def redeem(self, asked: Redeeming) -> Redeemed:
        """A short token for the person, for one resource, that says which agent it was given to. Raises ExchangeRefused."""
        try:
            vouched = await self._identity.vouched(asked.assertion)
        except TokenRefused as refusal:
            raise ExchangeRefused("invalid_grant", f"the assertion is refused: {refusal.reason}") from None
        if vouched.client_id != asked.client_id or vouched.tenant != asked.tenant:
            raise ExchangeRefused("invalid_grant", "the assertion was not issued for this client")
        resource = self._resource(asked.resource, vouched)
        scope = _scope(asked.scope, vouched)
        self._check_ceiling(asked, scope)
        if not await self._spent.spend(asked.tenant, f"id-jag {vouched.issuer} {vouched.token_id}", vouched.expires):
            raise ExchangeRefused("invalid_grant", "the assertion was used before")
        return Redeemed(self._mint(asked, vouched, resource, scope), Pointer(vouched.issuer, vouched.subject, "", "", ""))

    def _check_ceiling(self, asked: Redeeming, scope: Permissions) -> None:
        """Nothing is trimmed: an agent that asks for more than its ceiling is told here, and not when it uses the token."""
        ceiling = self._minting.ceiling_now(asked.tenant, asked.agent)
        if ceiling is None:
            raise ExchangeRefused("invalid_grant", "the agent may not act now")
        if excess := sorted(pattern for pattern in scope.patterns if not ceiling.covers(pattern)):
            raise ExchangeRefused("invalid_scope", f"above the ceiling of this agent: {' '.join(excess)}")

    def _resource(self, asked: str, vouched: Vouched) -> str:
        resource = asked or vouched.resource
        if vouched.resource and resource != vouched.resource:
            raise ExchangeRefused("invalid_target", "the assertion is for another resource")
        if resource != self._minting.issuer and not self._resources.fullmatch(resource):
            raise ExchangeRefused("invalid_target", "resource must be the URL of this gateway, or of an agent or MCP endpoint of it")
        return resource

    def _mint(self, asked: Redeeming, vouched: Vouched, resource: str, scope: Permissions) -> Exchanged:
        now = int(self._minting.now())
        claims = {
            "iss": self._minting.issuer,
            "sub": vouched.subject,
            "tid": vouched.tenant,
            "user_iss": vouched.issuer,
            "aud": resource,
            "client_id": asked.client_id,
            "agent": asked.agent,
            "roles": list(vouched.roles),
            "scope": str(scope),
            "txn": self._minting.new_id("x"),  # what is done with it is one errand
            "iat": now,
            "exp": now + LIFE,
            "jti": self._minting.new_id("j"),
            **({"cnf": {"jkt": asked.thumbprint}} if asked.thumbprint else {}),
        }
        return Exchanged(self._signer.sign(claims, TYPE), LIFE, str(scope), bound=bool(asked.thumbprint))


def _scope(asked: str, vouched: Vouched) -> Permissions:
    """What is asked for, which the assertion has to cover where it has a scope; else all that the assertion names."""
    if not asked:
        if vouched.scope is None or not vouched.scope.patterns:
            raise ExchangeRefused("invalid_scope", "scope is missing, and the assertion has none")
        return vouched.scope
    requested = requested_scope(asked)
    if vouched.scope is not None and not requested.within(vouched.scope):
        raise ExchangeRefused("invalid_scope", "not in the scope of the assertion")
    return requested
