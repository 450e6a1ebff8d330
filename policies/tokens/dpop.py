"""Proofs of possession (RFC 9449, DPoP): a token bound to a key is accepted only from the holder of the key, and each proof once."""

import base64
import hmac
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any
from urllib.parse import urlsplit

from policies.keys.jwks import BadKeySet, VettedKey, vet_key_set
from policies.keys.signing import SigningKeys
from policies.keys.strict_jwt import (
    SKEW,
    TokenRefused,
    UnverifiedToken,
    identifier_claim,
    parse_header_and_claims,
    time_claim,
    verify_signature,
)
from policies.tokens.replay_guard import ReplayGuard

AGE_MAX = 60.0  # seconds since `iat` for which a proof without a nonce is fresh
NONCE_SECONDS = 120.0  # after which a new nonce is issued; the previous one stays valid as long
INVALID_PROOF, USE_NONCE, INVALID_TOKEN = "invalid_dpop_proof", "use_dpop_nonce", "invalid_token"
_HEADERS = frozenset({"typ", "alg", "jwk"})
_PROOF_KID = "key of the proof"


class ProofRefused(TokenRefused):
    """A proof is not accepted. `error` is the code of RFC 9449 s7.1; `nonce` is set where the next proof has to contain one."""

    def __init__(self, reason: str, error: str = INVALID_PROOF, nonce: str = "") -> None:
        super().__init__(f"dpop-{reason}")
        self.error = error
        self.nonce = nonce


@dataclass(frozen=True, slots=True)
class PresentedProof:
    """A proof as received, and its request: the method, the URL without query, and the access token, if any."""

    proof: str | None
    method: str
    url: str
    token: str = ""


class DpopVerifier:
    """Verifies proofs. `now` counts seconds since 1970."""

    def __init__(self, keys: SigningKeys, replay_guard: ReplayGuard, now: Callable[[], float]) -> None:
        self._keys = keys
        self._replay_guard = replay_guard
        self._now = now

    async def verify(self, presented: PresentedProof, tenant: str, thumbprint: str = "") -> str:
        """Verifies a proof, consumes its jti, and returns the thumbprint of its key. Raises ProofRefused.

        With `thumbprint`, the proof's key must have that thumbprint.
        """
        if presented.proof is None:
            raise ProofRefused("missing")
        try:
            key, claims, found = _parse_proof(presented.proof)
            if thumbprint and not hmac.compare_digest(found, thumbprint):
                raise ProofRefused("other-key")
            _check_request(claims, presented)
            until = self._fresh_until(claims)
            spent_id = f"dpop {found} {sha256(identifier_claim(claims, 'jti').encode()).hexdigest()}"
            verify_signature(_unverified_token(presented.proof, key), key)
        except ProofRefused:
            raise
        except TokenRefused as refusal:
            raise ProofRefused(refusal.reason) from None
        if not await self._replay_guard.consume(tenant, spent_id, until):
            raise ProofRefused("replayed")
        return found

    def current_nonce(self) -> str:
        """The current nonce. It is derived from the signing key, so every process with the same keys knows it."""
        return self._valid_nonces()[0]

    def _fresh_until(self, claims: Mapping[str, Any]) -> float:
        """Until when the proof could be replayed. Without a nonce, the proof's age by the client's clock decides."""
        now, issued, nonce = self._now(), time_claim(claims, "iat"), claims.get("nonce")
        if nonce is not None:
            if not isinstance(nonce, str) or not any(hmac.compare_digest(nonce.encode(), known.encode()) for known in self._valid_nonces()):
                raise ProofRefused("nonce", USE_NONCE, self.current_nonce())
            return now + 2 * NONCE_SECONDS
        if not -SKEW <= now - issued <= AGE_MAX:
            raise ProofRefused("stale", USE_NONCE, self.current_nonce())
        return issued + AGE_MAX

    def _valid_nonces(self) -> tuple[str, str]:
        _, key = self._keys.derive_secret("dpop nonce")
        period = int(self._now() // NONCE_SECONDS)
        first, second = (_encode_base64url(hmac.digest(key, str(each).encode(), "sha256")) for each in (period, period - 1))
        return first, second


def is_same_target(claimed_url: str, url: str) -> bool:
    """Whether both URLs name one target, apart from query and fragment (RFC 9449 s4.3, normalised by RFC 3986 s6.2.2 and s6.2.3)."""
    try:
        return _normalize_target(claimed_url) == _normalize_target(url)
    except ValueError:
        return False


def _normalize_target(url: str) -> tuple[str, str, int | None, str]:
    parts = urlsplit(url)
    if parts.username is not None:  # also set where there is only a password
        raise ValueError("user information")
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    return parts.scheme, (parts.hostname or "").lower(), port, parts.path or "/"


def _parse_proof(proof: str) -> tuple[VettedKey, Mapping[str, Any], str]:
    """The key in the proof's header, the claims, and the key's thumbprint, all unverified. Raises ProofRefused."""
    header, claims = parse_header_and_claims(proof)
    if header.keys() != _HEADERS or str(header["typ"]).lower() != "dpop+jwt":
        raise ProofRefused("header")
    jwk = header["jwk"]
    if not isinstance(jwk, dict) or ("kid" in jwk and not isinstance(jwk["kid"], str)):
        raise ProofRefused("jwk")
    try:
        key = vet_key_set({"keys": [{**jwk, "kid": _PROOF_KID}]})[_PROOF_KID]
    except BadKeySet:
        raise ProofRefused("jwk") from None
    if header["alg"] != key.alg:
        raise ProofRefused("alg")
    return key, claims, thumbprint_of(jwk)


def thumbprint_of(jwk: Mapping[str, Any]) -> str:
    """The thumbprint of a vetted key (RFC 7638): a hash over its required members in the order of their names."""
    names: Sequence[str] = ("crv", "kty", "x", "y") if jwk["kty"] == "EC" else ("e", "kty", "n")
    canonical = json.dumps({name: jwk[name] for name in names}, separators=(",", ":"))
    return _encode_base64url(sha256(canonical.encode()).digest())


def _check_request(claims: Mapping[str, Any], presented: PresentedProof) -> None:
    target = claims.get("htu")
    if claims.get("htm") != presented.method:
        raise ProofRefused("htm")
    if not isinstance(target, str) or not is_same_target(target, presented.url):
        raise ProofRefused("htu")
    if presented.token and claims.get("ath") != _encode_base64url(sha256(presented.token.encode()).digest()):
        raise ProofRefused("ath")


def _unverified_token(proof: str, key: VettedKey) -> UnverifiedToken:
    return UnverifiedToken(proof, key.kid, key.alg, "dpop+jwt", {})


def _encode_base64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
