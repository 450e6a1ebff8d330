"""One request and its answer, between a client's connection and an ASGI application."""

import asyncio
from collections.abc import Iterable, MutableMapping
from typing import TYPE_CHECKING, Any, Final

import structlog

from gateway.ingress.http.asgi import App, Header, Scope
from gateway.server.sockets.answer_heads import BODILESS, closes_connection, encode_headers

if TYPE_CHECKING:
    from gateway.server.sockets.client_connection import ClientConnection

CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
CLOSE_LINE: Final = b"connection: close\r\n"
FAILED_LINES: Final = encode_headers([(b"content-type", b"text/plain; charset=utf-8")])
log = structlog.get_logger()


class Exchange:
    """The request and the answer of one ASGI application: `receive` is its receive, and the exchange itself its send.

    An application of the gateway may also write a whole answer at once, by `write_answer`.
    """

    __slots__ = (
        "_awaits_continue",
        "_body",
        "_connection",
        "_has_news",
        "_head",
        "_is_chunked",
        "_keeps_open",
        "_left",
        "_more_body",
        "_sends_body",
        "_task",
        "_waiters",
        "has_begun",
        "is_complete",
        "is_disconnected",
        "scope",
    )

    def __init__(self, connection: "ClientConnection", scope: Scope, *, keeps_open: bool, awaits_continue: bool) -> None:
        """`keeps_open`: the client wants to send further requests. `awaits_continue`: it sends the body after 100 (Continue)."""
        self._connection = connection
        self.scope = scope
        self._keeps_open = keeps_open
        self._awaits_continue = awaits_continue
        self._body = b""  # that the application has not received yet
        self._more_body = True
        self._has_news = False  # for the application: a piece of the body, its end, or the end of the exchange
        self._waiters: list[asyncio.Future[None]] = []  # for news
        self._head = b""  # of an answer whose body has not come yet
        self._is_chunked = False
        self._sends_body = True
        self._left: int | None = None  # bytes of the body that are still to come; None: unknown
        self._task: asyncio.Task[None] | None = None
        self.has_begun = False  # the answer
        self.is_complete = False  # the answer
        self.is_disconnected = False

    @property
    def body_size(self) -> int:
        """The number of bytes of the body that wait for the application."""
        return len(self._body)

    def start(self, app: App, tasks: "set[asyncio.Task[None]]") -> None:
        """Runs the application in a task, which is in `tasks` until it ends.

        If the application fails before its answer has begun, the answer is 500, else the connection is closed.
        """
        task = self._task = self._connection.loop.create_task(self._run(app, tasks))
        tasks.add(task)

    async def _run(self, app: App, tasks: "set[asyncio.Task[None]]") -> None:
        try:
            await app(self.scope, self.receive, self)
        except Exception:
            log.exception("application_failed")
            self._fail()
        except asyncio.CancelledError:
            self._fail()
            raise
        else:
            if not self.is_complete and not self.is_disconnected:
                log.error("application_without_answer", path=self.scope["path"])
                self._fail()
        finally:
            if self._task is not None:  # always: this runs after `start`
                tasks.discard(self._task)

    async def receive(self) -> MutableMapping[str, Any]:
        """Waits for the next piece of the body, or for the end of the exchange (ASGI HTTP, `http.request` and `http.disconnect`)."""
        if self._awaits_continue and not self._connection.transport.is_closing():
            self._awaits_continue = False
            self._connection.write(CONTINUE)
        while not (self._has_news or self.is_disconnected or self.is_complete):
            self._connection.resume_reading()
            waiter: asyncio.Future[None] = self._connection.loop.create_future()
            self._waiters.append(waiter)
            await waiter
        self._has_news = False
        if self.is_disconnected or self.is_complete:
            return {"type": "http.disconnect"}
        body, self._body = self._body, b""
        return {"type": "http.request", "body": body, "more_body": self._more_body}

    async def __call__(self, message: MutableMapping[str, Any]) -> None:
        """Sends a part of the answer (ASGI HTTP, `http.response.start` and `http.response.body`).

        Raises RuntimeError for a message out of order and for a body whose length is not as declared, and ValueError for headers that
        HTTP does not allow.
        """
        if self._connection.is_write_paused and not self.is_disconnected:
            await self._connection.wait_until_writable()
        if self.is_disconnected:
            return
        kind = message["type"]
        if kind == ("http.response.body" if self.has_begun else "http.response.start") and not self.is_complete:
            if self.has_begun:
                self._send_body(message.get("body", b""), message.get("more_body", False))
            else:
                self._begin(message["status"], list(message.get("headers", ())))
            return
        raise RuntimeError(
            f"{kind} was sent when the answer {'was complete' if self.is_complete else 'had begun' if self.has_begun else 'had not begun'}"
        )

    def write_answer(self, status: int, lines: bytes, headers: Iterable[Header], body: bytes) -> bool:
        """Writes a whole answer. `lines`: encoded headers. Returns False, and writes nothing, while the client is slow to read.

        Raises RuntimeError if the answer has begun, and ValueError for headers that HTTP does not allow.
        """
        if self.is_disconnected:
            return True
        if self.has_begun:
            raise RuntimeError("an answer was sent when the answer had begun")
        connection = self._connection
        if connection.is_write_paused:
            return False
        if headers:
            headers = list(headers)
            lines += encode_headers(headers)
            self._keeps_open = self._keeps_open and not closes_connection(headers)
        if not self._keeps_open:
            lines += CLOSE_LINE
        self.has_begun = True
        start = connection.answer_start(status)
        if status in BODILESS:
            connection.write(b"%b%b\r\n" % (start, lines))
        else:
            shown = body if self.scope["method"] != "HEAD" else b""
            connection.write(b"%b%bcontent-length: %d\r\n\r\n%b" % (start, lines, len(body), shown))
        self._finish()
        return True

    def feed(self, body: bytes) -> None:
        """Adds a piece of the request's body."""
        self._body = self._body + body if self._body else body
        self._tell()

    def end_body(self) -> None:
        """Notes that the request is complete."""
        self._more_body = False
        self._tell()

    def disconnect(self) -> None:
        """Ends the exchange: the client, or the connection to it, is gone."""
        self.is_disconnected = True
        self._tell()

    def end_refused(self) -> bool:
        """Ends the exchange: the connection answers in place of the application. Returns whether the connection may stay open."""
        self.has_begun = self.is_complete = True
        return self._keeps_open and not self._awaits_continue

    def close_after_answer(self) -> None:
        """Closes the connection as soon as the request is answered."""
        self._keeps_open = False

    def _tell(self) -> None:
        """Wakes the application where it waits in `receive`."""
        self._has_news = True
        if self._waiters:
            waiters, self._waiters = self._waiters, []
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)

    def _begin(self, status: int, headers: list[Header]) -> None:
        """Prepares the head, which is sent together with the first piece of the body, or at the end of the event loop's iteration."""
        lines, known = encode_headers(headers), {name.lower(): value for name, value in headers}
        self._sends_body = self.scope["method"] != "HEAD" and status not in BODILESS
        if b"content-length" in known:
            self._left = int(known[b"content-length"]) if self._sends_body else None
        elif self._sends_body and self.scope["http_version"] == "1.0":  # which knows no chunks: the end of the connection ends the body
            self._keeps_open = False
        elif self._sends_body:
            self._is_chunked = True
            lines += b"" if b"transfer-encoding" in known else b"transfer-encoding: chunked\r\n"
        if not self._keeps_open and b"connection" not in known:
            lines += CLOSE_LINE
        self._keeps_open = self._keeps_open and not closes_connection(headers)
        self.has_begun = True
        self._awaits_continue = False
        self._head = b"%b%b\r\n" % (self._connection.answer_start(status), lines)
        self._connection.loop.call_soon(self._send_head)

    def _send_head(self) -> None:
        """Sends a head whose body has not come yet, as that of a stream."""
        if self._head and not self.is_disconnected:
            head, self._head = self._head, b""
            self._connection.write(head)

    def _send_body(self, body: bytes, more_body: bool) -> None:
        if not self._sends_body:
            body = b""
        elif self._is_chunked:
            body = (b"%x\r\n%b\r\n" % (len(body), body) if body else b"") + (b"" if more_body else b"0\r\n\r\n")
        elif self._left is not None:
            self._left -= len(body)
            if self._left < 0 or (self._left and not more_body):
                raise RuntimeError("the body of an answer is not as long as its Content-Length")
        head, self._head = self._head, b""
        if head or body:
            self._connection.write(head + body)
        if not more_body:
            self._finish()

    def _finish(self) -> None:
        self.is_complete = True
        self._tell()
        if not self._keeps_open:
            self._connection.transport.close()
        self._connection.end_exchange()

    def _fail(self) -> None:
        if self.is_disconnected or self.is_complete:
            return
        self.close_after_answer()
        if self.has_begun or not self.write_answer(500, FAILED_LINES, (), b"Internal Server Error"):
            self._send_head()
            self._connection.transport.close()
