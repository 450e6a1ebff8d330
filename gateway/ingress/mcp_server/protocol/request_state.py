"""Encrypts `requestState`, which a client of 2026-07-28 returns with its next request. It is bound to the caller and the request."""

import base64
import binascii
import hashlib
import os
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from adapters.mcp_client.wire.messages import INVALID_PARAMS
from gateway.ingress.mcp_server.protocol.modern import BadEnvelope
from policies.keys.signing import SigningKeys

STATE_CHARS_MAX = 1 << 17  # characters
KEYS_MAX = 4
_NONCE_BYTES = 12
_NOT_SALIENT = frozenset({"_meta", "requestState", "inputResponses"})
_canonical = msgspec.json.Encoder(order="sorted").encode


class RequestState(msgspec.Struct, frozen=True):
    """The content of a state.

    `upstream` is the server's own state, or None. Otherwise `pending_call_id` is the id of a waiting call, and `round` its number of
    rounds. `continues_decision_id` is the decision under which the server asked, where an approval or the transaction's history counted it.
    """

    until: float
    upstream: str | None = None
    pending_call_id: str = msgspec.field(default="", name="parked")
    process: str = ""
    round: int = 0
    continues_decision_id: str = msgspec.field(default="", name="begun")


_decode_state = msgspec.json.Decoder(RequestState).decode


def invalid_state_error() -> BadEnvelope:
    return BadEnvelope(INVALID_PARAMS, "params.requestState is not valid for this request, or has expired; start again without it")


def state_context(session_holder: str, resource: str, method: str, params: Mapping[str, Any]) -> bytes:
    """Returns what a state is bound to: this caller, this path, and this method with these parameters."""
    salient = {name: value for name, value in params.items() if name not in _NOT_SALIENT}
    return _canonical([session_holder, resource, method, hashlib.sha256(_canonical(salient)).hexdigest()])


class RequestStateCipher:
    """AES-256-GCM under a key derived from the signing keys, so that every process can decrypt. `now` returns seconds.

    A replaced key still decrypts in processes that have loaded it.
    """

    def __init__(self, keys: SigningKeys, now: Callable[[], float]) -> None:
        self._keys = keys
        self._now = now
        self._ciphers: dict[str, AESGCM] = {}
        self.load_current_key()

    async def sweep(self) -> None:
        """Loads the current key, so that it still decrypts after it is replaced. A periodic task calls it."""
        self.load_current_key()

    def load_current_key(self) -> str:
        """Loads the current key and returns its id."""
        kid, key = self._keys.derive_secret("mcp request state")
        if kid not in self._ciphers:
            while len(self._ciphers) >= KEYS_MAX:
                del self._ciphers[next(iter(self._ciphers))]
            self._ciphers[kid] = AESGCM(key)
        return kid

    def expiry_after(self, seconds: float) -> float:
        """Returns the expiry of a state that is valid for `seconds`."""
        return self._now() + seconds

    def encrypt(self, state: RequestState, context: bytes) -> str:
        kid, nonce = self.load_current_key(), os.urandom(_NONCE_BYTES)
        box = nonce + self._ciphers[kid].encrypt(nonce, msgspec.json.encode(state), context)
        return f"{kid}.{base64.urlsafe_b64encode(box).decode()}"

    def decrypt(self, request_state: Any, context: bytes) -> RequestState:
        """Returns the state. Raises BadEnvelope when it was not issued for this context, or has expired."""
        if not isinstance(request_state, str) or len(request_state) > STATE_CHARS_MAX:
            raise invalid_state_error()
        kid, _, body = request_state.partition(".")
        if kid not in self._ciphers:
            self.load_current_key()
        key = self._ciphers.get(kid)
        try:
            box = base64.b64decode(body.encode("ascii"), altchars=b"-_", validate=True)
            if key is None or len(box) < _NONCE_BYTES:
                raise invalid_state_error()
            state = _decode_state(key.decrypt(box[:_NONCE_BYTES], box[_NONCE_BYTES:], context))
        except (InvalidTag, UnicodeEncodeError, binascii.Error) as error:
            raise invalid_state_error() from error
        if state.until <= self._now():
            raise invalid_state_error()
        return state
