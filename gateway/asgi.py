"""The few bytes of HTTP that the protocol doors need, on bare ASGI: a bounded body in, an answer or a stream out."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Header = tuple[bytes, bytes]
JSON = b"application/json"


class BodyTooLarge(Exception):
    """The request has more bytes than `server.max_body`; `limit` is that number."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"the body is larger than {limit} bytes")
        self.limit = limit


class BadHeader(Exception):
    """A header that decides something was sent twice, or can't be read; the message names it."""


def header(scope: Scope, name: bytes) -> str | None:
    """The value of a header that may stand once. Raises BadHeader when it stands twice or isn't ASCII."""
    found: bytes | None = None
    for key, value in scope["headers"]:
        if key == name:
            if found is not None:
                raise BadHeader(f"{name.decode()} was sent twice")
            found = value
    if found is None:
        return None
    if not found.isascii():
        raise BadHeader(f"{name.decode()} is not ASCII")
    return found.decode().strip(" \t")


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


async def stream(send: Send, events: AsyncIterator[bytes], headers: Iterable[Header] = ()) -> None:
    """Server-sent events; each item is one whole event, already framed."""
    fixed = ((b"content-type", b"text/event-stream"), (b"cache-control", b"no-store"), (b"x-accel-buffering", b"no"))
    await send({"type": "http.response.start", "status": 200, "headers": [*fixed, *headers]})
    async for event in events:
        await send({"type": "http.response.body", "body": event, "more_body": True})
    await send({"type": "http.response.body", "body": b""})
