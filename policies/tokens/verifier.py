"""Verifies bearer tokens and returns their claims: of trusted issuers, the development issuer, and the gateway itself."""

from collections.abc import Callable, Collection, Sequence
from hashlib import sha256

import structlog

from policies.cache import BoundedCache
from policies.delegation.chain import Principal
from policies.ids import new_id
from policies.keys.jwks import KeySetFetch, RemoteKeySet
from policies.keys.signing import SigningKeys
from policies.keys.strict_jwt import (
    ACCESS_TOKEN_TYPES,
    TOKEN_MAX,
    TokenRefused,
    UnverifiedToken,
    read_unverified,
    single_audience,
    time_claim,
    verify_signature,
)
from policies.tokens.claims import (
    DEVELOPMENT_ISSUER,
    Claims,
    IdentityAssertionClaims,
    development_claims,
    external_claims,
    hop_claims,
    identity_assertion_claims,
    person_claims,
    session_claims,
)
from policies.tokens.id_tokens import check_is_id_token, person_of
from policies.tokens.issued import ACCESS_JWT_TYPE
from policies.tokens.issuers import TrustedIssuer, audience_of, check_is_access_token, explain_refusal
from policies.tokens.owners import TokenOwners

__all__ = ["DEVELOPMENT_ISSUER", "Claims", "TokenRefused", "TokenVerifier", "TrustedIssuer", "mint_development_token"]

# What identity providers commonly send instead of RFC 9068's type. An ID token has it too: `check_is_access_token` tells them apart.
_EXTERNAL_TYPES = ACCESS_TOKEN_TYPES | {"jwt", ""}
_ASSERTION_TYPES = frozenset({"oauth-id-jag+jwt", "application/oauth-id-jag+jwt"})  # never the type of an access token
_CACHE_SIZE = 10_000
_CACHE_SECONDS = 60.0
log = structlog.get_logger()


class TokenVerifier:
    """Verifies bearer tokens. Every failure is a TokenRefused: there is no default person. Uses the clock of `keys`."""

    def __init__(
        self,
        public_url: str,
        keys: SigningKeys,
        issuers: Sequence[TrustedIssuer],
        fetch: KeySetFetch,
        development: bool = False,
        *,
        is_session_ended: Callable[[str], bool] = lambda _session_id: True,
    ) -> None:
        """`is_session_ended`: whether the session of a token has ended. Without it, tokens of sessions are refused.

        Raises ValueError for an issuer that is listed twice, is the gateway itself, or contains the separator of owner keys.
        """
        names = {trusted.issuer for trusted in issuers}
        if len(names) != len(issuers) or names & {public_url, DEVELOPMENT_ISSUER, ""} or any("|" in name for name in names):
            raise ValueError("issuers need different names, without |, that are not the gateway's or its development issuer's")
        if any(len(trusted.tenants) > 1 and not trusted.tenant_claim for trusted in issuers):
            raise ValueError("an issuer with several tenants needs a tenant_claim")
        self._public_url = public_url
        self._keys = keys
        self._development = development
        self._is_session_ended = is_session_ended
        self._now = keys.now
        self._issuers = {t.issuer: (t, RemoteKeySet(t.jwks_url, fetch, keys.now, t.algorithms)) for t in issuers}
        self._cache: BoundedCache[bytes, Claims] = BoundedCache(_CACHE_SIZE, keys.now)
        self.owners = TokenOwners(keys.now)

    def find_cached(self, token: str, audiences: Collection[str]) -> Claims | None:
        """The claims of a token verified in the last minute for one of `audiences`; else None, and `verify` decides."""
        if len(token) > TOKEN_MAX:
            return None
        claims = self._cache.get(_digest(token))
        return claims if claims is not None and claims.audience in audiences else None

    async def verify(self, token: str, audiences: Collection[str]) -> Claims:
        """Verifies a token that names exactly one of `audiences`, URIs of the gateway. Raises TokenRefused with a reason for the log."""
        try:
            claims = self.find_cached(token, audiences)
            if claims is None:
                claims = await self._verify_uncached(read_unverified(token), audiences)
                self._cache.put(_digest(token), claims, min(claims.expires - self._now(), _CACHE_SECONDS))
                self.owners.remember(token, f"{claims.tenant}|{claims.issuer}|{claims.subject}")
        except TokenRefused:
            raise
        except Exception as error:  # no failure of a token check may let a request pass
            log.exception("token_reading_failed")
            raise TokenRefused("internal") from error
        return claims

    def read_issued(self, token: str, audience: str = "") -> Claims:
        """The claims of a token that the gateway issued to an agent, for `audience` or any resource, even if it has expired.

        It authorizes nothing: it only refers to a grant. Raises TokenRefused.
        """
        unverified = read_unverified(token)
        if unverified.claims.get("iss") != self._public_url:
            raise TokenRefused("issuer")
        audience_claim = unverified.claims.get("aud")  # an agent's URL of any length
        audiences = (audience,) if audience else (audience_claim,) if isinstance(audience_claim, str) else ()
        return self._verify_issued(unverified, audiences, min(self._now(), time_claim(unverified.claims, "exp")))

    def trusts(self, issuer: str) -> bool:
        """Whether the settings name this issuer of people; the development issuer counts while it is on."""
        return issuer in self._issuers or (self._development and issuer == DEVELOPMENT_ISSUER)

    def invalidate(self) -> None:
        """Drops all cached claims: keys or issuers changed."""
        self._cache.clear()

    async def _verify_uncached(self, unverified: UnverifiedToken, audiences: Collection[str]) -> Claims:
        issuer = unverified.claims.get("iss")
        if issuer == self._public_url:
            return self._verify_issued(unverified, audiences, self._now())
        if issuer == DEVELOPMENT_ISSUER and self._development:
            self._check_issued(unverified)
            return development_claims(unverified.claims, audiences, self._now())
        if not isinstance(issuer, str) or issuer not in self._issuers:
            raise TokenRefused("issuer")
        return await self._verify_external(unverified, issuer, audiences)

    async def verify_identity_assertion(self, assertion: str) -> IdentityAssertionClaims:
        """The claims of an identity assertion (ID-JAG) for the gateway, from an issuer that may make them. Raises TokenRefused."""
        unverified = read_unverified(assertion)
        issuer = unverified.claims.get("iss")
        trusted, keys = self._issuers.get(issuer, (None, None)) if isinstance(issuer, str) else (None, None)
        if trusted is None or keys is None or not trusted.id_jag:
            raise TokenRefused("issuer")
        if unverified.typ not in _ASSERTION_TYPES:
            raise TokenRefused("type")
        verify_signature(unverified, await keys.find(unverified.kid))
        single_audience(unverified.claims, (self._public_url,))
        return identity_assertion_claims(unverified.claims, trusted, self._now())

    async def verify_id_token(self, token: str, issuer: str, client_id: str, nonce: str, role_token: str = "") -> Principal:
        """The person of an ID token that `issuer` made for its client `client_id`; see `check_is_id_token`. Raises TokenRefused.

        `role_token`: an access token of the same issuer for the same person, whose claims name the roles. Without it the ID token does.
        Both come from the token endpoint of the issuer, which may have begun to sign with a new key a moment ago.
        """
        trusted, keys = self._issuers[issuer]
        unverified = read_unverified(token)
        if unverified.claims.get("iss") != issuer:
            raise TokenRefused("issuer")
        verify_signature(unverified, await keys.find_for_issuer(unverified.kid))
        check_is_id_token(unverified, client_id, nonce, self._now())
        role_claims = unverified.claims
        if role_token:
            role_unverified = read_unverified(role_token)
            verify_signature(role_unverified, await keys.find_for_issuer(role_unverified.kid))
            role_claims = role_unverified.claims
            if any(role_claims.get(name) != unverified.claims.get(name) for name in ("iss", "sub")):
                raise TokenRefused("sub")
        return person_of(unverified.claims, trusted, role_claims)

    def _verify_issued(self, unverified: UnverifiedToken, audiences: Collection[str], now: float) -> Claims:
        self._check_issued(unverified)
        if "sid" in unverified.claims and "act" not in unverified.claims:
            return self._verify_session(unverified, audiences, now)
        read = hop_claims if "act" in unverified.claims else person_claims
        return read(unverified.claims, audiences, now)

    def _verify_session(self, unverified: UnverifiedToken, audiences: Collection[str], now: float) -> Claims:
        """The claims of a session's token, while the session lasts and the person's provider is still trusted. Raises TokenRefused."""
        claims = session_claims(unverified.claims, audiences, now)
        if self._is_session_ended(claims.session_id):
            raise TokenRefused("session-ended")
        if not self.trusts(claims.issuer):
            raise TokenRefused("issuer")
        return claims

    def _check_issued(self, unverified: UnverifiedToken) -> None:
        if unverified.typ not in ACCESS_TOKEN_TYPES:
            raise TokenRefused("type")
        verify_signature(unverified, self._keys.find(unverified.kid))

    async def _verify_external(self, unverified: UnverifiedToken, issuer: str, audiences: Collection[str]) -> Claims:
        trusted, keys = self._issuers[issuer]
        if unverified.typ not in _EXTERNAL_TYPES:
            raise TokenRefused("type")
        verify_signature(unverified, await keys.find(unverified.kid))
        try:
            check_is_access_token(unverified.typ, unverified.claims, trusted)
            return external_claims(unverified.claims, trusted, self._external_audience(unverified, trusted, audiences), self._now())
        except TokenRefused as refused:
            raise TokenRefused(refused.reason, explain_refusal(refused.reason, unverified.claims, trusted, self._public_url)) from None

    def _external_audience(self, unverified: UnverifiedToken, trusted: TrustedIssuer, audiences: Collection[str]) -> str:
        """The audience among `audiences` that the token names. The issuer's own name for the gateway counts as its public URL."""
        if self._public_url not in audiences:  # only the gateway's own endpoints accept tokens of people
            raise TokenRefused("audience")
        own_audience = trusted.audience or self._public_url
        accepted = [own_audience if audience == self._public_url else audience for audience in audiences]
        named = audience_of(unverified.claims, accepted, trusted.other_audiences)
        return self._public_url if named == own_audience else named


def _digest(token: str) -> bytes:
    return sha256(token.encode("utf-8", "surrogatepass")).digest()


def mint_development_token(keys: SigningKeys, person: Principal, audience: str, scope: str | None = None, ttl: int = 3600) -> str:
    """A development token for `person`, valid for `ttl` seconds, at most a day. Without `scope` it does not narrow."""
    now = int(keys.now())
    claims = {"iss": DEVELOPMENT_ISSUER, "sub": person.subject, "tid": person.tenant, "aud": audience}
    narrowing = {} if scope is None else {"scope": scope}
    return keys.sign({**claims, **narrowing, "iat": now, "exp": now + ttl, "jti": new_id("ut")}, ACCESS_JWT_TYPE)
