"""The claims of the access tokens that the gateway issues, of every kind, in one place (RFC 9068). `claims.py` reads them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from policies.delegation.chain import Principal

ACCESS_JWT_TYPE: Final = "at+jwt"


@dataclass(frozen=True, slots=True)
class IssuedToken:
    """What one access token says. `audience` is its one resource, `scope` the text of the claim, `kind` the claims of its kind alone.

    `thumbprint` is that of the key that the token is bound to (RFC 9449), or "".
    """

    person: Principal
    audience: str
    client_id: str
    scope: str
    thumbprint: str
    kind: Mapping[str, Any]


def access_token_claims(issuer: str, token_id: str, issued_at: int, expires: int, token: IssuedToken) -> dict[str, Any]:
    """The claims of an access token. `issuer` is the gateway; the times are seconds since 1970."""
    person = token.person
    return {
        "iss": issuer,
        "sub": person.subject,
        "tid": person.tenant,
        "user_iss": person.issuer,
        "aud": token.audience,
        "client_id": token.client_id,
        "scope": token.scope,
        **token.kind,
        "iat": issued_at,
        "exp": expires,
        "jti": token_id,
        **({"cnf": {"jkt": token.thumbprint}} if token.thumbprint else {}),
    }
