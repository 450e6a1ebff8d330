"""Envelopes for secrets in rows: AES-256-GCM under a fresh key, which is itself wrapped, both bound to the one place where they open."""

import base64
import json
import os
from collections.abc import Sequence
from typing import Final, NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from policies.vault.wrapping_keys import VaultKeys

NONCE: Final = 12  # bytes
KEY_BITS: Final = 256
MARK: Final = "sealed:"


class CannotOpen(ValueError):
    """What is in a row was not sealed for it, was changed, or its key is gone. The text is safe to show."""


class Sealed(NamedTuple):
    """`wrapped` is the key of `body` under the key `kek_id`; both in base64url."""

    kek_id: str
    wrapped: str
    body: str


class Envelope:
    """`place` names the row and what it is: the same, byte for byte, for sealing and for opening."""

    def __init__(self, keys: VaultKeys) -> None:
        self._keys = keys

    def seal(self, place: Sequence[str], plain: bytes) -> Sealed:
        bound, key, kek = _bound(place), AESGCM.generate_key(KEY_BITS), self._keys.active
        return Sealed(kek.id, _encrypted(kek.cipher, key, bound), _encrypted(AESGCM(key), plain, bound))

    def open(self, place: Sequence[str], sealed: Sealed) -> bytes:
        """Raises CannotOpen."""
        bound = _bound(place)
        return _decrypted(AESGCM(self._unwrapped(bound, sealed)), sealed.body, bound)

    def rewrapped(self, place: Sequence[str], sealed: Sealed) -> Sealed:
        """The same under the key that wraps now; the body is not touched. Raises CannotOpen."""
        bound, kek = _bound(place), self._keys.active
        if sealed.kek_id == kek.id:
            return sealed
        return Sealed(kek.id, _encrypted(kek.cipher, self._unwrapped(bound, sealed), bound), sealed.body)

    def seal_text(self, place: Sequence[str], text: str) -> str:
        """For a column that may hold a plain text as well."""
        return MARK + ".".join(self.seal(place, text.encode()))

    def open_text(self, place: Sequence[str], text: str, former: Sequence[str] | None = None) -> str:
        """What is not sealed is itself. `former`: the place that a text was sealed for by earlier versions. Raises CannotOpen."""
        if not text.startswith(MARK):
            return text
        sealed = parsed(text)
        try:
            return self.open(place, sealed).decode()
        except CannotOpen:
            if former is None:
                raise
        return self.open(former, sealed).decode()

    def rewrapped_text(self, place: Sequence[str], text: str, former: Sequence[str] | None = None) -> str:
        """Sealed for `place` under the key that wraps now, whatever it was. Raises CannotOpen."""
        if not text.startswith(MARK):
            return self.seal_text(place, text)
        try:
            return MARK + ".".join(self.rewrapped(place, parsed(text)))
        except CannotOpen:
            if former is None:
                raise
        return self.seal_text(place, self.open(former, parsed(text)).decode())

    def _unwrapped(self, bound: bytes, sealed: Sealed) -> bytes:
        kek = self._keys.find(sealed.kek_id)
        if kek is None:
            raise CannotOpen(f"the vault's key {sealed.kek_id[:32]} is not here")
        return _decrypted(kek.cipher, sealed.wrapped, bound)


def parsed(text: str) -> Sealed:
    """Of a sealed text. Raises CannotOpen."""
    parts = text.removeprefix(MARK).split(".")
    if len(parts) != 3:
        raise CannotOpen("a sealed text of the database is damaged")
    return Sealed(*parts)


def _bound(place: Sequence[str]) -> bytes:
    """No two places are the same bytes, whatever stands in their parts."""
    return json.dumps(list(place), ensure_ascii=True).encode()


def _encrypted(cipher: AESGCM, plain: bytes, bound: bytes) -> str:
    nonce = os.urandom(NONCE)
    return base64.urlsafe_b64encode(nonce + cipher.encrypt(nonce, plain, bound)).decode()


def _decrypted(cipher: AESGCM, text: str, bound: bytes) -> bytes:
    try:
        raw = base64.b64decode(text.encode(), b"-_", validate=True)
        return cipher.decrypt(raw[:NONCE], raw[NONCE:], bound)
    except (InvalidTag, ValueError) as error:
        raise CannotOpen("a secret of the database does not belong where it stands, or was changed") from error
