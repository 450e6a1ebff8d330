"""Access tokens of people who signed in at the gateway: for one resource, of one session, with the roles that the provider vouched for."""

from collections.abc import Callable
from dataclasses import dataclass

from policies.delegation.chain import Principal
from policies.keys.signing import SigningKeys
from policies.tokens.issued import ACCESS_JWT_TYPE, IssuedToken, access_token_claims


@dataclass(frozen=True, slots=True)
class SessionGrant:
    """What one access token is for. `scope` is the text of the claim, `until` the end of the session in seconds since 1970.

    `thumbprint` is that of a key, for a token bound to it (RFC 9449).
    """

    person: Principal
    session_id: str
    client_id: str
    resource: str
    scope: str
    until: float
    thumbprint: str


class SessionTokens:
    """Mints access tokens. `issuer` is the gateway's public URL, `life` their longest lifetime in seconds."""

    def __init__(self, signer: SigningKeys, issuer: str, life: int, new_id: Callable[[str], str]) -> None:
        self._signer = signer
        self._issuer = issuer
        self._life = life
        self._new_id = new_id

    def mint(self, grant: SessionGrant) -> tuple[str, int]:
        """An access token (RFC 9068) and its lifetime in seconds. Its `sid` is the session, with which it ends at the latest."""
        now = int(self._signer.now())
        expires = min(now + self._life, int(grant.until))
        kind = {"sid": grant.session_id, "roles": list(grant.person.roles)}
        token = IssuedToken(grant.person, grant.resource, grant.client_id, grant.scope, grant.thumbprint, kind)
        claims = access_token_claims(self._issuer, self._new_id("j"), now, expires, token)
        return self._signer.sign(claims, ACCESS_JWT_TYPE), max(0, expires - now)
