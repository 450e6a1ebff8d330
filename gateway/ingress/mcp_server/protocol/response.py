"""The answer to one request as HTTP sees it: plain JSON, or server-sent events from the first thing that is said before it."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Iterable

from adapters.upstream.sse import one_line
from gateway.ingress.http.asgi import Header, Receive, Scope, Send, left, list_header, respond, stream

WAITING_MAX = 1 << 20  # bytes that wait for one slow reader; notifications beyond them are dropped
CROWDED_MAX = 64 << 10  # the same, while more than BACKLOG_MAX waits for all readers together
BACKLOG_MAX = 32 << 20
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


class Backlog:
    """How many bytes wait for all slow readers of one process together."""

    __slots__ = ("size",)

    def __init__(self) -> None:
        self.size = 0

    @property
    def bound(self) -> int:
        """How many may wait for one reader."""
        return WAITING_MAX if self.size <= BACKLOG_MAX else CROWDED_MAX


class Outlet:
    """Nobody who says something waits for the reader, who may be slow or stalled."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, backlog: Backlog) -> None:
        self._receive = receive
        self._send = send
        self._streams = takes_events(scope)
        self._waiting: deque[bytes] = deque()
        self._size = 0
        self._backlog = backlog
        self._more = asyncio.Event()
        self._less = asyncio.Event()
        self._ended = False
        self._streaming: asyncio.Task[None] | None = None

    @property
    def streaming(self) -> bool:
        return self._streaming is not None

    def say(self, framed: bytes) -> bool:
        """Says an event before the answer; False where the client takes none, or too much waits for it already."""
        if not self._streams or self._ended or self._size > self._backlog.bound:
            return False
        self._begin()
        self._put(framed)
        return True

    async def say_in_turn(self, framed: bytes) -> bool:
        """Says an event that must not be dropped: waits until the reader has read most of what waits, or has left."""
        while self._size > CROWDED_MAX:
            self._less.clear()
            await self._less.wait()
        return self.say(framed)

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
            self._streaming.add_done_callback(self._over)

    def _over(self, _streaming: "asyncio.Task[None]") -> None:
        """Forgets what waits for a reader who has left. What is said from now on may still be kept for a stream that is taken up again."""
        self._waiting.clear()
        self._count(-self._size)
        self._less.set()

    def _put(self, framed: bytes) -> None:
        if self._streaming is not None and not self._streaming.done():
            self._waiting.append(framed)
            self._count(len(framed))
            self._more.set()

    def _count(self, size: int) -> None:
        self._size += size
        self._backlog.size += size

    async def _events(self) -> AsyncGenerator[bytes, None]:
        while True:
            while self._waiting:
                framed = self._waiting.popleft()
                self._count(-len(framed))
                self._less.set()
                yield framed
            if self._ended:
                return
            self._more.clear()
            await self._more.wait()
