"""Masks the secrets of a call in responses, in every encoding that an upstream may use. Not used for calls without secrets."""

import base64
import html
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, TypeVar
from urllib.parse import quote, quote_plus

import msgspec

from adapters.contract import Event, UpstreamFault

E = TypeVar("E", bound=Event)
SECRET_MIN: Final = 8  # shorter values occur in texts by chance
MASK: Final = b"***"
_ESCAPE: Final = re.compile("%..")
SECRET_NAME_PARTS: Final = (
    "auth",
    "session",
    "signature",
    "cookie",
    "token",
    "secret",
    "key",
    "passw",
    "pwd",
    "credential",
    "delegation",
    "ticket",
)


def secrets_of(headers: Mapping[str, str]) -> list[str]:
    """The secrets in a call's headers, as `secrets_in` finds them."""
    return secrets_in(headers.items())


def secrets_in(headers: Iterable[tuple[str, str]]) -> list[str]:
    """The secrets in headers by name and value, as `parts_of_secret` finds them."""
    held = ((name, value) for name, value in headers if any(part in name.lower() for part in SECRET_NAME_PARTS))
    return list(dict.fromkeys(text for name, value in held for text in parts_of_secret(name, value)))


def parts_of_secret(name: str, value: str) -> list[str]:
    """The texts of a secret header: with and without its scheme, the decoded pair of Basic (RFC 7617 s2), and the values of cookies."""
    found = (value, value.partition(" ")[2], *_basic_credentials(value), *_cookie_values(name.lower(), value))
    return [text for text in found if len(text) >= SECRET_MIN]


def _cookie_values(name: str, value: str) -> Sequence[str]:
    """The values of a header `cookie`, and the one of `set-cookie` (RFC 6265 s4.1.1 and s4.2.1)."""
    if name not in ("cookie", "set-cookie"):
        return ()
    pairs = value.split(";")[: None if name == "cookie" else 1]
    return [pair.partition("=")[2].strip().strip('"') for pair in pairs]


def _basic_credentials(value: str) -> Sequence[str]:
    """The decoded pair of a Basic header, and the password by itself."""
    scheme, _, wrapped = value.strip().partition(" ")
    if scheme.lower() != "basic":
        return ()
    try:
        raw = base64.b64decode(wrapped.strip() + "==")
    except ValueError:  # also for characters that are not ASCII
        return ()
    pair = _decode_text(raw)
    return (pair, pair.partition(":")[2])


def _decode_text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def encoded_forms(secret: str) -> Iterator[bytes]:
    """Yields the secret plain, escaped in JSON (also twice), HTML and URLs, and in base64, by itself or inside a longer text."""
    raw = _bytes_of(secret)
    yield raw
    yield raw.replace(b"/", b"\\/")
    for quotes in (True, False):
        yield _bytes_of(html.escape(secret, quote=quotes))
    for ascii_only in (True, False):
        escaped = json.dumps(secret, ensure_ascii=ascii_only)[1:-1]
        yield _bytes_of(escaped)
        yield _bytes_of(json.dumps(escaped, ensure_ascii=ascii_only)[1:-1])
    for written in (quote(raw, safe=""), quote_plus(raw)):
        yield written.encode()
        yield _ESCAPE.sub(lambda found: found[0].lower(), written).encode()
    for padding in range(3):
        encoded = base64.b64encode(bytes(padding) + raw)
        part = encoded[-(-8 * padding // 6) : 8 * (padding + len(raw)) // 6]
        yield part
        yield part.translate(bytes.maketrans(b"+/", b"-_"))


def _bytes_of(text: str) -> bytes:
    """The bytes of a text from a header; one that is no UTF-8 was decoded with surrogateescape."""
    return text.encode("utf-8", "surrogateescape")


class SecretRedactor:
    """Masks secrets. Copies nothing where there is none."""

    def __init__(self, secrets: Sequence[str]) -> None:
        found = {form for secret in secrets for form in encoded_forms(secret)}
        self._forms = sorted(found, key=len, reverse=True)

    def redact_bytes(self, raw: bytes) -> bytes:
        for form in self._forms:
            if form in raw:
                raw = raw.replace(form, MASK)
        return raw

    def redact_text(self, text: str) -> str:
        return self.redact_bytes(_bytes_of(text)).decode("utf-8", "surrogateescape")

    def redact_event(self, event: E) -> E:
        """The event with secrets masked; decoded again only if something was masked."""
        raw = msgspec.json.encode(event)
        clean = self.redact_bytes(raw)
        return event if clean is raw else msgspec.json.decode(clean, type=type(event))

    def redact_fault(self, error: Exception) -> None:
        """Masks the secrets in the detail of an upstream's fault, which goes to the log and to operators."""
        if isinstance(error, UpstreamFault):
            error.public, error.detail = self.redact_text(error.public), self.redact_text(error.detail)
            error.args = (error.public,)


def redactor_for(headers: Mapping[str, str]) -> SecretRedactor | None:
    """A redactor for the headers' secrets; None without any."""
    secrets = secrets_of(headers)
    return SecretRedactor(secrets) if secrets else None
