"""One connection of HTTP/1.1, with at most one request."""

import asyncio
import math
import zlib
from typing import Any, NamedTuple

import httptools
from yarl import URL

from adapters.upstream.http1.responses import ArrivingBody, ConnectionDropped, HttpResponse, ResponseTooLarge

HEAD_MAX = 64 << 10  # bytes of a response's headers
FIELDS_MAX = 500  # headers and trailers of a response
INFORMATIONAL_MAX = 20  # responses with a status of 1xx before the response
UNPARSED_MAX = HEAD_MAX + (256 << 10)  # bytes that end no header and are not body; a single read has at most the latter
DECOMPRESSED_MAX = 8 << 20  # bytes that one read from the socket may become, of an arriving body
LARGE_READ = 128 << 10  # bytes; the event loop would read up to 32 such pieces, one after the other, before it serves others
_CONTENT_ENCODINGS = frozenset({"gzip", "x-gzip", "deflate"})


class HttpOrigin(NamedTuple):
    """Where a connection leads (RFC 6454 s4)."""

    host: str
    port: int
    uses_tls: bool


class HttpTarget(NamedTuple):
    """A URL prepared for requests: where to connect, and the constant part of the request head after the method."""

    origin: HttpOrigin
    head_start: str

    @classmethod
    def from_url(cls, url: URL) -> "HttpTarget":
        """The target of a vetted http(s) URL."""
        origin = HttpOrigin(url.raw_host or "", url.port or 0, url.scheme == "https")
        shown = f"[{origin.host}]" if ":" in origin.host else origin.host
        if not url.is_default_port():
            shown = f"{shown}:{origin.port}"
        lines = (f" {url.raw_path_qs} HTTP/1.1", f"Host: {shown}", "User-Agent: interlock", "Accept-Encoding: gzip, deflate", "")
        return cls(origin, "\r\n".join(lines))


class Http1Connection(asyncio.Protocol):
    """One connection with at most one request. Data without a request closes it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[Any] | None = None  # of the response, or of its head
        self._arriving: ArrivingBody | None = None
        self._deadline = math.inf  # of the request, on the event loop's clock
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf
        self._opens: str | None = None  # media types that begin with it are read while they arrive; None: none are
        self._limit = 0
        self._expects_no_body = False
        self._informational_count = 0
        self.is_usable = True
        self.idle_since = 0.0
        self._reset()

    def _reset(self) -> None:
        self._status = 0
        self._fields: dict[str, str] = {}
        self._head_size = 0
        self._field_count = 0
        self._unparsed_size = 0
        self._chunks: list[bytes] = []
        self._size = 0
        self._decompressor: zlib._Decompress | None = None
        self._reading_body = False
        self._has_body = False

    def send(self, head: bytes, body: bytes | None, deadline: float, limit: int, *, opens: str | None = None) -> asyncio.Future[Any]:
        """Sends a request. The future gets its HttpResponse, of at most `limit` bytes.

        Of a response whose media type begins with `opens`, it gets the status, headers and ArrivingBody as soon as these have come.
        `deadline`, on the event loop's clock, is for the whole response, and holds until `stop_timer` where it was opened. Raises
        ConnectionDropped, and the future what ConnectionPool.exchange raises.
        """
        if self._transport is None or not self.is_usable:
            raise ConnectionDropped("the connection is closed")
        self._reset()
        self._limit, self._opens, self._arriving = limit, opens, None
        self._informational_count = 0
        self._expects_no_body = head.startswith(b"HEAD ")
        waiter = self._waiter = self._loop.create_future()
        self._deadline = deadline
        if deadline < self._timer_at:
            self._set_timer(deadline)
        self._transport.write(head + body if body else head)
        return waiter

    def stop_timer(self) -> None:
        """Ends the deadline of a response that was opened."""
        self._deadline = math.inf

    def _set_timer(self, when: float) -> None:
        """Looks at the deadline at `when`. A request with a later one leaves the timer alone, since to set one takes long."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = when
        self._timer = self._loop.call_at(when, self._check_deadline)

    def _check_deadline(self) -> None:
        self._timer, self._timer_at = None, math.inf
        if self._deadline <= self._loop.time():
            self._fail(TimeoutError())
        elif self._deadline < math.inf:
            self._set_timer(self._deadline)

    def close(self) -> None:
        self.is_usable = False
        if self._timer is not None:
            self._timer.cancel()
        if self._transport is not None:
            self._transport.abort()

    def _fail(self, error: Exception) -> None:
        if self._arriving is not None:
            self._arriving.end(error)
        elif self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(error)
        self.close()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # a stream's transport is always writable

    def data_received(self, data: bytes) -> None:
        if self._arriving is None and (self._waiter is None or self._waiter.done()):
            self._fail(ValueError("a response without a request"))
            return
        self._unparsed_size += len(data)
        if self._arriving is not None:
            self._size = 0
        try:
            self._parser.feed_data(data)
            if self._unparsed_size > UNPARSED_MAX:
                self._fail(ResponseTooLarge(f"more than {HEAD_MAX} bytes of headers"))
        except (httptools.HttpParserError, httptools.HttpParserUpgrade, UnicodeDecodeError, zlib.error) as error:
            self._fail(_callback_error(error))
        if len(data) >= LARGE_READ and self._arriving is None and self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()  # an arriving body pauses itself
            self._loop.call_soon(self._read_on)

    def _read_on(self) -> None:
        """Reads on in the next iteration of the event loop, after others had their turn."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_usable = False
        if self._timer is not None:
            self._timer.cancel()
        waiter = self._waiter
        endless = self._reading_body and not self._fields.keys() & {"content-length", "transfer-encoding"}
        if self._arriving is not None:
            self._arriving.end(None if endless and exc is None else ConnectionDropped("the response was cut off"))
            return
        if waiter is None or waiter.done():
            return
        if endless and exc is None:
            waiter.set_result(self._build_response())
        elif self._reading_body or self._fields:
            waiter.set_exception(ValueError("the response was cut off"))
        else:
            waiter.set_exception(ConnectionDropped("the connection ended without a response"))

    # httptools.HttpResponseParser

    def on_message_begin(self) -> None:
        if self._waiter is None or self._waiter.done():
            raise ValueError("a response without a request")

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head_size += len(name) + len(value)
        self._field_count += 1
        if self._head_size > HEAD_MAX or self._field_count > FIELDS_MAX:
            raise ResponseTooLarge(f"more than {HEAD_MAX} bytes of headers, or {FIELDS_MAX} of them")
        fields, key, text = self._fields, name.decode("ascii").lower(), value.decode("latin-1")
        fields[key] = f"{fields[key]}, {text}" if key in fields else text

    def on_headers_complete(self) -> None:
        self._status = self._parser.get_status_code()
        if self._status < 200:
            return
        self._reading_body = True
        self._unparsed_size = 0
        if self._expects_no_body:  # whatever the headers say; the parser can't know, so the connection can't be used again
            self.is_usable = False
            if self._waiter is not None and not self._waiter.done():
                self._waiter.set_result(self._build_response())
            return
        if (encoding := self._fields.get("content-encoding")) is not None:
            self._decompressor = _decompressor_of(encoding.lower())
        if self._opens is None or self._waiter is None or self._waiter.done():
            return
        if self._fields.get("content-type", "").lower().startswith(self._opens):
            self._limit = DECOMPRESSED_MAX
            self._arriving = ArrivingBody(self._transport)  # type: ignore[arg-type]  # of a connection that receives
            self._waiter.set_result((self._status, self._fields, self._arriving))

    def on_body(self, body: bytes) -> None:
        self._unparsed_size = 0
        self._has_body = True
        if self._decompressor is not None:
            body = self._decompressor.decompress(body, self._limit - self._size + 1)
            if self._decompressor.unused_data:
                raise ValueError("the compressed response goes on behind its end")
        self._size += len(body)
        if self._size > self._limit:
            raise ResponseTooLarge(f"more than {self._limit} bytes")
        if self._arriving is not None:
            self._arriving.feed(body)
        else:
            self._chunks.append(body)

    def on_message_complete(self) -> None:
        if not self._reading_body:  # an informational response such as 100 Continue
            if self._status == 101:
                raise ValueError("the server changes the protocol")
            self._reset()
            self._informational_count += 1
            if self._informational_count > INFORMATIONAL_MAX:
                raise ValueError(f"more than {INFORMATIONAL_MAX} informational responses")
            return
        self.is_usable = self.is_usable and self._parser.should_keep_alive()
        if self._decompressor is not None and not self._decompressor.eof and self._has_body:
            raise ValueError("the compressed response was cut off")
        if self._arriving is not None:
            self._arriving.end()
            return
        self._deadline = math.inf
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(self._build_response())

    def _build_response(self) -> HttpResponse:
        chunks = self._chunks
        return HttpResponse(self._status, self._fields, chunks[0] if len(chunks) == 1 else b"".join(chunks))


def _decompressor_of(encoding: str) -> "zlib._Decompress | None":
    """Raises ValueError for an encoding that was not requested."""
    if encoding in _CONTENT_ENCODINGS:
        return zlib.decompressobj(zlib.MAX_WBITS | 32)
    if encoding in ("identity", ""):
        return None
    raise ValueError("the response has an encoding that was not requested")


def _callback_error(error: Exception) -> Exception:
    """The error that a callback raised, which the parser wraps."""
    inner = error.__context__
    return inner if isinstance(inner, (ResponseTooLarge, ValueError)) else ValueError(f"{type(error).__name__}: {error}"[:200])
