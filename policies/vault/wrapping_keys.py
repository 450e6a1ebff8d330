"""Wrapping keys of the vault (KEKs): the newest wraps, older ones still open. Read from private files, or set by the operator."""

import base64
import binascii
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Final

import structlog
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from policies import strict_json
from policies.keys.key_folder import KeyFolder, KeysUnusable, encode_base64url

SIZE: Final = 32  # bytes of a key
DISTINCT_MIN: Final = 16  # different bytes in a key; 32 random ones have about 30
KEYS_KEPT: Final = 2  # the newest, and the previous one, which concurrent writes may still use
POLL_SECONDS: Final = 1.0  # seconds between two checks of the folder
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Kek:
    """A wrapping key. `id` is its fingerprint; `created` is microseconds since 1970, 0 where the operator set the key."""

    id: str
    created: int
    cipher: AESGCM = field(repr=False)


def build_kek(raw: bytes, created: int, where: str) -> Kek:
    """Builds a wrapping key. Raises KeysUnusable for one of the wrong size or one that could be guessed."""
    if len(raw) != SIZE:
        raise KeysUnusable(f"{where}: a key of {SIZE} random bytes in base64 is needed, such as: openssl rand -base64 {SIZE}")
    if len(set(raw)) < DISTINCT_MIN or all(32 <= byte < 127 for byte in raw):
        raise KeysUnusable(f"{where}: this key is not random; make one with: openssl rand -base64 {SIZE}")
    return Kek(sha256(b"interlock kek " + raw).hexdigest()[:16], created, AESGCM(raw))


def decode_key(text: str, where: str) -> bytes:
    """Decodes base64 in either alphabet. Raises KeysUnusable."""
    try:
        return base64.b64decode(text.strip().replace("-", "+").replace("_", "/") + "=" * (-len(text.strip()) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise KeysUnusable(f"{where}: not base64; make a key with: openssl rand -base64 {SIZE}") from error


def read_configured_keys(places: Sequence[str], environment: Callable[[str], str]) -> list[Kek]:
    """The keys that the operator configured: `env:NAME`, or the path of a file. Raises KeysUnusable."""
    found = []
    for place in places:
        if place.startswith("env:"):
            text = environment(place)
            if not text:
                raise KeysUnusable(f"vault.keys: the variable {place.removeprefix('env:')} is empty")
        else:
            text = _read_private_file(Path(place)).decode(errors="replace")
        found.append(build_kek(decode_key(text, f"vault.keys: {place}"), 0, f"vault.keys: {place}"))
    return found


def _read_private_file(path: Path) -> bytes:
    """Reads a file that only its owner may access. Raises KeysUnusable."""
    try:
        if path.stat().st_mode & 0o077:
            raise KeysUnusable(f"{path}: other users can read this key; run chmod 600 on it, or rotate: interlock keys rotate --vault")
        return path.read_bytes()
    except OSError as error:
        raise KeysUnusable(f"{path}: {error.strerror}") from error


class VaultKeys:
    """The wrapping keys: the `configured` ones, or else those in `folder`, where it creates the first. `now` counts seconds since 1970."""

    def __init__(self, folder: KeyFolder, configured: Sequence[Kek] = (), now: Callable[[], float] = time.time) -> None:
        """Loads the keys. Raises KeysUnusable."""
        self._folder = folder
        self._configured = tuple(configured)
        self._now = now
        self._polled_at = now()
        with self._folder.lock():
            if not configured and not self._read_files():
                self._create()
        self._ring = self._load()

    @classmethod
    def open(cls, home: Path, configured: Sequence[Kek] = ()) -> "VaultKeys":
        """The keys in `home/keys/vault`. Raises KeysUnusable."""
        return cls(KeyFolder(KeyFolder(home / "keys").path / "vault"), configured)

    @property
    def active(self) -> Kek:
        """The key that wraps."""
        return self.all[0]

    @property
    def all(self) -> tuple[Kek, ...]:
        """All keys, the active one first."""
        self._poll()
        return tuple(reversed(list(self._ring.values())))

    def find(self, kek_id: str) -> Kek | None:
        """The key with this id, or None. Looks for an unknown one in the folder at once: another process may have just created it."""
        found = self._ring.get(kek_id)
        if found is None and not self._configured:
            self._ring = self._reload()
            found = self._ring.get(kek_id)
        return found

    @property
    def has_own_keys(self) -> bool:
        """Whether the gateway creates the keys itself; otherwise the operator does."""
        return not self._configured

    def rotate(self) -> Kek:
        """Creates a new key, which wraps from now on."""
        with self._folder.lock():
            self._create()
            self._ring = self._load()
        return self.active

    def delete_old(self, in_use: set[str]) -> list[str]:
        """Deletes key files except the newest two and those in `in_use`, and returns the deleted ids."""
        if self._configured:
            return []
        with self._folder.lock():
            old = [kek for kek in self._read_files()[:-KEYS_KEPT] if kek.id not in in_use]
            for kek in old:
                (self._folder.path / f"{kek.id}.key").unlink()
            self._ring = self._load()
        return [kek.id for kek in old]

    def _create(self) -> None:
        raw = os.urandom(SIZE)
        created = max(
            [int(self._now() * 1e6), *(kek.created + 1 for kek in self._read_files())]
        )  # newer than every other key, whatever the clock says
        self._folder.write(f"{build_kek(raw, created, 'a new key').id}.key", {"created": created, "k": encode_base64url(raw)})

    def _read_files(self) -> list[Kek]:
        """The keys in the folder, newest last."""
        return sorted((_read_key(path) for path in self._folder.path.glob("*.key")), key=lambda kek: (kek.created, kek.id))

    def _load(self) -> Mapping[str, Kek]:
        """The keys by id, the active one last."""
        stamp, keys = self._folder.stamp(), list(reversed(self._configured)) or self._read_files()
        if not keys:
            raise KeysUnusable(f"{self._folder.path}: the vault's keys are missing; restore the folder from a backup")
        self._stamp = stamp  # set only after a successful read, so that a failed one is tried again
        return {kek.id: kek for kek in keys}

    def _reload(self) -> Mapping[str, Kek]:
        try:
            return self._load()
        except (OSError, KeysUnusable) as error:
            log.warning("vault_keys_not_reloaded", error=str(error))
            return self._ring

    def _poll(self) -> None:
        """Checks once a second whether another process created a key."""
        now = self._now()
        if self._configured or 0 <= now - self._polled_at < POLL_SECONDS:
            return
        self._polled_at = now
        if self._folder.stamp() != self._stamp:
            self._ring = self._reload()


def _read_key(path: Path) -> Kek:
    raw = _read_private_file(path)
    try:
        document = strict_json.parse(raw)
        return build_kek(decode_key(str(document["k"]), str(path)), int(document["created"]), str(path))
    except (ValueError, TypeError, LookupError) as error:
        raise KeysUnusable(f"{path}: not a key that the gateway wrote; move it away") from error
