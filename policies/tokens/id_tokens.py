"""ID tokens of identity providers: who signed in, for the gateway as their client (OpenID Connect Core s3.1.3.7)."""

import hmac
from collections.abc import Mapping
from typing import Any

from policies.delegation.chain import Principal
from policies.keys.strict_jwt import ACCESS_TOKEN_TYPES, TokenRefused, UnverifiedToken, check_times
from policies.tokens.claims import tenant_of_issuer
from policies.tokens.issuers import AUDIENCES_MAX, TrustedIssuer, roles_of, subject_of

ID_TOKEN_LIFE = 86_400.0  # seconds between `iat` and `exp`


def check_is_id_token(unverified: UnverifiedToken, client_id: str, nonce: str, now: float) -> None:
    """Checks that a token is an ID token for this client and this request. Raises TokenRefused.

    `nonce` is that of the authorization request; empty for a token of a refresh, which may repeat it or leave it out (s12.2).
    """
    claims = unverified.claims
    if unverified.typ in ACCESS_TOKEN_TYPES:
        raise TokenRefused("type")
    audience = claims.get("aud")
    audiences = audience if isinstance(audience, list) else [audience]
    if client_id not in audiences or len(audiences) > AUDIENCES_MAX:
        raise TokenRefused("audience")
    if claims.get("azp", client_id) != client_id or (len(audiences) > 1 and "azp" not in claims):
        raise TokenRefused("azp")
    given = claims.get("nonce")
    if nonce and not (isinstance(given, str) and hmac.compare_digest(given.encode(), nonce.encode())):
        raise TokenRefused("nonce")
    check_times(claims, now, ID_TOKEN_LIFE)


def person_of(claims: Mapping[str, Any], trusted: TrustedIssuer, role_claims: Mapping[str, Any]) -> Principal:
    """The person of verified claims. The roles come from `role_claims`, which are of the same person. Raises TokenRefused."""
    return Principal(tenant_of_issuer(claims, trusted), trusted.issuer, subject_of(claims, trusted), roles_of(role_claims, trusted))
