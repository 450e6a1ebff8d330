"""Envelope encryption of secrets in rows: AES-256-GCM under a fresh key, which is wrapped; both are bound to their row."""

import base64
import json
import os
from collections.abc import Sequence
from typing import Final, NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from policies.vault.wrapping_keys import VaultKeys

NONCE_BYTES: Final = 12  # bytes
KEY_BITS: Final = 256
SEALED_PREFIX: Final = "sealed:"


class CannotOpen(ValueError):
    """A sealed text belongs to another row, was changed, or its key is missing. The text is safe to show."""


class SealedSecret(NamedTuple):
    """`wrapped` is the encrypted key of `body` under the key `kek_id`; both in base64url."""

    kek_id: str
    wrapped: str
    body: str


class EnvelopeEncryption:
    """Seals and opens secrets. `context` names the row and its kind of secret, and must be equal for sealing and opening."""

    def __init__(self, keys: VaultKeys) -> None:
        self._keys = keys

    def seal(self, context: Sequence[str], plain: bytes) -> SealedSecret:
        bound, key, kek = _associated_data(context), AESGCM.generate_key(KEY_BITS), self._keys.active
        return SealedSecret(kek.id, _encrypt(kek.cipher, key, bound), _encrypt(AESGCM(key), plain, bound))

    def open(self, context: Sequence[str], sealed: SealedSecret) -> bytes:
        """Decrypts a secret. Raises CannotOpen."""
        bound = _associated_data(context)
        return _decrypt(AESGCM(self._unwrap_key(bound, sealed)), sealed.body, bound)

    def rewrap(self, context: Sequence[str], sealed: SealedSecret) -> SealedSecret:
        """The secret with its key wrapped by the active wrapping key; the body stays as it is. Raises CannotOpen."""
        bound, kek = _associated_data(context), self._keys.active
        if sealed.kek_id == kek.id:
            return sealed
        return SealedSecret(kek.id, _encrypt(kek.cipher, self._unwrap_key(bound, sealed), bound), sealed.body)

    def seal_text(self, context: Sequence[str], text: str) -> str:
        """Seals a text for a column that may also hold plain texts."""
        return SEALED_PREFIX + ".".join(self.seal(context, text.encode()))

    def open_text(self, context: Sequence[str], text: str, former_context: Sequence[str] | None = None) -> str:
        """Opens a sealed text; returns a plain one as it is. Raises CannotOpen.

        `former_context`: the context that earlier versions sealed the text with.
        """
        if not text.startswith(SEALED_PREFIX):
            return text
        sealed = parse_sealed(text)
        try:
            return self.open(context, sealed).decode()
        except CannotOpen:
            if former_context is None:
                raise
        return self.open(former_context, sealed).decode()

    def rewrap_text(self, context: Sequence[str], text: str, former_context: Sequence[str] | None = None) -> str:
        """The text sealed with `context` under the active wrapping key, whatever its form was. Raises CannotOpen."""
        if not text.startswith(SEALED_PREFIX):
            return self.seal_text(context, text)
        try:
            return SEALED_PREFIX + ".".join(self.rewrap(context, parse_sealed(text)))
        except CannotOpen:
            if former_context is None:
                raise
        return self.seal_text(context, self.open(former_context, parse_sealed(text)).decode())

    def _unwrap_key(self, associated_data: bytes, sealed: SealedSecret) -> bytes:
        kek = self._keys.find(sealed.kek_id)
        if kek is None:
            raise CannotOpen(f"the vault's key {sealed.kek_id[:32]} is missing")
        return _decrypt(kek.cipher, sealed.wrapped, associated_data)


def parse_sealed(text: str) -> SealedSecret:
    """Parses a sealed text. Raises CannotOpen."""
    parts = text.removeprefix(SEALED_PREFIX).split(".")
    if len(parts) != 3:
        raise CannotOpen("a sealed text of the database is damaged")
    return SealedSecret(*parts)


def _associated_data(context: Sequence[str]) -> bytes:
    """The context as bytes: different contexts give different bytes, whatever their parts contain."""
    return json.dumps(list(context), ensure_ascii=True).encode()


def _encrypt(cipher: AESGCM, plain: bytes, associated_data: bytes) -> str:
    nonce = os.urandom(NONCE_BYTES)
    return base64.urlsafe_b64encode(nonce + cipher.encrypt(nonce, plain, associated_data)).decode()


def _decrypt(cipher: AESGCM, text: str, associated_data: bytes) -> bytes:
    try:
        raw = base64.b64decode(text.encode(), b"-_", validate=True)
        return cipher.decrypt(raw[:NONCE_BYTES], raw[NONCE_BYTES:], associated_data)
    except (InvalidTag, ValueError) as error:
        raise CannotOpen("a secret of the database belongs to another row, or was changed") from error
