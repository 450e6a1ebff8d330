"""Ids of questions to legacy clients. They can't be forged, so other processes store answers to real questions only."""

import hashlib
import hmac
import secrets

from policies.keys.signing import SigningKeys

KEYS_KEPT = 4
PROOF_DIGITS = 32  # hexadecimal digits of the proof


class QuestionIds:
    """Issues and verifies ids by a key that every process derives. A replaced key stays valid in processes that have it."""

    def __init__(self, keys: SigningKeys) -> None:
        self._keys = keys
        self._keys_by_kid: dict[str, bytes] = {}
        self._current_key()

    def new_id(self, session_id: str) -> str:
        """Returns an id that is valid in this session only."""
        number = f"q_{secrets.token_hex(12)}"
        return f"{number}.{_proof_of(self._current_key(), number, session_id)}"

    def is_issued(self, question_id: str, session_id: str) -> bool:
        """Returns whether the gateway issued the id for this session."""
        number, _, proof = question_id.partition(".")
        if len(question_id) > 100 or not question_id.isascii():
            return False
        self._current_key()
        return any(hmac.compare_digest(_proof_of(key, number, session_id), proof) for key in self._keys_by_kid.values())

    def _current_key(self) -> bytes:
        kid, key = self._keys.derive_secret("mcp questions")
        if kid not in self._keys_by_kid:
            while len(self._keys_by_kid) >= KEYS_KEPT:
                del self._keys_by_kid[next(iter(self._keys_by_kid))]
            self._keys_by_kid[kid] = key
        return key


def _proof_of(key: bytes, number: str, session_id: str) -> str:
    return hmac.new(key, f"{number}\n{session_id}".encode(), hashlib.sha256).hexdigest()[:PROOF_DIGITS]
