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

STATE_MAX = 1 << 17  # characters
KEYS_KEPT = 4
_NONCE = 12
_NOT_SALIENT = frozenset({"_meta", "requestState", "inputResponses"})
_canonical = msgspec.json.Encoder(order="sorted").encode


class Keys(Protocol):
    """policies/keys/signing.py."""

    def derived(self, purpose: str) -> tuple[str, bytes]: ...


class Sealed(msgspec.Struct, frozen=True):
    """`upstream` is the server's own state, or none; or `parked` names a call that waits, and `round` how often it had asked.

    `begun`: the decision under which the server asked, where people had approved of the call or an errand counted it.
    """

    until: float
    upstream: str | None = None
    parked: str = ""
    process: str = ""
    round: int = 0
    begun: str = ""


_sealed = msgspec.json.Decoder(Sealed).decode


def bad_state() -> BadEnvelope:
    return BadEnvelope(INVALID_PARAMS, "params.requestState was not given for this request, or its time is over; begin again without it")


def binding(holder: str, resource: str, method: str, params: Mapping[str, Any]) -> bytes:
    """What a state is good for: this caller, this path, this method with these parameters."""
    salient = {name: value for name, value in params.items() if name not in _NOT_SALIENT}
    return _canonical([holder, resource, method, hashlib.sha256(_canonical(salient)).hexdigest()])


class Seal:
    """AES-256-GCM under a key derived from the signing keys, so that every process opens what another sealed. `now` counts seconds.

    A key that was replaced goes on opening where it was known before.
    """

    def __init__(self, keys: Keys, now: Callable[[], float]) -> None:
        self._keys = keys
        self._now = now
        self._known: dict[str, AESGCM] = {}
        self.look()

    async def sweep(self) -> None:
        """Notes the key of now, so that it goes on opening when it is replaced; to be called now and then."""
        self.look()

    def look(self) -> str:
        """The id of the key of now."""
        kid, key = self._keys.derived("mcp request state")
        if kid not in self._known:
            while len(self._known) >= KEYS_KEPT:
                del self._known[next(iter(self._known))]
            self._known[kid] = AESGCM(key)
        return kid

    def until(self, seconds: float) -> float:
        """The end of a state that is good for so long."""
        return self._now() + seconds

    def close(self, state: Sealed, bound: bytes) -> str:
        kid, nonce = self.look(), os.urandom(_NONCE)
        box = nonce + self._known[kid].encrypt(nonce, msgspec.json.encode(state), bound)
        return f"{kid}.{base64.urlsafe_b64encode(box).decode()}"

    def open(self, text: Any, bound: bytes) -> Sealed:
        """Raises BadEnvelope: it is not one that we gave for this request, or its time is over."""
        if not isinstance(text, str) or len(text) > STATE_MAX:
            raise bad_state()
        kid, _, body = text.partition(".")
        if kid not in self._known:
            self.look()
        key = self._known.get(kid)
        try:
            box = base64.b64decode(body.encode("ascii"), altchars=b"-_", validate=True)
            if key is None or len(box) < _NONCE:
                raise bad_state()
            state = _sealed(key.decrypt(box[:_NONCE], box[_NONCE:], bound))
        except (InvalidTag, UnicodeEncodeError, binascii.Error) as error:
            raise bad_state() from error
        if state.until <= self._now():
            raise bad_state()
        return state
