"""The folder with the gateway's signing keys: one JWK per file, written atomically."""

import base64
import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from jose import jwk
from jose.backends.base import Key
from jose.exceptions import JOSEError

from policies import strict_json
from policies.keys.jwks import BadKeySet, VettedKey, vet_key_set

_PUBLIC = ("kty", "crv", "x", "y", "kid", "alg", "use")
encode_json = json.JSONEncoder(allow_nan=False, separators=(",", ":")).encode


class KeysUnusable(Exception):
    """A file of the key folder can't be used; the message names it and says what to do."""


@dataclass(frozen=True, slots=True)
class StoredKey:
    """One key file. A key that was replaced at `retired_at` (seconds since 1970) has no secret half."""

    vetted: VettedKey
    public: Mapping[str, str]
    created: int  # microseconds since 1970
    secret: Key | None = field(repr=False)
    retired_at: float | None = None


def encode_base64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


class KeyFolder:
    """Reads and writes key files in a folder, which it creates or makes private to its owner. Files have mode 0600."""

    def __init__(self, path: Path) -> None:
        """Opens the folder. Raises KeysUnusable."""
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path.stat().st_mode & 0o077:
            _make_private(path)
        self.path = path

    def stamp(self) -> tuple[int, int]:
        """A value that changes whenever a key is added or replaced. Raises OSError."""
        return self.path.stat().st_mtime_ns, len(list(self.path.iterdir()))

    def read(self) -> list[StoredKey]:
        """All keys; the last one is the signing key. Raises KeysUnusable."""
        stored = [_read_key(path) for path in self.path.glob("*.json")]
        stored.sort(key=lambda key: (key.secret is not None, key.created, key.vetted.kid))
        if stored and stored[-1].secret is None:
            raise KeysUnusable(f"{self.path}: no key with a secret half is left; move the folder away to start with a new key")
        return stored

    def create(self, created: int) -> None:
        """Writes a new P-256 key. Its kid is its thumbprint (RFC 7638)."""
        pem = ec.generate_private_key(ec.SECP256R1()).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        document = jwk.construct(pem.decode(), "ES256").to_dict()
        required = encode_json({name: document[name] for name in ("crv", "kty", "x", "y")})
        kid = encode_base64url(sha256(required.encode()).digest())
        self.write(f"{kid}.json", {**document, "kid": kid, "alg": "ES256", "use": "sig", "created": created})

    def retire(self, stored: StoredKey, retired_at: float) -> None:
        """Removes the secret half of a key permanently."""
        self.write(f"{stored.vetted.kid}.json", {**stored.public, "created": stored.created, "retired": retired_at})

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Lets one process at a time create or replace keys."""
        descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def write(self, name: str, document: Mapping[str, Any]) -> None:
        """Writes a file durably, atomically, and readable by its owner only."""
        target = self.path / name
        fresh = target.with_suffix(".new")
        fresh.unlink(missing_ok=True)
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(encode_json(document))
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(target)
        folder = os.open(self.path, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _make_private(path: Path) -> None:
    """Makes the folder inaccessible to other users, since they could add a key of their own. Raises KeysUnusable."""
    try:
        path.chmod(0o700)
    except OSError as error:
        raise KeysUnusable(f"{path}: other users can access this folder, and the gateway can't change that; run chmod 700 on it") from error


def _read_key(path: Path) -> StoredKey:
    try:
        document = strict_json.parse(path.read_bytes())
        if "d" in document and path.stat().st_mode & 0o077:
            raise KeysUnusable(f"{path}: other users can read this secret key; run chmod 600 on it, or rotate the keys")
        public = {name: document[name] for name in _PUBLIC}
        vetted = vet_key_set({"keys": [public]})[document["kid"]]
        secret = jwk.construct({**public, "d": document["d"]}, "ES256") if "d" in document else None
        return StoredKey(vetted, public, int(document["created"]), secret, document.get("retired"))
    except (OSError, ValueError, TypeError, LookupError, BadKeySet, JOSEError) as error:
        raise KeysUnusable(f"{path}: not a key that the gateway wrote; move it away") from error
