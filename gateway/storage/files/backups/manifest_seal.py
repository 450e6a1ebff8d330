"""Seals a manifest with a passphrase, and with it the sizes and hashes of all parts: scrypt (RFC 7914), then HMAC-SHA256."""

import os
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, hmac

from gateway.storage.files.backups.key_encryption import SALT, derive_key

CONTEXT: Final = b"interlock backup manifest 1"


def seal_manifest(manifest: bytes, passphrase: str) -> bytes:
    """Returns salt and code. Raises BackupUnusable for a passphrase that can be guessed."""
    salt = os.urandom(SALT)
    return salt + _code_of(manifest, passphrase, salt).finalize()


def is_sealed_with(manifest: bytes, seal: bytes, passphrase: str) -> bool:
    """Whether the seal was made with this passphrase over this manifest."""
    try:
        _code_of(manifest, passphrase, seal[:SALT]).verify(seal[SALT:])
    except InvalidSignature:
        return False
    return True


def _code_of(manifest: bytes, passphrase: str, salt: bytes) -> hmac.HMAC:
    code = hmac.HMAC(derive_key(passphrase, salt), hashes.SHA256())
    code.update(CONTEXT + manifest)
    return code
