"""Verification of detached signatures, with keys that an operator pinned or that a trusted origin publishes."""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from jose.exceptions import JOSEError

from policies import strict_json
from policies.keys.jwks import (
    ALGORITHMS,
    DOCUMENT_MAX,
    MEMBERS_MAX,
    BadKeySet,
    KeySetFetch,
    VettedKey,
    decode_base64url,
    is_identifier,
    vet_key_set,
)
from policies.keys.key_folder import encode_base64url

PROTECTED_MAX = 4096  # characters of a protected header
_REFUSED_HEADERS = frozenset({"crit", "jwk", "x5u", "x5c", "b64", "zip", "enc"})
_TYPES = frozenset({"", "jose"})


class DetachedSignatureVerifier:
    """Verifies detached JWS signatures (RFC 7515 appendix F) with trusted keys only, never with keys in a signature.

    `origins`: where a signature's `jku` may lead, as `https://host[:port]`. `now` counts seconds since 1970.
    """

    def __init__(self, fetch: KeySetFetch, origins: Collection[str] = (), now: Callable[[], float] = time.time) -> None:
        self._fetch = fetch
        self._origins = frozenset(origin.rstrip("/").lower() for origin in origins)
        self._now = now

    def check(self, keys: Sequence[Mapping[str, Any]]) -> None:
        """Raises BadKeySet unless every key is usable, since a caller relies on each. The message is safe to show."""
        if not keys:
            return
        if len(keys) > MEMBERS_MAX or len(vet_key_set({"keys": list(keys)})) != len(keys):
            raise BadKeySet(f"at most {MEMBERS_MAX} public keys are expected, each with a kid, for ES256 on P-256 or RS256")

    def verify(self, signature: Mapping[str, Any], payload: bytes, keys: Sequence[Mapping[str, Any]]) -> str:
        """The kid of the key among `keys` that made `signature` (`protected` and `signature`, base64url), or the empty string.

        A key is not used from its `exp` on (seconds since 1970), nor where that is not a number.
        """
        alive = [key for key in keys if not self._is_expired(key)]
        try:
            return self._find_signing_kid(signature, payload, vet_key_set({"keys": alive}))
        except BadKeySet:
            return ""

    async def fetch_published(self, signature: Mapping[str, Any]) -> Sequence[Mapping[str, Any]] | None:
        """The keys at the signature's `jku`; None where it does not lead to a trusted origin.

        Raises what the fetch raises, and BadKeySet.
        """
        header = _parse_header(signature)
        jku = header.get("jku") if header else None
        if not isinstance(jku, str) or _origin(jku) not in self._origins:
            return None
        answer = await self._fetch(jku, limit=DOCUMENT_MAX, timeout=5.0)
        try:
            document = strict_json.parse(answer.body) if answer.status == 200 else None
        except strict_json.BadJson:
            document = None
        members = document.get("keys") if isinstance(document, dict) else None
        if not isinstance(members, list) or len(members) > MEMBERS_MAX:
            raise BadKeySet("the jku of a signature leads to no key set")
        return [member for member in members if isinstance(member, dict)]

    def _find_signing_kid(self, signature: Mapping[str, Any], payload: bytes, keys: Mapping[str, VettedKey]) -> str:
        header = _parse_header(signature)
        key = keys.get(header["kid"]) if header else None
        if header is None or key is None or header["alg"] != key.alg:
            return ""
        signed = f"{signature['protected']}.{encode_base64url(payload)}".encode()
        try:
            return key.kid if key.key.verify(signed, decode_base64url(signature.get("signature"))) else ""
        except (JOSEError, ValueError, TypeError):
            return ""

    def _is_expired(self, key: Mapping[str, Any]) -> bool:
        expires = key.get("exp")
        return expires is not None and not (isinstance(expires, int | float) and expires > self._now())


def _parse_header(signature: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The protected header if it is supported: a known algorithm, a kid, and no parameter that changes the processing rules."""
    text = signature.get("protected")
    try:
        if not isinstance(text, str) or len(text) > PROTECTED_MAX:
            return None
        header = strict_json.parse(decode_base64url(text))
    except ValueError:
        return None
    if not isinstance(header, dict) or _REFUSED_HEADERS & header.keys() or not is_identifier(header.get("kid")):
        return None
    typ = header.get("typ", "")
    known = header.get("alg") in ALGORITHMS if isinstance(header.get("alg"), str) else False
    return header if known and isinstance(typ, str) and typ.lower() in _TYPES else None


def _origin(url: str) -> str | None:
    """`https://host[:port]` of a URL; None for anything else, or a URL that could be mistaken for another."""
    try:
        parts = urlsplit(url)
        plain = parts.username is None and parts.password is None and "\\" not in url and url.isprintable()
        return f"{parts.scheme}://{parts.netloc}".lower() if plain and parts.scheme in ("https", "http") and parts.hostname else None
    except ValueError:
        return None
