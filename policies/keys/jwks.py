"""Key sets of other issuers: each key is checked, a set is fetched rarely, and kept through an outage for at most a day."""

import asyncio
import base64
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import structlog
from jose import jwk
from jose.backends.base import Key
from jose.exceptions import JOSEError

from policies import strict_json

MEMBERS_MAX = 50
DOCUMENT_MAX = 64 << 10  # bytes
TTL = 600.0  # seconds until a set is fetched again
COOL_DOWN = 30.0  # seconds between two fetches, whatever their outcome
MAX_AGE = 86_400.0  # seconds after which a set that could not be renewed is dropped
ALGORITHMS = frozenset({"ES256", "RS256"})
_SECRET_MEMBERS = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
_BASE64URL = re.compile(r"[A-Za-z0-9_-]+")
log = structlog.get_logger()


class BadKeySet(Exception):
    """The document is not a usable key set; the message says why."""


class KeySetResponse(Protocol):
    @property
    def status(self) -> int: ...
    @property
    def body(self) -> bytes: ...


class KeySetFetch(Protocol):
    """The egress client: follows no redirects; raises when the address is refused, the peer fails or the response is too large."""

    async def __call__(
        self,
        url: str,
        *,
        limit: int = ...,
        timeout: float = ...,  # noqa: ASYNC109 - the egress client enforces it
    ) -> KeySetResponse: ...


@dataclass(frozen=True, slots=True)
class VettedKey:
    """A public signature key, parsed once. `alg` is the only algorithm it is used with."""

    kid: str
    alg: str
    key: Key = field(repr=False)


def decode_base64url(text: object) -> bytes:
    """Decodes canonical unpadded base64url (RFC 7515 s2). Raises ValueError for anything else."""
    if not isinstance(text, str) or not _BASE64URL.fullmatch(text) or len(text) % 4 == 1:
        raise ValueError("not base64url")
    raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if base64.urlsafe_b64encode(raw).rstrip(b"=") != text.encode():
        raise ValueError("not canonical base64url")
    return raw


def is_identifier(text: object) -> bool:
    """Whether this is a string of 1 to 256 characters, none of them a control character."""
    return isinstance(text, str) and 0 < len(text) <= 256 and text.isprintable()


def vet_key_set(document: object, algorithms: Collection[str] = ALGORITHMS) -> dict[str, VettedKey]:
    """The usable keys of a JWK Set by kid: P-256, and RSA of 2048 to 8192 bits; public keys for signatures only.

    Skips other members. Raises BadKeySet for a document that is no set, for more than 50 members, a repeated kid, or no usable key.
    """
    members = document.get("keys") if isinstance(document, Mapping) else None
    if not isinstance(members, list) or len(members) > MEMBERS_MAX:
        raise BadKeySet(f"a JWK Set of at most {MEMBERS_MAX} keys is expected")
    named = [member for member in members if isinstance(member, Mapping) and is_identifier(member.get("kid"))]
    if len({member["kid"] for member in named}) != len(named):
        raise BadKeySet("the set has the same kid twice")
    vetted = (_vet_key(member) for member in named)
    keys = {key.kid: key for key in vetted if key is not None and key.alg in algorithms}
    if not keys:
        raise BadKeySet("the set has no key for ES256 on P-256 or RS256")
    return keys


def _vet_key(member: Mapping[str, Any]) -> VettedKey | None:
    operations = member.get("key_ops", ["verify"])
    if _SECRET_MEMBERS & member.keys() or member.get("use", "sig") != "sig":
        return None
    if not isinstance(operations, list) or "verify" not in operations:
        return None
    try:
        alg, public = _check_ec(member) if member.get("kty") == "EC" else _check_rsa(member)
        if member.get("alg", alg) != alg:
            return None
        return VettedKey(member["kid"], alg, jwk.construct(public, alg))
    except (ValueError, TypeError, JOSEError):
        return None


def _check_ec(member: Mapping[str, Any]) -> tuple[str, dict[str, str]]:
    if member.get("crv") != "P-256" or len(decode_base64url(member.get("x"))) != 32 or len(decode_base64url(member.get("y"))) != 32:
        raise ValueError("not a P-256 key")
    return "ES256", {"kty": "EC", "crv": "P-256", "x": member["x"], "y": member["y"]}


def _check_rsa(member: Mapping[str, Any]) -> tuple[str, dict[str, str]]:
    bits = int.from_bytes(decode_base64url(member.get("n"))).bit_length()
    exponent = int.from_bytes(decode_base64url(member.get("e")))
    if member.get("kty") != "RSA" or not 2048 <= bits <= 8192 or not (3 <= exponent < 1 << 32 and exponent % 2):
        raise ValueError("not an RSA key that we use")
    return "RS256", {"kty": "RSA", "n": member["n"], "e": member["e"]}


class RemoteKeySet:
    """The key set at one URL. `clock` counts seconds."""

    def __init__(self, url: str, fetch: KeySetFetch, clock: Callable[[], float], algorithms: Collection[str] = ALGORITHMS) -> None:
        self._url = url
        self._fetch = fetch
        self._clock = clock
        self._algorithms = algorithms
        self._keys: dict[str, VettedKey] = {}
        self._loaded_at = self._tried_at = float("-inf")
        self._lock = asyncio.Lock()

    async def find(self, kid: str) -> VettedKey | None:
        """The key with this kid, after at most one fetch. None where the issuer does not publish it, or its set is too old."""
        key = self._find_known(kid)
        stale = self._clock() - self._loaded_at >= TTL
        if key is None or (stale and not self._lock.locked()):
            await self._refresh(COOL_DOWN)
            key = self._find_known(kid)
        return key

    async def find_for_issuer(self, kid: str) -> VettedKey | None:
        """The key of a token that came from the issuer itself. An unknown one is fetched at once: nobody else can cause that fetch."""
        if (key := await self.find(kid)) is None:
            await self._refresh(0.0)
            key = self._find_known(kid)
        return key

    def _find_known(self, kid: str) -> VettedKey | None:
        return self._keys.get(kid) if self._clock() - self._loaded_at < MAX_AGE else None

    async def _refresh(self, cool_down: float) -> None:
        async with self._lock:  # a caller that waited for the lock finds the cool-down begun, and does not fetch again
            if self._clock() - self._tried_at < cool_down:
                return
            self._tried_at = self._clock()
            try:
                self._keys = await self._load()
                self._loaded_at = self._clock()
            except Exception as error:  # noqa: BLE001 - any exception of the fetch counts as an outage: the last good set stays
                log.warning("key_set_not_renewed", url=self._url, error=type(error).__name__)

    async def _load(self) -> dict[str, VettedKey]:
        answer = await self._fetch(self._url, limit=DOCUMENT_MAX, timeout=5.0)
        if answer.status != 200 or len(answer.body) > DOCUMENT_MAX:
            raise BadKeySet("the answer is not a small 200")
        return vet_key_set(strict_json.parse(answer.body), self._algorithms)
