"""The few bytes of HTTP that the protocol doors need, on bare ASGI: a bounded body in, an answer or a stream out."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, MutableMapping
from contextlib import aclosing
from typing import Any

import structlog

from gateway.background import let_go

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Header = tuple[bytes, bytes]
JSON = b"application/json"
# A browser that is led to an answer of ours makes nothing of it: no script, no frame, no guess at its kind, no word of where it came from.
PLAIN: tuple[Header, ...] = (
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)
_HEADERS = "interlock.headers"
_TWICE = b"\xff twice"  # no header of a request: compared by identity
log = structlog.get_logger()
QUIET_SECONDS = 15.0  # after which a comment shows that a stream lives
ALIVE = b": still here\n\n"


class BodyTooLarge(Exception):
    """The request has more bytes than `server.max_body`; `limit` is that number."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"the body is larger than {limit} bytes")
        self.limit = limit


class HeadersTooLarge(Exception):
    """The request line and the headers have more bytes than `server.max_headers`, or more lines than any client needs."""

    def __init__(self, limit: int, lines: int) -> None:
        super().__init__(f"the request line and the headers may have {limit} bytes and {lines} lines")


class RequestTooSlow(Exception):
    """The request did not come as a whole within `server.header_timeout` or `server.body_timeout`."""


class BodyIncomplete(Exception):
    """The client left, or the connection ended, before the whole body had come."""


class BadHeader(Exception):
    """A header that decides something was sent twice, or can't be read; the message names it."""


class ContentTypeNotSupported(Exception):
    """The body says that it is something else than JSON."""


def header(scope: Scope, name: bytes) -> str | None:
    """The value of a header that may stand once. Raises BadHeader when it stands twice or isn't ASCII."""
    known: dict[bytes, bytes] | None = scope.get(_HEADERS)
    found = (headers(scope) if known is None else known).get(name)
    if found is None:
        return None
    if found is _TWICE:
        raise BadHeader(f"{name.decode()} was sent twice")
    if not found.isascii():
        raise BadHeader(f"{name.decode()} is not ASCII")
    return found.decode().strip(" \t")


def list_header(scope: Scope, name: bytes) -> str | None:
    """The value of a header that is a list, and may stand on several lines (RFC 9110 s5.3). Raises BadHeader when it isn't ASCII."""
    found = headers(scope).get(name)
    if found is None:
        return None
    if found is _TWICE:
        found = b", ".join(value for known, value in scope["headers"] if known == name)
    if not found.isascii():
        raise BadHeader(f"{name.decode()} is not ASCII")
    return found.decode().strip(" \t")


def headers(scope: Scope) -> dict[bytes, bytes]:
    """All of them as they came, for comparing: one that was sent twice equals nothing that a client can send."""
    known: dict[bytes, bytes] | None = scope.get(_HEADERS)
    if known is None:
        known = scope[_HEADERS] = _by_name(scope["headers"])
    return known


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
    """The whole body, of at most `limit` bytes: counted as they come, whatever Content-Length says. Raises BodyTooLarge, BodyIncomplete."""
    declared = header(scope, b"content-length")
    if declared and declared.isdigit() and int(declared[:20]) > limit:
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
            if message["type"] == "http.disconnect":  # what came may be a whole document by chance
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
    """One whole answer."""
    fixed = ((b"content-type", media_type), (b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": [*fixed, *PLAIN, *headers]})
    await send({"type": "http.response.body", "body": body})


async def stream(receive: Receive, send: Send, events: AsyncGenerator[bytes, None], headers: Iterable[Header] = ()) -> None:
    """Server-sent events; each item is one or more whole events, already framed. Ends early when nobody listens any more."""
    fixed = ((b"content-type", b"text/event-stream"), (b"cache-control", b"no-store"), (b"x-accel-buffering", b"no"))
    await send({"type": "http.response.start", "status": 200, "headers": [*fixed, *PLAIN, *headers]})
    listener = _Listener(receive, send)
    async with aclosing(events), listener:
        async for event in events:
            listener.quiet = False
            await send({"type": "http.response.body", "body": event, "more_body": True})
            del event  # a stream may be quiet for long, and holds nothing then
    if not listener.gone:
        await send({"type": "http.response.body", "body": b""})


class _Listener:
    """Whoever reads a stream: as long as they do, its block goes on, and while it is quiet they see that it lives."""

    __slots__ = ("_block", "_pulse", "_receive", "_send", "_showing", "_watch", "gone", "quiet")

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._showing: asyncio.Future[None] | None = None
        self.gone = False
        self.quiet = False

    async def __aenter__(self) -> None:
        self._block = asyncio.current_task()
        self._watch = asyncio.create_task(left(self._receive))
        self._watch.add_done_callback(self._left)
        self._pulse = asyncio.get_running_loop().call_later(QUIET_SECONDS, self._show)

    async def __aexit__(self, kind: type[BaseException] | None, _error: object, _traceback: object) -> bool:
        self._pulse.cancel()
        self._watch.remove_done_callback(self._left)
        self._watch.cancel()
        if self._showing is not None:
            self._showing.cancel()
        return self.gone and kind is asyncio.CancelledError and self._block is not None and self._block.uncancel() == 0

    def _left(self, watch: "asyncio.Task[None]") -> None:
        self.gone = True
        if not watch.cancelled() and (error := watch.exception()) is not None:
            log.warning("listener_lost", error=type(error).__name__)
        if self._block is not None:
            self._block.cancel()

    def _show(self) -> None:
        if self.quiet and (self._showing is None or self._showing.done()):
            self._showing = let_go(self._showed(), "listener_not_shown")
        self.quiet = True
        self._pulse = asyncio.get_running_loop().call_later(QUIET_SECONDS, self._show)

    async def _showed(self) -> None:
        try:
            await self._send({"type": "http.response.body", "body": ALIVE, "more_body": True})
        except OSError as error:  # nobody is there; the watch ends the block
            log.info("listener_lost", error=type(error).__name__)


async def left(receive: Receive) -> None:
    """Returns when the client has left."""
    while (await receive())["type"] != "http.disconnect":
        pass
