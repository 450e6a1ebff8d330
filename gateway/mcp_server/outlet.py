"""The answer to one request as HTTP sees it: plain JSON, or server-sent events from the first thing that is said before it."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Iterable

from adapters.sse import one_line
from gateway.asgi import Header, Receive, Scope, Send, left, list_header, respond, stream

WAITING_MAX = 1 << 20  # bytes that wait for a slow reader; notifications beyond them are dropped
STALLED_SECONDS = 30.0  # for which the end of a stream waits for its reader
EVENTS = "text/event-stream"


def takes_events(scope: Scope) -> bool:
    """Whether the client reads streams: it says so, or says nothing of what it reads. Raises BadHeader."""
    accepted = list_header(scope, b"accept")
    return accepted is None or "*/*" in accepted or "text/*" in accepted or EVENTS in accepted


def event(body: bytes, event_id: str = "") -> bytes:
    """One JSON-RPC message, framed. Line breaks between its tokens would end the event too early."""
    if b"\n" in body or b"\r" in body:
        body = body.replace(b"\r", b" ").replace(b"\n", b" ")
    data = one_line(body)
    return b"id: %s\ndata: %s\n\n" % (event_id.encode(), data) if event_id else b"data: %s\n\n" % data


class Outlet:
    """Nobody who says something waits for the reader, who may be slow or stalled."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._streams = takes_events(scope)
        self._waiting: deque[bytes] = deque()
        self._size = 0
        self._more = asyncio.Event()
        self._ended = False
        self._streaming: asyncio.Task[None] | None = None

    @property
    def streaming(self) -> bool:
        return self._streaming is not None

    def say(self, framed: bytes) -> bool:
        """Says an event before the answer; False where the client takes none, or too many wait for it already."""
        if not self._streams or self._ended or self._size > WAITING_MAX:
            return False
        self._begin()
        self._put(framed)
        return True

    async def finish(self, body: bytes, status: int = 200, headers: Iterable[Header] = (), event_id: str = "") -> None:
        """The answer, after all that was said."""
        if self._streaming is None:
            self._ended = True
            await respond(self._send, status, body, headers)
        else:
            self._put(event(body, event_id))
            await self.end()

    async def end(self) -> None:
        """Ends the stream, without an answer where there was none."""
        self._ended = True
        self._more.set()
        if self._streaming is not None:
            await asyncio.wait([self._streaming], timeout=STALLED_SECONDS)
            self._streaming.cancel()

    @property
    def stream(self) -> asyncio.Task[None]:
        """The stream, which has begun; it is done when the client has left."""
        assert self._streaming is not None
        return self._streaming

    async def left(self) -> None:
        """Returns when the client has left."""
        if self._streaming is None:
            await left(self._receive)
        else:
            await asyncio.wait([self._streaming])

    def _begin(self) -> None:
        if self._streaming is None:
            self._streaming = asyncio.create_task(stream(self._receive, self._send, self._events()))

    def _put(self, framed: bytes) -> None:
        self._waiting.append(framed)
        self._size += len(framed)
        self._more.set()

    async def _events(self) -> AsyncGenerator[bytes, None]:
        while True:
            while self._waiting:
                framed = self._waiting.popleft()
                self._size -= len(framed)
                yield framed
            if self._ended:
                return
            self._more.clear()
            await self._more.wait()
