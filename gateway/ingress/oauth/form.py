"""Parses OAuth forms. A form that two parsers could read differently is refused."""

import re
from urllib.parse import unquote_to_bytes

from starlette.requests import Request

from gateway.ingress.http.asgi import BadHeader, BodyTooLarge, header, read_body
from policies.tokens.hop_tokens import ExchangeRefused

FORM_MAX = 64 << 10  # bytes
MEMBERS_MAX = 50
_MALFORMED = re.compile("%(?![0-9A-Fa-f]{2})|[^!-~]")


def decode_form_text(text: str) -> str:
    """Decodes one name or value of application/x-www-form-urlencoded (WHATWG URL s5.1).

    Raises ValueError for malformed text and for control characters.
    """
    if _MALFORMED.search(text):
        raise ValueError("not form-encoded")
    decoded = unquote_to_bytes(text.replace("+", " ")).decode("utf-8")
    if not decoded.isprintable():
        raise ValueError("a control character")
    return decoded


async def read_form(request: Request) -> dict[str, str]:
    """Reads the form of a request. Raises ExchangeRefused with `invalid_request`."""
    try:
        body, kind = await read_body(request.scope, request.receive, FORM_MAX), header(request.scope, b"content-type")
    except (BodyTooLarge, BadHeader) as error:
        raise ExchangeRefused("invalid_request", str(error)) from None
    return parse_form(body, kind)


def parse_form(body: bytes, content_type: str | None) -> dict[str, str]:
    """Returns the parameters; one without a value counts as absent (RFC 6749 s3.2). Raises ExchangeRefused with `invalid_request`."""
    if (content_type or "").partition(";")[0].strip().lower() != "application/x-www-form-urlencoded":
        raise ExchangeRefused("invalid_request", "the body must be application/x-www-form-urlencoded")
    form: dict[str, str] = {}
    try:
        pairs = [pair.split("=", 1) for pair in body.decode("ascii").split("&") if pair]
        members = [(decode_form_text(name), decode_form_text(value)) for name, value in pairs]
    except ValueError:
        raise ExchangeRefused("invalid_request", "the body is not a well-formed form") from None
    for name, value in members:
        if name in form or len(form) >= MEMBERS_MAX:
            raise ExchangeRefused("invalid_request", f"a parameter occurs twice, or there are more than {MEMBERS_MAX}")
        form[name] = value
    return {name: value for name, value in form.items() if value}
