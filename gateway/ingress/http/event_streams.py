"""Streams of server-sent events on bare ASGI, which end when their clients disconnect."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from typing import Final, Protocol

import structlog

from gateway.concurrency.background import run_in_background
from gateway.ingress.http.asgi import SECURITY_HEADERS, Header, Receive, Send, wait_for_disconnect

KEEPALIVE_SECONDS: Final = 15.0  # a comment is sent on a stream that was quiet for that long
KEEPALIVE_COMMENT: Final = b": still here\n\n"
log = structlog.get_logger()


async def stream_events(receive: Receive, send: Send, events: AsyncGenerator[bytes, None], headers: Iterable[Header] = ()) -> None:
    """Sends server-sent events until they end or the client disconnects. Each item is one or more whole, framed events."""
    fixed = ((b"content-type", b"text/event-stream"), (b"cache-control", b"no-store"), (b"x-accel-buffering", b"no"))
    await send({"type": "http.response.start", "status": 200, "headers": [*fixed, *SECURITY_HEADERS, *headers]})
    client = _WatchedClient(send) if hasattr(send, "watch_client") else _ReceivingClient(receive, send)
    async with aclosing(events), client:
        async for event in events:
            client.is_quiet = False
            await send({"type": "http.response.body", "body": event, "more_body": True})
            del event  # a stream may be quiet for long, and must not keep the last event in memory
    if not client.is_gone:
        await send({"type": "http.response.body", "body": b""})


class StreamClient(Protocol):
    """The client of a stream, as a server knows it that tells when it has gone. `comment` is for streams quiet for `quiet_seconds`."""

    comment: bytes
    quiet_seconds: float

    def disconnect(self) -> None: ...


class WatchingServer(Protocol):
    """The sending side of a server that tells when the client has gone (gateway/server/sockets/http_exchange.py)."""

    def watch_client(self, client: StreamClient | None) -> None: ...


class _Client(ABC):
    """The client of an event stream: cancels the block when it disconnects."""

    __slots__ = ("_task", "is_gone", "is_quiet")

    def __init__(self) -> None:
        self._task = asyncio.current_task()
        self.is_gone = False
        self.is_quiet = False  # nothing was sent since the last look

    async def __aenter__(self) -> None:
        self.begin()

    async def __aexit__(self, kind: type[BaseException] | None, _error: object, _traceback: object) -> bool:
        self.end()
        return self.is_gone and kind is asyncio.CancelledError and self._task is not None and self._task.uncancel() == 0

    @abstractmethod
    def begin(self) -> None:
        """Begins to watch the client."""

    @abstractmethod
    def end(self) -> None:
        """Ends what `begin` has begun."""

    def disconnect(self) -> None:
        """Cancels the block, since the client has gone."""
        self.is_gone = True
        if self._task is not None:
            self._task.cancel()


class _WatchedClient(_Client):
    """The client of a server that tells when it has gone, and that sends the comments itself."""

    __slots__ = ("_server",)
    comment = KEEPALIVE_COMMENT
    quiet_seconds = KEEPALIVE_SECONDS

    def __init__(self, server: WatchingServer) -> None:
        super().__init__()
        self._server = server

    def begin(self) -> None:
        self._server.watch_client(self)

    def end(self) -> None:
        self._server.watch_client(None)


class _ReceivingClient(_Client):
    """The client of any other server of ASGI: one task waits for the disconnect, and a timer for quiet times."""

    __slots__ = ("_comment_task", "_comment_timer", "_disconnect_task", "_receive", "_send")

    def __init__(self, receive: Receive, send: Send) -> None:
        super().__init__()
        self._receive = receive
        self._send = send
        self._comment_task: asyncio.Future[None] | None = None

    def begin(self) -> None:
        self._disconnect_task = asyncio.create_task(wait_for_disconnect(self._receive))
        self._disconnect_task.add_done_callback(self._on_disconnect)
        self._comment_timer = asyncio.get_running_loop().call_later(KEEPALIVE_SECONDS, self._send_comment_if_quiet)

    def end(self) -> None:
        self._comment_timer.cancel()
        self._disconnect_task.remove_done_callback(self._on_disconnect)
        self._disconnect_task.cancel()
        if self._comment_task is not None:
            self._comment_task.cancel()

    def _on_disconnect(self, disconnect_task: "asyncio.Task[None]") -> None:
        if not disconnect_task.cancelled() and (error := disconnect_task.exception()) is not None:
            log.warning("listener_lost", error=type(error).__name__)
        self.disconnect()

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
