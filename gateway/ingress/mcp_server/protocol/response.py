"""The HTTP response to one MCP request: plain JSON, or server-sent events once a message precedes the answer."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Iterable

from adapters.upstream.sse import one_line
from gateway.ingress.http.asgi import Header, Receive, Scope, Send, list_header, respond, wait_for_disconnect
from gateway.ingress.http.error_bodies import trace_headers
from gateway.ingress.http.event_streams import stream_events

QUEUED_BYTES_MAX = 1 << 20  # bytes queued for one slow client; further notifications are dropped
CROWDED_MAX = 64 << 10  # bytes queued for one client while more than BACKLOG_MAX is queued for all clients
BACKLOG_MAX = 32 << 20
END_SECONDS = 30.0  # how long the end of a stream waits for its client
EVENT_STREAM = "text/event-stream"


def accepts_events(scope: Scope) -> bool:
    """Returns whether Accept allows an event stream, or is absent. Raises BadHeader."""
    accepted = list_header(scope, b"accept")
    return accepted is None or "*/*" in accepted or "text/*" in accepted or EVENT_STREAM in accepted


def frame_event(body: bytes, event_id: str = "") -> bytes:
    """Returns one JSON-RPC message as a server-sent event. Line breaks between its tokens are replaced, since they would end the event."""
    if b"\n" in body or b"\r" in body:
        body = body.replace(b"\r", b" ").replace(b"\n", b" ")
    data = one_line(body)
    return b"id: %s\ndata: %s\n\n" % (event_id.encode(), data) if event_id else b"data: %s\n\n" % data


class Backlog:
    """The number of bytes queued for all slow clients of this process."""

    __slots__ = ("size",)

    def __init__(self) -> None:
        self.size = 0

    @property
    def queue_limit(self) -> int:
        """Returns how many bytes may be queued for one client."""
        return QUEUED_BYTES_MAX if self.size <= BACKLOG_MAX else CROWDED_MAX


class HttpResponseWriter:
    """Writes the response of one request. Events are queued, so that no sender waits for a slow client."""

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
        """Queues an event before the answer. Returns False when the client accepts no events, or too many bytes are queued."""
        if not self._accepts_events or self._is_ended or self._queued_bytes > self._backlog.queue_limit:
            return False
        self._begin_stream()
        self._enqueue(event_bytes)
        return True

    async def say_in_turn(self, framed: bytes) -> bool:
        """Queues an event that must not be dropped: waits until most queued bytes are sent, or the client has disconnected."""
        while self._queued_bytes > CROWDED_MAX:
            self._less.clear()
            await self._less.wait()
        return self.send_event(framed)

    def finish(self, body: bytes, status: int = 200, headers: Iterable[Header] = (), event_id: str = "") -> Awaitable[None]:
        """Sends the answer after all queued events."""
        if self._stream_task is None:
            self._is_ended = True
            return respond(self._send, status, body, headers)
        self._enqueue(frame_event(body, event_id))
        return self.end()

    async def end(self) -> None:
        """Ends the stream without a further answer."""
        self._is_ended = True
        self._queue_changed.set()
        if self._stream_task is not None:
            await asyncio.wait([self._stream_task], timeout=END_SECONDS)
            self._stream_task.cancel()

    @property
    def stream_task(self) -> asyncio.Task[None]:
        """Returns the task of a stream that has begun; it is done when the client has disconnected."""
        assert self._stream_task is not None
        return self._stream_task

    async def wait_for_disconnect(self) -> None:
        """Returns when the client has disconnected."""
        if self._stream_task is None:
            await wait_for_disconnect(self._receive)
        else:
            await asyncio.wait([self._stream_task])

    def _begin_stream(self) -> None:
        if self._stream_task is None:
            self._stream_task = asyncio.create_task(stream_events(self._receive, self._send, self._events(), trace_headers()))
            self._stream_task.add_done_callback(self._on_stream_end)

    def _on_stream_end(self, _streaming: "asyncio.Task[None]") -> None:
        """Drops the queue of a client that has disconnected. Later events may still be stored for a stream that resumes."""
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
