"""Strict parsing of JWTs: refuses what libraries accept, before and after the signature is verified."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from jose import jws
from jose.exceptions import JOSEError

from policies import strict_json
from policies.keys.jwks import ALGORITHMS, VettedKey, decode_base64url, is_identifier

TOKEN_MAX = 16_384  # characters; a token with the 200 groups that Entra ID includes has 11,000
SKEW = 30.0  # seconds
ACCESS_TOKEN_TYPES = frozenset({"at+jwt", "application/at+jwt"})  # RFC 9068 s2.1
_REFUSED_HEADERS = frozenset({"crit", "jwk", "jku", "x5u", "x5c", "b64", "zip", "enc"})


UNKNOWN_KEY = "kid"  # the reason of a refusal


class TokenRefused(Exception):
    """The token is not accepted. `reason` is a slug for log and audit; callers only get `invalid_token`.

    `detail` is only for the log: what a token with a verified signature says, and which setting could accept it.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True)
class UnverifiedToken:
    """A parsed token. Nothing in it is trusted before `verify_signature`; it only selects the key set to verify with."""

    token: str = field(repr=False)
    kid: str
    alg: str
    typ: str  # lower case; empty when absent
    claims: Mapping[str, Any] = field(repr=False)


def parse_header_and_claims(token: object) -> tuple[dict[str, Any], dict[str, Any]]:
    """Header and claims of a token of valid size and shape, without cryptography. Raises TokenRefused."""
    if not isinstance(token, str) or len(token) > TOKEN_MAX or token.count(".") != 2:
        raise TokenRefused("shape")
    try:
        header_text, claims_text, signature_text = token.split(".")
        header = strict_json.parse(decode_base64url(header_text))
        claims = strict_json.parse(decode_base64url(claims_text))
        if signature_text:  # an unsigned token is refused by its algorithm later
            decode_base64url(signature_text)
    except ValueError:
        raise TokenRefused("shape") from None
    if not isinstance(header, dict) or not isinstance(claims, dict):
        raise TokenRefused("shape")
    return header, claims


def read_unverified(token: str) -> UnverifiedToken:
    """Checks size, shape and header, without cryptography. Raises TokenRefused."""
    header, claims = parse_header_and_claims(token)
    return UnverifiedToken(token, *_check_header(header), claims)


def _check_header(header: dict[str, Any]) -> tuple[str, str, str]:
    if _REFUSED_HEADERS & header.keys():
        raise TokenRefused("header")
    kid, alg, typ = header.get("kid"), header.get("alg"), header.get("typ", "")
    if not isinstance(typ, str):
        raise TokenRefused("header")
    if not isinstance(alg, str) or alg not in ALGORITHMS:
        raise TokenRefused("alg")
    if not is_identifier(kid):
        raise TokenRefused("kid")
    return str(kid), alg, typ.lower()


def verify_signature(unverified: UnverifiedToken, key: VettedKey | None) -> None:
    """Verifies the signature by the key's own algorithm, and refuses a header that names another. Raises TokenRefused."""
    if key is None:
        raise TokenRefused(UNKNOWN_KEY)
    if unverified.alg != key.alg:
        raise TokenRefused("alg")
    try:
        jws.verify(unverified.token, key.key, [key.alg])
    except (JOSEError, ValueError, TypeError):
        raise TokenRefused("signature") from None


def check_times(claims: Mapping[str, Any], now: float, life: float) -> float:
    """Checks `iat` and `exp`, which are required, and `nbf`, with 30 s of skew. Returns `exp`. Raises TokenRefused."""
    issued, expires = time_claim(claims, "iat"), time_claim(claims, "exp")
    if now - expires > SKEW:
        raise TokenRefused("expired")
    if issued - now > SKEW or time_claim(claims, "nbf", default=0) - now > SKEW:
        raise TokenRefused("not-yet-valid")
    if not 0 < expires - issued <= life:
        raise TokenRefused("lifetime")
    return float(expires)


def time_claim(claims: Mapping[str, Any], name: str, default: int | None = None) -> float:
    """The claim, which must be a number other than a bool. Raises TokenRefused."""
    value = claims.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float):  # the JSON parser refuses NaN and infinities
        raise TokenRefused("times")
    return value


def identifier_claim(claims: Mapping[str, Any], name: str) -> str:
    """The claim, which must be a string of 1 to 256 printable characters. Raises TokenRefused with the claim's name."""
    value = claims.get(name)
    if not is_identifier(value):
        raise TokenRefused(name)
    return str(value)


def single_audience(claims: Mapping[str, Any], audiences: Collection[str]) -> str:
    """The token's only audience, which must equal one of `audiences` exactly. Raises TokenRefused."""
    value = claims.get("aud")
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if not isinstance(value, str) or value not in audiences:
        raise TokenRefused("audience")
    return value
