"""Signatures of webhooks as Standard Webhooks 1.0 has them: HMAC-SHA256 over the id, the time and the body."""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping, Sequence
from typing import Final

from msgspec import Struct

TOLERANCE_SECONDS: Final = 300  # by which the time of a request may differ from that of the gateway
SECRET_PREFIX: Final = "whsec_"  # noqa: S105 (the beginning of every secret)
SECRET_BYTES: Final = (24, 64)  # least and most bytes of a secret
ID_MAX: Final = 256  # characters
SIGNATURES_MAX: Final = 16  # of one request, such as while its sender changes the secret
ID_HEADER, TIME_HEADER, SIGNATURE_HEADER = "webhook-id", "webhook-timestamp", "webhook-signature"
_VERSION: Final = "v1,"


class BadSecret(Exception):
    """The secret is not what Standard Webhooks expects. The message does not repeat it."""


class SignatureRefused(Exception):
    """The request is not signed by the secret, or not now; the message says what is wrong."""


class SignedRequest(Struct, frozen=True):
    """What the signature of a request vouches for, beside its body. `timestamp`: seconds since 1970."""

    id: str
    timestamp: int


def read_secrets(text: str) -> tuple[bytes, ...]:
    """The secrets of a text: one, or several with spaces between them while they are changed. Raises BadSecret."""
    secrets = tuple(_read_secret(each) for each in text.split())
    if not secrets:
        raise BadSecret("is empty")
    return secrets


def _read_secret(text: str) -> bytes:
    try:
        secret = base64.b64decode(text.removeprefix(SECRET_PREFIX), validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadSecret(f"is not `{SECRET_PREFIX}` with base64 after it") from error
    least, most = SECRET_BYTES
    if not least <= len(secret) <= most:
        raise BadSecret(f"has {len(secret)} bytes, and {least} to {most} are expected")
    return secret


def sign(secrets: Sequence[bytes], id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The headers of a signed request. With several secrets it has a signature of each."""
    signatures = " ".join(f"{_VERSION}{_signature(secret, id, timestamp, body)}" for secret in secrets)
    return {ID_HEADER: id, TIME_HEADER: str(timestamp), SIGNATURE_HEADER: signatures}


def verify(secrets: Sequence[bytes], headers: Mapping[str, str], body: bytes, now: float) -> SignedRequest:
    """What a request says of itself, once one of its signatures is of one of the secrets. Raises SignatureRefused."""
    id, sent_at = headers.get(ID_HEADER, ""), headers.get(TIME_HEADER, "")
    if not 0 < len(id) <= ID_MAX or not id.isascii() or not id.isprintable():
        raise SignatureRefused(f"`{ID_HEADER}` is missing, or is no text of at most {ID_MAX} characters")
    if not (sent_at.isascii() and sent_at.isdigit() and len(sent_at) < 13):
        raise SignatureRefused(f"`{TIME_HEADER}` is missing, or does not count seconds since 1970")
    if abs(now - int(sent_at)) > TOLERANCE_SECONDS:
        raise SignatureRefused(f"`{TIME_HEADER}` differs by more than {TOLERANCE_SECONDS} seconds from the time here")
    expected = [_signature(secret, id, int(sent_at), body).encode() for secret in secrets]
    given = [each.removeprefix(_VERSION).encode() for each in _signatures_of(headers) if each.startswith(_VERSION)]
    if not any(hmac.compare_digest(one, other) for one in given for other in expected):
        raise SignatureRefused(f"no signature in `{SIGNATURE_HEADER}` is one of this body, id and time")
    return SignedRequest(id, int(sent_at))


def _signatures_of(headers: Mapping[str, str]) -> list[str]:
    return headers.get(SIGNATURE_HEADER, "").split(maxsplit=SIGNATURES_MAX)[:SIGNATURES_MAX]


def _signature(secret: bytes, id: str, timestamp: int, body: bytes) -> str:
    digest = hmac.digest(secret, f"{id}.{timestamp}.".encode() + body, hashlib.sha256)
    return base64.b64encode(digest).decode()
