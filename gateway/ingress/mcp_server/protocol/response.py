"""The answer to one request as HTTP sees it: plain JSON, or server-sent events from the first thing that is said before it."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Iterable

from adapters.upstream.sse import one_line
from gateway.ingress.http.asgi import Header, Receive, Scope, Send, list_header, respond, stream_events, wait_for_disconnect

QUEUED_BYTES_MAX = 1 << 20  # bytes that wait for one slow reader; notifications beyond them are dropped
CROWDED_MAX = 64 << 10  # the same, while more than BACKLOG_MAX waits for all readers together
BACKLOG_MAX = 32 << 20
END_SECONDS = 30.0  # for which the end of a stream waits for its reader
EVENT_STREAM = "text/event-stream"


def accepts_events(scope: Scope) -> bool:
    """Whether the client reads streams: it says so, or says nothing of what it reads. Raises BadHeader."""
    accepted = list_header(scope, b"accept")
    return accepted is None or "*/*" in accepted or "text/*" in accepted or EVENT_STREAM in accepted


def frame_event(body: bytes, event_id: str = "") -> bytes:
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
    def queue_limit(self) -> int:
        """How many may wait for one reader."""
        return QUEUED_BYTES_MAX if self.size <= BACKLOG_MAX else CROWDED_MAX


class HttpResponseWriter:
    """Nobody who says something waits for the reader, who may be slow or stalled."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, backlog: Backlog) -> None:
        self._receive = receive
        self._send = send
        self._accepts_events = accepts_events(scope)
        self._queued: deque[bytes] = deque()
        self._queued_bytes = 0
        self._backlog = backlog
        self._queue_changed = asyncio.Event()
        self._less = asyncio.Event()
        self._is_ended = False
        self._stream_task: asyncio.Task[None] | None = None

    @property
    def is_streaming(self) -> bool:
        return self._stream_task is not None

    def send_event(self, event_bytes: bytes) -> bool:
        """Says an event before the answer; False where the client takes none, or too much waits for it already."""
        if not self._accepts_events or self._is_ended or self._queued_bytes > self._backlog.queue_limit:
            return False
        self._begin_stream()
        self._enqueue(event_bytes)
        return True

    async def say_in_turn(self, framed: bytes) -> bool:
        """Says an event that must not be dropped: waits until the reader has read most of what waits, or has left."""
        while self._queued_bytes > CROWDED_MAX:
            self._less.clear()
            await self._less.wait()
        return self.send_event(framed)

    async def finish(self, body: bytes, status: int = 200, headers: Iterable[Header] = (), event_id: str = "") -> None:
        """The answer, after all that was said."""
        if self._stream_task is None:
            self._is_ended = True
            await respond(self._send, status, body, headers)
        else:
            self._enqueue(frame_event(body, event_id))
            await self.end()

    async def end(self) -> None:
        """Ends the stream, without an answer where there was none."""
        self._is_ended = True
        self._queue_changed.set()
        if self._stream_task is not None:
            await asyncio.wait([self._stream_task], timeout=END_SECONDS)
            self._stream_task.cancel()

    @property
    def stream_task(self) -> asyncio.Task[None]:
        """The stream, which has begun; it is done when the client has left."""
        assert self._stream_task is not None
        return self._stream_task

    async def wait_for_disconnect(self) -> None:
        """Returns when the client has left."""
        if self._stream_task is None:
            await wait_for_disconnect(self._receive)
        else:
            await asyncio.wait([self._stream_task])

    def _begin_stream(self) -> None:
        if self._stream_task is None:
            self._stream_task = asyncio.create_task(stream_events(self._receive, self._send, self._events()))
            self._stream_task.add_done_callback(self._on_stream_end)

    def _on_stream_end(self, _streaming: "asyncio.Task[None]") -> None:
        """Forgets what waits for a reader who has left. What is said from now on may still be kept for a stream that is taken up again."""
        self._queued.clear()
        self._count(-self._queued_bytes)
        self._less.set()

    def _enqueue(self, event_bytes: bytes) -> None:
        if self._stream_task is not None and not self._stream_task.done():
            self._queued.append(event_bytes)
            self._count(len(event_bytes))
            self._queue_changed.set()

    def _count(self, size: int) -> None:
        self._queued_bytes += size
        self._backlog.size += size

    async def _events(self) -> AsyncGenerator[bytes, None]:
        while True:
            while self._queued:
                framed = self._queued.popleft()
                self._count(-len(framed))
                self._less.set()
                yield framed
            if self._is_ended:
                return
            self._queue_changed.clear()
            await self._queue_changed.wait()
