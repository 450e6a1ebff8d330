"""Reads forms of pages, and refuses what no page of the gateway has sent."""

import hmac
from urllib.parse import parse_qsl, urlsplit

from gateway.ingress.console.sign_in.sessions import BrowserSession
from gateway.ingress.http.asgi import Receive, Scope, header, read_body

FORM_MAX = 64 << 10  # bytes
FIELDS_MAX = 80
QUERY_MAX = 4096  # bytes
CSRF_FIELD = "csrf"
FORM_TYPE = "application/x-www-form-urlencoded"


class FormRefused(Exception):
    """The request is not a form of a page of this session; the message says why."""


def check_own_origin(scope: Scope) -> None:
    """Accepts a change only from a page of this very origin. Raises FormRefused.

    A browser names the origin of each form that it posts; a form without an origin, or with `null`, has no page of the gateway.
    """
    origin = header(scope, b"origin")
    if origin is None or urlsplit(origin).netloc.lower() != (header(scope, b"host") or "").lower():
        raise FormRefused("the request does not come from a page of the console")
    if header(scope, b"sec-fetch-site") not in (None, "same-origin"):
        raise FormRefused("the request does not come from a page of the console")


async def read_console_form(scope: Scope, receive: Receive, limit: int = FORM_MAX) -> dict[str, str]:
    """Returns the fields of a form of at most `limit` bytes. Raises FormRefused, BodyTooLarge and BodyIncomplete."""
    kind = (header(scope, b"content-type") or "").partition(";")[0].strip().lower()
    if kind != FORM_TYPE:
        raise FormRefused(f"the body is not {FORM_TYPE}")
    body = await read_body(scope, receive, limit)
    try:
        pairs = parse_qsl(
            body.decode("ascii"), keep_blank_values=True, strict_parsing=bool(body), errors="strict", max_num_fields=FIELDS_MAX
        )
    except ValueError:
        raise FormRefused("the form is malformed, or has too many fields") from None
    return _single(pairs)


def read_console_query(scope: Scope) -> dict[str, str]:
    """Returns the members of the query, which occur once each. Raises FormRefused."""
    raw: bytes = scope["query_string"]
    if len(raw) > QUERY_MAX:
        raise FormRefused("the query is too long")
    try:
        return _single(_parse(raw.decode("ascii")))
    except ValueError:
        raise FormRefused("the query is malformed") from None


def check_csrf(session: BrowserSession, form: dict[str, str]) -> None:
    """Takes the token of the session out of the form. Raises FormRefused without it."""
    shown = form.pop(CSRF_FIELD, "")
    if not hmac.compare_digest(shown.encode(), session.csrf.encode()):
        raise FormRefused("the form is of another session, or of none; load the page again")


def _parse(text: str) -> list[tuple[str, str]]:
    return parse_qsl(text, keep_blank_values=True, strict_parsing=bool(text), errors="strict", max_num_fields=FIELDS_MAX)


def _single(pairs: list[tuple[str, str]]) -> dict[str, str]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise FormRefused("a field occurs twice")
    if any("\0" in name or "\0" in value for name, value in pairs):
        raise FormRefused("a field has a NUL character")
    return found
