"""An HTTP/1.1 client for whole responses: kept connections to vetted addresses, and few objects per request."""

import asyncio
import zlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from ssl import SSLContext
from typing import NamedTuple
from weakref import WeakValueDictionary

import httptools
from yarl import URL

HEAD_MAX = 64 << 10  # bytes of a response's headers
UNPARSED_MAX = HEAD_MAX + (256 << 10)  # bytes that end no header and are not body; a single read has at most the latter
UNBOUNDED = 1 << 30
IDLE_MAX = 200  # idle connections
_CONTENT_ENCODINGS = frozenset({"gzip", "x-gzip", "deflate"})
_METHODS_WITHOUT_BODY = frozenset({"GET", "HEAD", "DELETE"})


class HttpResponse(NamedTuple):
    """A whole response. Names of `headers` are in lower case; repeated values are joined by commas."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class ResponseTooLarge(Exception):
    """The response exceeds the limit of its headers or its (decompressed) body."""


class NotConnected(Exception):
    """There is no connection, so nothing was sent. `error` says why."""

    def __init__(self, error: OSError) -> None:
        super().__init__(str(error))
        self.error = error


class ConnectionDropped(ConnectionError):
    """The connection ended without a response, for example a kept one that the server closed."""


class HttpTarget(NamedTuple):
    """A URL prepared for requests: where to connect, and the constant part of the request head after the method."""

    host: str
    port: int
    uses_tls: bool
    head_start: str

    @classmethod
    def from_url(cls, url: URL) -> "HttpTarget":
        """The target of a vetted http(s) URL."""
        host, port = url.raw_host or "", url.port or 0
        shown = f"[{host}]" if ":" in host else host
        if not url.is_default_port():
            shown = f"{shown}:{port}"
        lines = (f" {url.raw_path_qs} HTTP/1.1", f"Host: {shown}", "User-Agent: interlock", "Accept-Encoding: gzip, deflate", "")
        return cls(host, port, url.scheme == "https", "\r\n".join(lines))


class ConnectOptions(NamedTuple):
    """How connections are made: vetted addresses of a name, the TLS context (made on first use), and timeouts in seconds."""

    resolve: Callable[[str, int], Awaitable[Sequence[str]]]
    tls_context: Callable[[], SSLContext]
    connect_seconds: float
    idle_seconds: float


class ConnectionPool:
    """Sends at most `size` requests at once, `per_host` of them to one host (0: unlimited); others wait within their timeout."""

    def __init__(self, options: ConnectOptions, size: int, per_host: int) -> None:
        self._options = options
        self._request_slots = asyncio.Semaphore(size or UNBOUNDED)
        self._per_host = per_host or UNBOUNDED
        self._host_slots: WeakValueDictionary[tuple[str, int, bool], asyncio.Semaphore] = WeakValueDictionary()  # of live connections
        self._idle: dict[tuple[str, int, bool], list[_Http1Connection]] = {}
        self._idle_count = 0  # idle connections
        self._sweep_timer: asyncio.TimerHandle | None = None

    async def exchange(
        self, target: HttpTarget, method: str, fields: Mapping[str, str], body: bytes | None, *, seconds: float, limit: int
    ) -> HttpResponse:
        """Sends one request and returns the whole response. `seconds`: for all of it. `limit`: bytes of the response.

        Raises ResponseTooLarge, TimeoutError, ConnectionDropped, OSError, and ValueError for anything that is not valid HTTP.
        """
        head = _build_head(target, method, fields, body)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        host = self._host_slots.get(target[:3])
        if host is None:
            host = self._host_slots[target[:3]] = asyncio.Semaphore(self._per_host)
        if host.locked() or self._request_slots.locked():
            async with asyncio.timeout_at(deadline):
                await self._acquire_slots(host)
        else:
            await self._acquire_slots(host)
        connection: _Http1Connection | None = None
        try:
            connection = self._take_idle(target, loop.time()) or await self._open_connection(target, deadline)
            answer = await connection.exchange(head, body, deadline, limit)
            connection.host_slot = host
            self._keep_idle(target, connection, loop)
            connection = None
            return answer
        finally:
            self._request_slots.release()
            host.release()
            if connection is not None:
                connection.close()

    async def _acquire_slots(self, host: asyncio.Semaphore) -> None:
        """Waits for the host's slot first, so that requests to a busy host take no slots from others."""
        await host.acquire()
        try:
            await self._request_slots.acquire()
        except BaseException:
            host.release()
            raise

    async def close(self) -> None:
        """Closes every idle connection."""
        if self._sweep_timer is not None:
            self._sweep_timer.cancel()
        for waiting in self._idle.values():
            for connection in waiting:
                connection.close()
        self._idle.clear()
        self._idle_count = 0

    def close_idle(self, target: HttpTarget) -> None:
        """Closes the idle connections to a target: its next request gets a new one."""
        waiting = self._idle.pop(target[:3], [])
        self._idle_count -= len(waiting)
        for connection in waiting:
            connection.close()

    def _take_idle(self, target: HttpTarget, now: float) -> "_Http1Connection | None":
        """The idle connection that was used last and is still usable, or None."""
        waiting = self._idle.get(target[:3])
        while waiting:
            connection = waiting.pop()
            self._idle_count -= 1
            if connection.is_usable and connection.idle_since > now - self._options.idle_seconds:
                return connection
            connection.close()
        return None

    def _keep_idle(self, target: HttpTarget, connection: "_Http1Connection", loop: asyncio.AbstractEventLoop) -> None:
        if not connection.is_usable or self._idle_count >= IDLE_MAX:
            connection.close()
            return
        connection.idle_since = loop.time()
        self._idle.setdefault(target[:3], []).append(connection)
        self._idle_count += 1
        if self._sweep_timer is None:
            self._sweep_timer = loop.call_later(self._options.idle_seconds, self._close_unused, loop)

    def _close_unused(self, loop: asyncio.AbstractEventLoop) -> None:
        """Closes connections that were idle for too long."""
        cutoff = loop.time() - self._options.idle_seconds
        still_idle: dict[tuple[str, int, bool], list[_Http1Connection]] = {}
        for origin, waiting in self._idle.items():
            for connection in waiting:
                if connection.is_usable and connection.idle_since > cutoff:
                    still_idle.setdefault(origin, []).append(connection)
                else:
                    connection.close()
        self._idle = still_idle
        self._idle_count = sum(map(len, still_idle.values()))
        self._sweep_timer = loop.call_later(self._options.idle_seconds, self._close_unused, loop) if still_idle else None

    async def _open_connection(self, target: HttpTarget, deadline: float) -> "_Http1Connection":
        """A new connection to the first address that accepts one. Raises NotConnected."""
        try:
            return await self._connect_to_first(target, deadline)
        except OSError as error:
            raise NotConnected(error) from error

    async def _connect_to_first(self, target: HttpTarget, deadline: float) -> "_Http1Connection":
        loop = asyncio.get_running_loop()
        last = min(deadline, loop.time() + self._options.connect_seconds)
        async with asyncio.timeout_at(last):
            addresses = await self._options.resolve(target.host, target.port)
            tls = self._options.tls_context() if target.uses_tls else None
        failed: Exception = OSError("the name has no address")
        for tried, address in enumerate(addresses):
            share = (last - loop.time()) / (len(addresses) - tried)  # a silent address leaves time for the others
            try:
                async with asyncio.timeout(share):
                    made = await loop.create_connection(
                        partial(_Http1Connection, loop), address, target.port, ssl=tls, server_hostname=target.host if tls else None
                    )
                return made[1]
            except OSError as error:  # includes TimeoutError
                failed = error
        raise failed


class _Http1Connection(asyncio.Protocol):
    """One connection with at most one request. Data without a request closes it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.WriteTransport | None = None
        self._waiter: asyncio.Future[HttpResponse] | None = None
        self._limit = 0
        self._expects_no_body = False
        self.is_usable = True
        self.idle_since = 0.0
        self.host_slot: asyncio.Semaphore | None = None
        self._reset()

    def _reset(self) -> None:
        self._fields: dict[str, str] = {}
        self._head_size = 0
        self._unparsed_size = 0
        self._chunks: list[bytes] = []
        self._size = 0
        self._decompressor: zlib._Decompress | None = None
        self._reading_body = False

    async def exchange(self, head: bytes, body: bytes | None, deadline: float, limit: int) -> HttpResponse:
        """See ConnectionPool.exchange."""
        if self._transport is None or not self.is_usable:
            raise ConnectionDropped("the connection is closed")
        self._reset()
        self._limit = limit
        self._expects_no_body = head.startswith(b"HEAD ")
        waiter: asyncio.Future[HttpResponse] = self._loop.create_future()
        self._waiter = waiter
        late = self._loop.call_at(deadline, self._fail, TimeoutError())
        try:
            self._transport.write(head + body if body else head)
            return await waiter
        finally:
            late.cancel()
            self._waiter = None

    def close(self) -> None:
        self.is_usable = False
        if self._transport is not None:
            self._transport.abort()

    def _fail(self, error: Exception) -> None:
        self.is_usable = False
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(error)
        if self._transport is not None:
            self._transport.abort()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # a stream's transport is always writable

    def data_received(self, data: bytes) -> None:
        if self._waiter is None or self._waiter.done():
            self._fail(ValueError("a response without a request"))
            return
        self._unparsed_size += len(data)
        try:
            self._parser.feed_data(data)
            if self._unparsed_size > UNPARSED_MAX:
                self._fail(ResponseTooLarge(f"more than {HEAD_MAX} bytes of headers"))
        except (httptools.HttpParserError, httptools.HttpParserUpgrade, UnicodeDecodeError, zlib.error) as error:
            self._fail(_callback_error(error))

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_usable = False
        waiter = self._waiter
        if waiter is None or waiter.done():
            return
        endless = self._reading_body and not self._fields.keys() & {"content-length", "transfer-encoding"}
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
        if self._head_size > HEAD_MAX:
            raise ResponseTooLarge(f"more than {HEAD_MAX} bytes of headers")
        key, text = name.decode("ascii").lower(), value.decode("latin-1")
        known = self._fields.get(key)
        self._fields[key] = text if known is None else f"{known}, {text}"

    def on_headers_complete(self) -> None:
        if self._parser.get_status_code() < 200:
            return
        self._reading_body = True
        self._unparsed_size = 0
        if self._expects_no_body:  # whatever the headers say; the parser can't know, so the connection can't be used again
            self.is_usable = False
            if self._waiter is not None and not self._waiter.done():
                self._waiter.set_result(self._build_response())
            return
        packing = self._fields.get("content-encoding", "identity").lower()
        if packing in _CONTENT_ENCODINGS:
            self._decompressor = zlib.decompressobj(zlib.MAX_WBITS | 32)
        elif packing not in ("identity", ""):
            raise ValueError("the response has an encoding that was not requested")

    def on_body(self, body: bytes) -> None:
        self._unparsed_size = 0
        if self._decompressor is not None:
            body = self._decompressor.decompress(body, self._limit - self._size + 1)
        self._size += len(body)
        if self._size > self._limit:
            raise ResponseTooLarge(f"more than {self._limit} bytes")
        self._chunks.append(body)

    def on_message_complete(self) -> None:
        if not self._reading_body:  # an informational response such as 100 Continue
            if self._parser.get_status_code() == 101:
                raise ValueError("the server changes the protocol")
            self._reset()
            return
        self.is_usable = self.is_usable and self._parser.should_keep_alive()
        if self._decompressor is not None and not self._decompressor.eof and self._size:
            raise ValueError("the compressed response was cut off")
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(self._build_response())

    def _build_response(self) -> HttpResponse:
        chunks = self._chunks
        return HttpResponse(self._parser.get_status_code(), self._fields, chunks[0] if len(chunks) == 1 else b"".join(chunks))


def _build_head(target: HttpTarget, method: str, fields: Mapping[str, str], body: bytes | None) -> bytes:
    """The head of a request as bytes. Raises ValueError for a field that would break out of its line or is not Latin-1."""
    lines = [f"{name}: {value}" for name, value in fields.items()]
    text = "\r\n".join(lines)
    breaks = max(len(lines) - 1, 0)
    if text.count("\n") != breaks or text.count("\r") != breaks or "\0" in text:
        raise ValueError("a header has a character that it can't have")
    size = f"Content-Length: {len(body)}\r\n" if body else ("" if method in _METHODS_WITHOUT_BODY else "Content-Length: 0\r\n")
    end = "\r\n\r\n" if lines else "\r\n"
    return f"{method}{target.head_start}{size}{text}{end}".encode("latin-1")


def _callback_error(error: Exception) -> Exception:
    """The error that a callback raised, which the parser wraps."""
    inner = error.__context__
    return inner if isinstance(inner, (ResponseTooLarge, ValueError)) else ValueError(f"{type(error).__name__}: {error}"[:200])
