"""Encrypts the keys in a backup with a passphrase: scrypt (RFC 7914), then AES-256-GCM."""

import os
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from gateway.storage.files.backups.archive import BackupUnusable

PASSPHRASE_MIN: Final = 12  # characters
COST: Final = 1 << 17  # 128 MB and about half a second for each guess
CONTEXT: Final = b"interlock backup keys 1"
SALT: Final = 16  # bytes
NONCE: Final = 12


def encrypt(plaintext: bytes, passphrase: str) -> bytes:
    """Returns salt, nonce and ciphertext. Raises BackupUnusable for a passphrase that can be guessed."""
    refuse_short_passphrase(passphrase)
    salt, nonce = os.urandom(SALT), os.urandom(NONCE)
    return salt + nonce + AESGCM(derive_key(passphrase, salt)).encrypt(nonce, plaintext, CONTEXT)


def decrypt(sealed: bytes, passphrase: str) -> bytes:
    """Raises BackupUnusable for a wrong passphrase."""
    salt, nonce = sealed[:SALT], sealed[SALT : SALT + NONCE]
    try:
        return AESGCM(derive_key(passphrase, salt)).decrypt(nonce, sealed[SALT + NONCE :], CONTEXT)
    except InvalidTag:
        raise BackupUnusable("the passphrase is not that of this backup", "give the right --passphrase-file") from None


def refuse_short_passphrase(passphrase: str) -> None:
    """Raises BackupUnusable for a passphrase that can be guessed."""
    if len(passphrase) < PASSPHRASE_MIN:
        raise BackupUnusable(f"the passphrase has less than {PASSPHRASE_MIN} characters", "make one with: openssl rand -base64 24")


def derive_key(passphrase: str, salt: bytes) -> bytes:
    """Returns 32 bytes. Takes half a second."""
    return Scrypt(salt, 32, COST, 8, 1).derive(passphrase.encode())
