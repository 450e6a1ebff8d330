"""One request and its answer, between a client's connection and an ASGI application."""

import asyncio
from collections.abc import Iterable, MutableMapping
from typing import Any, Final

import structlog

from gateway.ingress.http.asgi import App, Header, Scope
from gateway.ingress.http.event_streams import StreamClient
from gateway.server.sockets.answer_heads import BODILESS, closes_connection, encode_headers
from gateway.server.sockets.client_transport import ClientTransport
from gateway.server.sockets.request_body import RequestBody

CLOSE_LINE: Final = b"connection: close\r\n"
FAILED_LINES: Final = encode_headers([(b"content-type", b"text/plain; charset=utf-8")])
log = structlog.get_logger()


class HttpExchange(RequestBody):
    """One request and its answer. Its ASGI application gets `receive`, and the exchange itself as `send`.

    An application of the gateway may also write a whole answer at once, by `write_answer`. The exchange is its own request body, since
    each open stream holds one, and a second object would take more memory.
    """

    __slots__ = ("_client", "_head", "_is_chunked", "_keeps_open", "_left", "_sends_body", "_task", "has_begun", "scope")

    def __init__(self, connection: ClientTransport, scope: Scope, *, keeps_open: bool, awaits_continue: bool) -> None:
        """`keeps_open`: the client wants to send further requests. `awaits_continue`: see RequestBody."""
        super().__init__(connection, awaits_continue=awaits_continue)
        self.scope = scope
        self._keeps_open = keeps_open
        self._task: asyncio.Task[None] | None = None
        self._head = b""  # of an answer whose body has not come yet
        self._is_chunked = False
        self._sends_body = True  # the answer to HEAD, and one with a status of BODILESS, has none
        self._left: int | None = None  # bytes of the body that are still to come; None: unknown
        self._client: StreamClient | None = None  # of a stream
        self.has_begun = False  # whether the answer has begun

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
            if not self.is_answered and not self.is_disconnected:
                log.error("application_without_answer", path=self.scope["path"])
                self._fail()
        finally:
            if self._task is not None:  # always: this runs after `start`
                tasks.discard(self._task)

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
        if kind == ("http.response.body" if self.has_begun else "http.response.start") and not self.is_answered:
            if self.has_begun:
                self._send_body(message.get("body", b""), message.get("more_body", False))
            else:
                self._begin(message["status"], list(message.get("headers", ())))
            return
        raise RuntimeError(
            f"{kind} was sent when the answer {'was complete' if self.is_answered else 'had begun' if self.has_begun else 'had not begun'}"
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

    def watch_client(self, client: StreamClient | None) -> None:
        """Tells `client` when it has disconnected, and writes its comments while the stream is quiet, until it is replaced by None."""
        self._client = client
        if client is not None and self.is_disconnected:
            self._connection.loop.call_soon(client.disconnect)

    def disconnect(self) -> None:
        super().disconnect()
        if self._client is not None:
            self._client.disconnect()

    def write_comment(self, quiet: float) -> None:
        """Writes a comment on a stream on which nothing was written for `quiet` seconds, if that is long enough."""
        is_open = self.has_begun and not self.is_answered and not self._connection.is_write_paused
        if self._client is not None and is_open and quiet >= self._client.quiet_seconds:
            self._send_body(self._client.comment, more_body=True)

    def end_refused(self) -> bool:
        """Ends the exchange: the connection answers in place of the application. Returns whether the connection may stay open."""
        self.has_begun = True
        self.end_answer()
        return self._keeps_open and not self._awaits_continue

    def close_after_answer(self) -> None:
        """Closes the connection as soon as the request is answered."""
        self._keeps_open = False

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
        self.withdraw_continue()
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
        self.end_answer()
        if not self._keeps_open:
            self._connection.transport.close()
        self._connection.end_exchange()

    def _fail(self) -> None:
        if self.is_disconnected or self.is_answered:
            return
        self.close_after_answer()
        if self.has_begun or not self.write_answer(500, FAILED_LINES, (), b"Internal Server Error"):
            self._send_head()
            self._connection.transport.close()
