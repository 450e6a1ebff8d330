"""The few bytes of HTTP that the protocol doors need, on bare ASGI: a bounded body in, an answer or a stream out."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Header = tuple[bytes, bytes]
JSON = b"application/json"
_HEADERS = "interlock.headers"
_TWICE = b"\xff twice"  # no header of a request: compared by identity
QUIET_SECONDS = 15.0  # after which a comment shows that a stream lives


class BodyTooLarge(Exception):
    """The request has more bytes than `server.max_body`; `limit` is that number."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"the body is larger than {limit} bytes")
        self.limit = limit


class BadHeader(Exception):
    """A header that decides something was sent twice, or can't be read; the message names it."""


class ContentTypeNotSupported(Exception):
    """The body says that it is something else than JSON."""


def header(scope: Scope, name: bytes) -> str | None:
    """The value of a header that may stand once. Raises BadHeader when it stands twice or isn't ASCII."""
    known: dict[bytes, bytes] | None = scope.get(_HEADERS)
    if known is None:
        known = scope[_HEADERS] = _by_name(scope["headers"])
    found = known.get(name)
    if found is None:
        return None
    if found is _TWICE:
        raise BadHeader(f"{name.decode()} was sent twice")
    if not found.isascii():
        raise BadHeader(f"{name.decode()} is not ASCII")
    return found.decode().strip(" \t")


def _by_name(headers: Iterable[Header]) -> dict[bytes, bytes]:
    """Looked at once per request, since a door asks for many."""
    listed = list(headers)
    known = dict(listed)
    if len(known) < len(listed):
        seen: set[bytes] = set()
        for name, _ in listed:
            if name in seen:
                known[name] = _TWICE
            seen.add(name)
    return known


def check_json(scope: Scope) -> None:
    """The body must be called JSON, in this or another dialect, where it is called anything. Raises ContentTypeNotSupported, BadHeader."""
    declared = header(scope, b"content-type")
    if declared and declared != "application/json":
        kind = declared.partition(";")[0].rstrip().lower()
        if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
            raise ContentTypeNotSupported


async def read_body(scope: Scope, receive: Receive, limit: int) -> bytes:
    """The whole body, of at most `limit` bytes: counted as they come, whatever Content-Length says. Raises BodyTooLarge."""
    declared = header(scope, b"content-length")
    if declared and declared.isdigit() and int(declared[:20]) > limit:
        raise BodyTooLarge(limit)
    message = await receive()
    body: bytes = message.get("body", b"")
    if message.get("more_body"):
        chunks = [body]
        size = len(body)
        while message.get("more_body"):
            message = await receive()
            if message["type"] == "http.disconnect":
                break
            chunks.append(message.get("body", b""))
            size += len(chunks[-1])
            if size > limit:
                raise BodyTooLarge(limit)
        body = b"".join(chunks)
    if len(body) > limit:
        raise BodyTooLarge(limit)
    return body


async def respond(send: Send, status: int, body: bytes, headers: Iterable[Header] = (), media_type: bytes = JSON) -> None:
    """One whole answer."""
    fixed = ((b"content-type", media_type), (b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": [*fixed, *headers]})
    await send({"type": "http.response.body", "body": body})


async def stream(receive: Receive, send: Send, events: AsyncGenerator[bytes, None], headers: Iterable[Header] = ()) -> None:
    """Server-sent events; each item is one whole event, already framed. Ends early when nobody listens any more."""
    fixed = ((b"content-type", b"text/event-stream"), (b"cache-control", b"no-store"), (b"x-accel-buffering", b"no"))
    await send({"type": "http.response.start", "status": 200, "headers": [*fixed, *headers]})
    gone, upcoming = asyncio.ensure_future(left(receive)), asyncio.ensure_future(_next(events))
    try:
        while True:
            await asyncio.wait((upcoming, gone), timeout=QUIET_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            if gone.done():
                return
            event = upcoming.result() if upcoming.done() else b": still here\n\n"
            await send({"type": "http.response.body", "body": event, "more_body": bool(event)})
            if not event:
                return
            if upcoming.done():
                upcoming = asyncio.ensure_future(_next(events))
    finally:
        gone.cancel()
        upcoming.cancel()
        await asyncio.gather(gone, upcoming, return_exceptions=True)
        await events.aclose()


async def _next(events: AsyncIterator[bytes]) -> bytes:
    """Empty after the last."""
    return await anext(events, b"")


async def left(receive: Receive) -> None:
    """Returns when the client has left."""
    while (await receive())["type"] != "http.disconnect":
        pass
