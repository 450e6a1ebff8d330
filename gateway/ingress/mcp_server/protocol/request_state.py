"""What a client of 2026-07-28 carries for us between two requests (`requestState`): sealed, bound to who it was given to and what for."""

import base64
import binascii
import hashlib
import os
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from adapters.mcp_client.wire.messages import INVALID_PARAMS
from gateway.ingress.mcp_server.protocol.modern import BadEnvelope

STATE_CHARS_MAX = 1 << 17  # characters
KEYS_MAX = 4
_NONCE_BYTES = 12
_NOT_SALIENT = frozenset({"_meta", "requestState", "inputResponses"})
_canonical = msgspec.json.Encoder(order="sorted").encode


class DerivedSecrets(Protocol):
    """policies/keys/signing.py."""

    def derive_secret(self, purpose: str) -> tuple[str, bytes]: ...


class RequestState(msgspec.Struct, frozen=True):
    """`upstream` is the server's own state, or none; or `parked` names a call that waits, and `round` how often it had asked.

    `begun`: the decision under which the server asked, where people had approved of the call or an errand counted it.
    """

    until: float
    upstream: str | None = None
    parked: str = ""
    process: str = ""
    round: int = 0
    begun: str = ""


_decode_state = msgspec.json.Decoder(RequestState).decode


def invalid_state_error() -> BadEnvelope:
    return BadEnvelope(INVALID_PARAMS, "params.requestState was not given for this request, or its time is over; begin again without it")


def state_context(session_holder: str, resource: str, method: str, params: Mapping[str, Any]) -> bytes:
    """What a state is good for: this caller, this path, this method with these parameters."""
    salient = {name: value for name, value in params.items() if name not in _NOT_SALIENT}
    return _canonical([session_holder, resource, method, hashlib.sha256(_canonical(salient)).hexdigest()])


class RequestStateCipher:
    """AES-256-GCM under a key derived from the signing keys, so that every process opens what another sealed. `now` counts seconds.

    A key that was replaced goes on opening where it was known before.
    """

    def __init__(self, keys: DerivedSecrets, now: Callable[[], float]) -> None:
        self._keys = keys
        self._now = now
        self._ciphers: dict[str, AESGCM] = {}
        self.load_current_key()

    async def sweep(self) -> None:
        """Notes the key of now, so that it goes on opening when it is replaced; to be called now and then."""
        self.load_current_key()

    def load_current_key(self) -> str:
        """The id of the key of now."""
        kid, key = self._keys.derive_secret("mcp request state")
        if kid not in self._ciphers:
            while len(self._ciphers) >= KEYS_MAX:
                del self._ciphers[next(iter(self._ciphers))]
            self._ciphers[kid] = AESGCM(key)
        return kid

    def expiry_after(self, seconds: float) -> float:
        """The end of a state that is good for so long."""
        return self._now() + seconds

    def encrypt(self, state: RequestState, context: bytes) -> str:
        kid, nonce = self.load_current_key(), os.urandom(_NONCE_BYTES)
        box = nonce + self._ciphers[kid].encrypt(nonce, msgspec.json.encode(state), context)
        return f"{kid}.{base64.urlsafe_b64encode(box).decode()}"

    def decrypt(self, request_state: Any, context: bytes) -> RequestState:
        """Raises BadEnvelope: it is not one that we gave for this request, or its time is over."""
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
