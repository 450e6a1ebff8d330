"""private_key_jwt: an agent authenticates with a key of its own (RFC 7523)."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from hashlib import sha256

from policies import strict_json
from policies.cache import BoundedCache
from policies.keys.jwks import BadKeySet, VettedKey, vet_key_set
from policies.keys.strict_jwt import TokenRefused, check_times, identifier_claim, read_unverified, single_audience, verify_signature

ASSERTION_LIFE_MAX = 300.0  # seconds
_TYPES = frozenset({"", "jwt", "client-authentication+jwt"})


@dataclass(frozen=True, slots=True)
class Assertion:
    """A verified assertion. The caller consumes `id` once, and remembers it until `not_after` (seconds since 1970)."""

    client_id: str
    id: str
    not_after: float


def claimed_client_id(assertion: str) -> str:
    """The client id that the unverified assertion claims, to look up its keys. Raises TokenRefused."""
    return identifier_claim(read_unverified(assertion).claims, "sub")


class ClientAssertionVerifier:
    """Verifies assertions for `audiences`: the gateway's token endpoint and issuer name. `now` counts seconds since 1970."""

    def __init__(self, audiences: Collection[str], now: Callable[[], float]) -> None:
        self._audiences = audiences
        self._now = now
        self._key_sets: BoundedCache[bytes, dict[str, VettedKey]] = BoundedCache(1000, now)

    def verify(self, assertion: str, client_id: str, jwks: str) -> Assertion:
        """Verifies an assertion of `client_id` with `jwks`, the JWK Set that the client registered, as JSON. Raises TokenRefused.

        RFC 7523 s3: `iss` and `sub` are the client, one audience is the gateway's, `exp` is within 5 minutes. `iat` and `jti` are required.
        """
        unverified = read_unverified(assertion)
        if unverified.typ not in _TYPES:
            raise TokenRefused("type")
        verify_signature(unverified, self._parse_keys(jwks).get(unverified.kid))
        claims = unverified.claims
        if claims.get("iss") != client_id or claims.get("sub") != client_id:
            raise TokenRefused("client")
        single_audience(claims, self._audiences)
        return Assertion(client_id, identifier_claim(claims, "jti"), check_times(claims, self._now(), ASSERTION_LIFE_MAX))

    def _parse_keys(self, jwks: str) -> dict[str, VettedKey]:
        digest = sha256(jwks.encode()).digest()
        keys = self._key_sets.get(digest)
        if keys is None:
            try:
                keys = vet_key_set(strict_json.parse(jwks.encode()))
            except (BadKeySet, strict_json.BadJson):
                raise TokenRefused("client-keys") from None
            self._key_sets.put(digest, keys, 3600.0)
        return keys
