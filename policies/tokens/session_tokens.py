"""Access tokens of people who signed in at the gateway: for one resource, of one session, with the roles that the provider vouched for."""

from collections.abc import Callable
from dataclasses import dataclass

from policies.delegation.chain import Principal
from policies.keys.signing import SigningKeys
from policies.tokens.hop_tokens import ACCESS_JWT_TYPE


@dataclass(frozen=True, slots=True)
class SessionGrant:
    """What one access token is for. `scope` is the text of the claim; `thumbprint` that of a key, for a token bound to it (RFC 9449)."""

    person: Principal
    session_id: str
    client_id: str
    resource: str
    scope: str
    thumbprint: str = ""


class SessionTokens:
    """Mints access tokens. `issuer` is the gateway's public URL, `life` their lifetime in seconds."""

    def __init__(self, signer: SigningKeys, issuer: str, life: int, new_id: Callable[[str], str]) -> None:
        self._signer = signer
        self._issuer = issuer
        self._new_id = new_id
        self.life = life

    def mint(self, grant: SessionGrant) -> str:
        """An access token (RFC 9068) whose `sid` is the session, so that it ends with it."""
        now, person = int(self._signer.now()), grant.person
        claims = {
            "iss": self._issuer,
            "sub": person.subject,
            "tid": person.tenant,
            "user_iss": person.issuer,
            "aud": grant.resource,
            "client_id": grant.client_id,
            "sid": grant.session_id,
            "roles": list(person.roles),
            "scope": grant.scope,
            "iat": now,
            "exp": now + self.life,
            "jti": self._new_id("j"),
            **({"cnf": {"jkt": grant.thumbprint}} if grant.thumbprint else {}),
        }
        return self._signer.sign(claims, ACCESS_JWT_TYPE)
