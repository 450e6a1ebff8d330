"""Helpers for HTTP on bare ASGI, which the protocol servers use: headers, a bounded request body, an answer."""

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from functools import lru_cache
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Header = tuple[bytes, bytes]
JSON = b"application/json"
# A browser that opens an answer of the gateway runs no script, shows it in no frame, sniffs no media type and sends no referrer.
SECURITY_HEADERS: tuple[Header, ...] = (
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)
_HEADERS_KEY = "interlock.headers"
_DUPLICATED = b"\xff twice"  # marks a header sent twice; compared by identity, so that no value a client sends equals it


class BodyTooLarge(Exception):
    """The request body has more bytes than `server.max_body`; `limit` is that number."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"the body is larger than {limit} bytes")
        self.limit = limit


class HeadersTooLarge(Exception):
    """The request line and the headers have more bytes than `server.max_headers`, or more lines than the gateway reads."""

    def __init__(self, limit: int, lines: int) -> None:
        super().__init__(f"the request line and the headers may have {limit} bytes and {lines} lines")


class RequestTooSlow(Exception):
    """The request did not arrive completely within `server.header_timeout` or `server.body_timeout`."""


class BodyIncomplete(Exception):
    """The client disconnected before the whole body had arrived."""


class BadHeader(Exception):
    """A header that decides something was sent twice, or can't be read; the message names it."""


class ContentTypeNotSupported(Exception):
    """The Content-Type of the body is not JSON."""


class ContentEncodingNotSupported(Exception):
    """The body is compressed, or encoded otherwise (RFC 9110 s8.4)."""


def header(scope: Scope, name: bytes) -> str | None:
    """Returns the value of a header that may occur once. Raises BadHeader when it occurs twice or isn't ASCII."""
    known: dict[bytes, bytes] | None = scope.get(_HEADERS_KEY)
    if known is None:
        known = headers_by_name(scope)
    found = known.get(name)
    if found is None:
        return None
    if found is _DUPLICATED:
        raise BadHeader(f"{name.decode()} was sent twice")
    if not found.isascii():
        raise BadHeader(f"{name.decode()} is not ASCII")
    return found.decode().strip(" \t")


def list_header(scope: Scope, name: bytes) -> str | None:
    """Returns a list header, whose lines are joined (RFC 9110 s5.3). Raises BadHeader when it isn't ASCII."""
    found = headers_by_name(scope).get(name)
    if found is None:
        return None
    if found is _DUPLICATED:
        found = b", ".join(value for known, value in scope["headers"] if known == name)
    if not found.isascii():
        raise BadHeader(f"{name.decode()} is not ASCII")
    return found.decode().strip(" \t")


def headers_by_name(scope: Scope) -> dict[bytes, bytes]:
    """Returns all headers as raw bytes, to compare with. A header that was sent twice equals nothing that a client can send."""
    known: dict[bytes, bytes] | None = scope.get(_HEADERS_KEY)
    if known is None:
        known = scope[_HEADERS_KEY] = _index_headers(scope["headers"])
    return known


def forget_headers(scope: Scope) -> None:
    """Drops the headers of a request whose answer is a long stream, and the state of its server, so that they take no memory meanwhile."""
    scope["headers"] = ()
    scope.pop(_HEADERS_KEY, None)
    scope.pop("state", None)


def _index_headers(headers: Iterable[Header]) -> dict[bytes, bytes]:
    """Builds the map that the request keeps, since a request reads many headers."""
    listed = list(headers)
    known = dict(listed)
    if len(known) < len(listed):
        seen: set[bytes] = set()
        for name, _ in listed:
            if name in seen:
                known[name] = _DUPLICATED
            seen.add(name)
    return known


def check_json_content_type(scope: Scope) -> None:
    """Accepts `application/json`, `application/*+json` and a body without a type. Raises ContentTypeNotSupported, BadHeader."""
    declared = header(scope, b"content-type")
    if declared and declared != "application/json":
        kind = declared.partition(";")[0].rstrip().lower()
        if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
            raise ContentTypeNotSupported


async def read_body(scope: Scope, receive: Receive, limit: int) -> bytes:
    """Reads the whole body of at most `limit` bytes, counted as they arrive.

    Raises BodyTooLarge, BodyIncomplete, ContentEncodingNotSupported.
    """
    declared = header(scope, b"content-length")
    if b"content-encoding" in scope[_HEADERS_KEY] and list_header(scope, b"content-encoding") not in ("", "identity"):
        raise ContentEncodingNotSupported
    if declared and declared.isascii() and declared.isdigit() and int(declared[:20]) > limit:
        raise BodyTooLarge(limit)
    message = await receive()
    if message["type"] == "http.disconnect":
        raise BodyIncomplete
    body: bytes = message.get("body", b"")
    if message.get("more_body"):
        chunks = [body]
        size = len(body)
        while message.get("more_body"):
            message = await receive()
            if message["type"] == "http.disconnect":  # the part that arrived could happen to be a valid document
                raise BodyIncomplete
            chunks.append(message.get("body", b""))
            size += len(chunks[-1])
            if size > limit:
                raise BodyTooLarge(limit)
        body = b"".join(chunks)
    if len(body) > limit:
        raise BodyTooLarge(limit)
    return body


async def respond(send: Send, status: int, body: bytes, headers: Iterable[Header] = (), media_type: bytes = JSON) -> None:
    """Sends one complete answer, in one step where the server of `send` has `write_answer` (gateway/server/sockets/http_exchange.py)."""
    write = getattr(send, "write_answer", None)
    if write is not None and write(status, _constant_lines(media_type), headers, body):
        return
    fixed = ((b"content-type", media_type), (b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": [*fixed, *SECURITY_HEADERS, *headers]})
    await send({"type": "http.response.body", "body": body})


@lru_cache(maxsize=64)
def _constant_lines(media_type: bytes) -> bytes:
    """Returns the encoded headers that all answers of a media type have. `media_type` comes from the gateway's own code."""
    return b"".join(b"%b: %b\r\n" % line for line in ((b"content-type", media_type), *SECURITY_HEADERS))


async def wait_for_disconnect(receive: Receive) -> None:
    """Returns when the client has disconnected."""
    while (await receive())["type"] != "http.disconnect":
        pass
