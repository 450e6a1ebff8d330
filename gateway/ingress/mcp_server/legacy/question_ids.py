"""Ids of what clients are asked: nobody makes one up, so that only answers to real questions are kept for other processes."""

import hashlib
import hmac
import secrets

from gateway.ingress.mcp_server.protocol.request_state import Keys

KEYS_KEPT = 4
LENGTH = 32  # hexadecimal digits of the proof


class Marks:
    """By a key that every process has. A key that was replaced goes on being known where it was known before."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._known: dict[str, bytes] = {}
        self._look()

    def new(self, bound: str) -> str:
        """An id that is good for `bound` alone."""
        number = f"q_{secrets.token_hex(12)}"
        return f"{number}.{_proof(self._look(), number, bound)}"

    def ours(self, mark: str, bound: str) -> bool:
        """Whether it is one that was given for `bound`."""
        number, _, proof = mark.partition(".")
        if len(mark) > 100 or not mark.isascii():
            return False
        self._look()
        return any(hmac.compare_digest(_proof(key, number, bound), proof) for key in self._known.values())

    def _look(self) -> bytes:
        kid, key = self._keys.derived("mcp questions")
        if kid not in self._known:
            while len(self._known) >= KEYS_KEPT:
                del self._known[next(iter(self._known))]
            self._known[kid] = key
        return key


def _proof(key: bytes, number: str, bound: str) -> str:
    return hmac.new(key, f"{number}\n{bound}".encode(), hashlib.sha256).hexdigest()[:LENGTH]
