"""The gateway's own signing keys: ES256, shared by every process with the same home folder."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec
import structlog
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from jose.backends.base import Key

from policies.keys.jwks import VettedKey
from policies.keys.key_folder import KeyFolder, KeysUnusable, StoredKey, encode_base64url, encode_json
from policies.keys.strict_jwt import TokenRefused, read_unverified, verify_signature

RETIREMENT_SECONDS = 86_400.0  # seconds for which a replaced key still verifies tokens
POLL_SECONDS = 1.0  # seconds between two checks of the folder
_ECDSA_SHA256: Final = ec.ECDSA(hashes.SHA256())
_encode = msgspec.json.Encoder().encode
log = structlog.get_logger()


class NotSignedByUs(ValueError):
    """The text is not a statement that one of the gateway's keys signed."""


@dataclass(frozen=True, slots=True)
class _KeyRing:
    """The keys of one reading of the folder. It is immutable, so threads may share it."""

    stored: Mapping[str, StoredKey]
    active: str
    secret: Key = field(repr=False)
    private_key: ec.EllipticCurvePrivateKey  # of `secret`: python-jose takes a third longer for a signature
    headers: dict[str, str]  # typ -> encoded header

    def encode_header(self, header: Mapping[str, str]) -> str:
        return encode_base64url(encode_json({**header, "alg": "ES256", "kid": self.active}).encode())

    def sign(self, signed: str) -> str:
        """The ES256 signature: both numbers with 32 bytes (RFC 7518 s3.4), base64url."""
        r, s = decode_dss_signature(self.private_key.sign(signed.encode(), _ECDSA_SHA256))
        return encode_base64url(r.to_bytes(32) + s.to_bytes(32))


class SigningKeys:
    """Signs with the newest key. Notices a rotation by another process within a second. `now` counts seconds since 1970."""

    def __init__(self, folder: KeyFolder, now: Callable[[], float] = time.time) -> None:
        """Loads the keys; creates the first one. Raises KeysUnusable."""
        self._folder = folder
        self.now = now
        with folder.lock():
            if not folder.read():
                folder.create(int(now() * 1e6))
            self._ring = self._load()
        self._polled_at = now()

    @classmethod
    def open(cls, home: Path, now: Callable[[], float] = time.time) -> "SigningKeys":
        """The keys in `home/keys`. Two processes that start at once get the same ones. Raises KeysUnusable."""
        return cls(KeyFolder(home / "keys"), now)

    def sign(self, claims: Mapping[str, Any], typ: str) -> str:
        """A JWT of the active key. Raises ValueError for a number that is not finite."""
        for value in claims.values():
            if type(value) is float and not math.isfinite(value):
                raise ValueError("a claim is a number that JSON can't represent")
        ring = self._current_ring()
        header = ring.headers.get(typ)
        if header is None:
            header = ring.headers[typ] = ring.encode_header({"typ": typ})
        signed = f"{header}.{encode_base64url(_encode(claims))}"
        return f"{signed}.{ring.sign(signed)}"

    def sign_detached(self, header: Mapping[str, str], payload: bytes) -> tuple[str, str]:
        """Returns the protected header and the signature over `payload`, both base64url (RFC 7515 appendix F)."""
        ring = self._current_ring()
        protected = ring.encode_header(header)
        return protected, ring.sign(f"{protected}.{encode_base64url(payload)}")

    def verify(self, token: str, typ: str) -> Mapping[str, Any]:
        """The claims of a statement that one of the gateway's keys signed as `typ`, at any time. Checks no times. Raises NotSignedByUs."""
        try:
            unverified = read_unverified(token)
            stored = self._current_ring().stored.get(unverified.kid)
            verify_signature(unverified, stored.vetted if stored else None)
        except TokenRefused as refusal:
            raise NotSignedByUs(refusal.reason) from None
        if unverified.typ != typ.lower():
            raise NotSignedByUs("type")
        return unverified.claims

    def find(self, kid: str) -> VettedKey | None:
        """A key that verifies current tokens: the active one, or one replaced less than 24 h ago; else None."""
        stored = self._current_ring().stored.get(kid)
        return stored.vetted if stored and self._is_serving(stored) else None

    def jwks(self) -> dict[str, list[Mapping[str, str]]]:
        """The public JWK Set, the active key first."""
        newest_first = reversed(list(self._current_ring().stored.values()))
        return {"keys": [stored.public for stored in newest_first if self._is_serving(stored)]}

    def all_jwks(self) -> dict[str, list[Mapping[str, str]]]:
        """The public JWK Set of every key there ever was, which verifies old audit heads."""
        return {"keys": [stored.public for stored in reversed(list(self._current_ring().stored.values()))]}

    @property
    def active_kid(self) -> str:
        """The kid of the active key."""
        return self._current_ring().active

    @property
    def serving_kids(self) -> tuple[str, ...]:
        """The kids of all keys that verify current tokens."""
        return tuple(kid for kid, stored in self._current_ring().stored.items() if self._is_serving(stored))

    @property
    def active_since_us(self) -> int:
        """When the active key was created, in microseconds since 1970."""
        ring = self._current_ring()
        return ring.stored[ring.active].created

    def derive_secret(self, purpose: str) -> tuple[str, bytes]:
        """The kid of the active key, and 32 bytes that only its holders can derive for `purpose` (HKDF, RFC 5869)."""
        ring = self._current_ring()
        secret = str(ring.secret.to_dict()["d"]).encode()
        return ring.active, HKDF(hashes.SHA256(), 32, salt=None, info=f"interlock {purpose}".encode()).derive(secret)

    def rotate(self) -> str:
        """Creates a new key and returns its kid. The old keys lose their secret half, and verify for 24 h more."""
        with self._folder.lock():
            replaced = [stored for stored in self._folder.read() if stored.secret is not None]
            self._folder.create(max([int(self.now() * 1e6), *(stored.created + 1 for stored in replaced)]))
            for stored in replaced:
                self._folder.retire(stored, self.now())
            self._ring = self._load()
        return self._ring.active

    def _is_serving(self, stored: StoredKey) -> bool:
        return stored.retired_at is None or self.now() - stored.retired_at < RETIREMENT_SECONDS

    def _current_ring(self) -> _KeyRing:
        now = self.now()
        if not 0 <= now - self._polled_at < POLL_SECONDS:
            self._polled_at = now
            try:
                if self._folder.stamp() != self._stamp:
                    self._ring = self._load()
            except (OSError, KeysUnusable) as error:
                log.warning("keys_not_reloaded", error=str(error))
        return self._ring

    def _load(self) -> _KeyRing:
        stamp, keys = self._folder.stamp(), self._folder.read()
        if not keys or keys[-1].secret is None:
            raise KeysUnusable(f"{self._folder.path}: the keys are missing; restore the folder from a backup")
        self._stamp = stamp  # set only after a successful read, so that a failed one is tried again
        stored = {key.vetted.kid: key for key in keys}
        secret = keys[-1].secret
        private_key = load_pem_private_key(secret.to_pem(), None)
        assert isinstance(private_key, ec.EllipticCurvePrivateKey)  # as KeyFolder reads no others
        return _KeyRing(stored, keys[-1].vetted.kid, secret, private_key, {})
