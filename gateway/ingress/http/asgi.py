"""Helpers for HTTP on bare ASGI, which the protocol servers use: headers, a bounded request body, an answer or an event stream."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, MutableMapping
from contextlib import aclosing
from functools import lru_cache
from typing import Any

import structlog

from gateway.concurrency.background import run_in_background

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
log = structlog.get_logger()
KEEPALIVE_SECONDS = 15.0  # a comment is sent on a stream that was quiet for that long
KEEPALIVE_COMMENT = b": still here\n\n"


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
    """Reads the whole body of at most `limit` bytes, counted as they arrive. Raises BodyTooLarge, BodyIncomplete."""
    declared = header(scope, b"content-length")
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


async def stream_events(receive: Receive, send: Send, events: AsyncGenerator[bytes, None], headers: Iterable[Header] = ()) -> None:
    """Sends server-sent events until they end or the client disconnects. Each item is one or more whole, framed events."""
    fixed = ((b"content-type", b"text/event-stream"), (b"cache-control", b"no-store"), (b"x-accel-buffering", b"no"))
    await send({"type": "http.response.start", "status": 200, "headers": [*fixed, *SECURITY_HEADERS, *headers]})
    listener = _StreamClient(receive, send)
    async with aclosing(events), listener:
        async for event in events:
            listener.is_quiet = False
            await send({"type": "http.response.body", "body": event, "more_body": True})
            del event  # a stream may be quiet for long, and must not keep the last event in memory
    if not listener.is_gone:
        await send({"type": "http.response.body", "body": b""})


class _StreamClient:
    """The client of an event stream: cancels the block when it disconnects, and sends it keep-alive comments while the stream is quiet."""

    __slots__ = ("_comment_task", "_comment_timer", "_disconnect_task", "_receive", "_send", "_task", "is_gone", "is_quiet")

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._comment_task: asyncio.Future[None] | None = None
        self.is_gone = False
        self.is_quiet = False

    async def __aenter__(self) -> None:
        self._task = asyncio.current_task()
        self._disconnect_task = asyncio.create_task(wait_for_disconnect(self._receive))
        self._disconnect_task.add_done_callback(self._on_disconnect)
        self._comment_timer = asyncio.get_running_loop().call_later(KEEPALIVE_SECONDS, self._send_comment_if_quiet)

    async def __aexit__(self, kind: type[BaseException] | None, _error: object, _traceback: object) -> bool:
        self._comment_timer.cancel()
        self._disconnect_task.remove_done_callback(self._on_disconnect)
        self._disconnect_task.cancel()
        if self._comment_task is not None:
            self._comment_task.cancel()
        return self.is_gone and kind is asyncio.CancelledError and self._task is not None and self._task.uncancel() == 0

    def _on_disconnect(self, disconnect_task: "asyncio.Task[None]") -> None:
        self.is_gone = True
        if not disconnect_task.cancelled() and (error := disconnect_task.exception()) is not None:
            log.warning("listener_lost", error=type(error).__name__)
        if self._task is not None:
            self._task.cancel()

    def _send_comment_if_quiet(self) -> None:
        if self.is_quiet and (self._comment_task is None or self._comment_task.done()):
            self._comment_task = run_in_background(self._send_comment(), "listener_not_shown")
        self.is_quiet = True
        self._comment_timer = asyncio.get_running_loop().call_later(KEEPALIVE_SECONDS, self._send_comment_if_quiet)

    async def _send_comment(self) -> None:
        try:
            await self._send({"type": "http.response.body", "body": KEEPALIVE_COMMENT, "more_body": True})
        except OSError as error:  # the client is gone; _disconnect_task ends the block
            log.info("listener_lost", error=type(error).__name__)


async def wait_for_disconnect(receive: Receive) -> None:
    """Returns when the client has disconnected."""
    while (await receive())["type"] != "http.disconnect":
        pass
