"""HTTP/1.1 for whole answers: kept connections to vetted addresses, and no object per request that a general client would make."""

import asyncio
import zlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from ssl import SSLContext
from typing import NamedTuple
from weakref import WeakValueDictionary

import httptools
from yarl import URL

HEAD_MAX = 64 << 10  # bytes of an answer's headers
UNFINISHED_MAX = HEAD_MAX + (256 << 10)  # bytes that end no header and hold no body; what arrives at once is at most the latter
UNBOUNDED = 1 << 30
IDLE_MAX = 200  # connections that are kept for later
_PACKINGS = frozenset({"gzip", "x-gzip", "deflate"})
_BODILESS = frozenset({"GET", "HEAD", "DELETE"})


class Fetched(NamedTuple):
    """A whole answer. Names of `headers` are in lower case; values of one that comes twice are joined by commas."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class TooLarge(Exception):
    """The answer has more bytes than allowed, of headers or (unpacked) of body."""


class NotConnected(Exception):
    """There is no connection, so nothing was sent. `error` says why not."""

    def __init__(self, error: OSError) -> None:
        super().__init__(str(error))
        self.error = error


class Dropped(ConnectionError):
    """The connection ended without an answer, which is how a kept connection looks that the server closed."""


class Target(NamedTuple):
    """A URL ready to be asked: whom to connect to, and the lines that every request to it begins with, after the method."""

    host: str
    port: int
    secure: bool
    start: str

    @classmethod
    def of(cls, url: URL) -> "Target":
        """Of a vetted http(s) URL."""
        host, port = url.raw_host or "", url.port or 0
        shown = f"[{host}]" if ":" in host else host
        if not url.is_default_port():
            shown = f"{shown}:{port}"
        lines = (f" {url.raw_path_qs} HTTP/1.1", f"Host: {shown}", "User-Agent: interlock", "Accept-Encoding: gzip, deflate", "")
        return cls(host, port, url.scheme == "https", "\r\n".join(lines))


class Ways(NamedTuple):
    """How connections are made: the vetted addresses of a name, the TLS context (made when first needed), and their bounds in seconds."""

    addresses: Callable[[str, int], Awaitable[Sequence[str]]]
    tls: Callable[[], SSLContext]
    connect: float
    idle: float


class Pool:
    """At most `size` requests at once, `per_host` of them to one host (0: no limit); the others wait their turn, within their time."""

    def __init__(self, ways: Ways, size: int, per_host: int) -> None:
        self._ways = ways
        self._turns = asyncio.Semaphore(size or UNBOUNDED)
        self._per_host = per_host or UNBOUNDED
        self._hosts: WeakValueDictionary[tuple[str, int, bool], asyncio.Semaphore] = WeakValueDictionary()  # of the connections that live
        self._idle: dict[tuple[str, int, bool], list[_Connection]] = {}
        self._waiting = 0  # idle connections
        self._sweeping: asyncio.TimerHandle | None = None

    async def exchange(
        self, target: Target, method: str, fields: Mapping[str, str], body: bytes | None, bounds: tuple[float, int]
    ) -> Fetched:
        """Sends one request and reads the whole answer. `bounds`: seconds over all of it, bytes of the answer.

        Raises TooLarge, TimeoutError, Dropped, OSError, and ValueError for what is not HTTP, on either side.
        """
        head = _head(target, method, fields, body)
        seconds, limit = bounds
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        host = self._hosts.get(target[:3])
        if host is None:
            host = self._hosts[target[:3]] = asyncio.Semaphore(self._per_host)
        if host.locked() or self._turns.locked():
            async with asyncio.timeout_at(deadline):
                await self._turn(host)
        else:
            await self._turn(host)
        connection: _Connection | None = None
        try:
            connection = self._take(target, loop.time()) or await self._connected(target, deadline)
            answer = await connection.exchange(head, body, deadline, limit)
            connection.host = host
            self._keep(target, connection, loop)
            connection = None
            return answer
        finally:
            self._turns.release()
            host.release()
            if connection is not None:
                connection.close()

    async def _turn(self, host: asyncio.Semaphore) -> None:
        """Waits for the host's turn first, so that who waits for a busy host takes no place from others."""
        await host.acquire()
        try:
            await self._turns.acquire()
        except BaseException:
            host.release()
            raise

    async def close(self) -> None:
        """Ends every connection that waits for a request."""
        if self._sweeping is not None:
            self._sweeping.cancel()
        for waiting in self._idle.values():
            for connection in waiting:
                connection.close()
        self._idle.clear()
        self._waiting = 0

    def let_go(self, target: Target) -> None:
        """Closes what is kept for later: the next request there has a connection that no server can have closed meanwhile."""
        waiting = self._idle.pop(target[:3], [])
        self._waiting -= len(waiting)
        for connection in waiting:
            connection.close()

    def _take(self, target: Target, now: float) -> "_Connection | None":
        """A kept connection that lives, the last used first."""
        waiting = self._idle.get(target[:3])
        while waiting:
            connection = waiting.pop()
            self._waiting -= 1
            if connection.usable and connection.idle_since > now - self._ways.idle:
                return connection
            connection.close()
        return None

    def _keep(self, target: Target, connection: "_Connection", loop: asyncio.AbstractEventLoop) -> None:
        if not connection.usable or self._waiting >= IDLE_MAX:
            connection.close()
            return
        connection.idle_since = loop.time()
        self._idle.setdefault(target[:3], []).append(connection)
        self._waiting += 1
        if self._sweeping is None:
            self._sweeping = loop.call_later(self._ways.idle, self._sweep, loop)

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        """Closes what was not used again."""
        before = loop.time() - self._ways.idle
        kept: dict[tuple[str, int, bool], list[_Connection]] = {}
        for origin, waiting in self._idle.items():
            for connection in waiting:
                if connection.usable and connection.idle_since > before:
                    kept.setdefault(origin, []).append(connection)
                else:
                    connection.close()
        self._idle = kept
        self._waiting = sum(map(len, kept.values()))
        self._sweeping = loop.call_later(self._ways.idle, self._sweep, loop) if kept else None

    async def _connected(self, target: Target, deadline: float) -> "_Connection":
        """A new connection to the first address that answers. Raises NotConnected."""
        try:
            return await self._connect(target, deadline)
        except OSError as error:
            raise NotConnected(error) from error

    async def _connect(self, target: Target, deadline: float) -> "_Connection":
        loop = asyncio.get_running_loop()
        last = min(deadline, loop.time() + self._ways.connect)
        async with asyncio.timeout_at(last):
            addresses = await self._ways.addresses(target.host, target.port)
            tls = self._ways.tls() if target.secure else None
        failed: Exception = OSError("the name has no address")
        for tried, address in enumerate(addresses):
            share = (last - loop.time()) / (len(addresses) - tried)  # so that one that is silent leaves time for the others
            try:
                async with asyncio.timeout(share):
                    made = await loop.create_connection(
                        partial(_Connection, loop), address, target.port, ssl=tls, server_hostname=target.host if tls else None
                    )
                return made[1]
            except OSError as error:  # TimeoutError too
                failed = error
        raise failed


class _Connection(asyncio.Protocol):
    """One connection, with one request under way at most. Whatever comes when none is, ends it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.WriteTransport | None = None
        self._waiter: asyncio.Future[Fetched] | None = None
        self._limit = 0
        self._bodiless = False
        self.usable = True
        self.idle_since = 0.0
        self.host: asyncio.Semaphore | None = None
        self._begin()

    def _begin(self) -> None:
        self._fields: dict[str, str] = {}
        self._head_size = 0
        self._unfinished = 0
        self._chunks: list[bytes] = []
        self._size = 0
        self._unpacker: zlib._Decompress | None = None
        self._reading_body = False

    async def exchange(self, head: bytes, body: bytes | None, deadline: float, limit: int) -> Fetched:
        """See Pool.exchange."""
        if self._transport is None or not self.usable:
            raise Dropped("the connection is closed")
        self._begin()
        self._limit = limit
        self._bodiless = head.startswith(b"HEAD ")
        waiter: asyncio.Future[Fetched] = self._loop.create_future()
        self._waiter = waiter
        late = self._loop.call_at(deadline, self._fail, TimeoutError())
        try:
            self._transport.write(head + body if body else head)
            return await waiter
        finally:
            late.cancel()
            self._waiter = None

    def close(self) -> None:
        self.usable = False
        if self._transport is not None:
            self._transport.abort()

    def _fail(self, error: Exception) -> None:
        self.usable = False
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(error)
        if self._transport is not None:
            self._transport.abort()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # a stream's transport can always be written to

    def data_received(self, data: bytes) -> None:
        if self._waiter is None or self._waiter.done():
            self._fail(ValueError("an answer that nobody asked for"))
            return
        self._unfinished += len(data)
        try:
            self._parser.feed_data(data)
            if self._unfinished > UNFINISHED_MAX:
                self._fail(TooLarge(f"more than {HEAD_MAX} bytes of headers"))
        except (httptools.HttpParserError, httptools.HttpParserUpgrade, UnicodeDecodeError, zlib.error) as error:
            self._fail(_cause(error))

    def connection_lost(self, exc: Exception | None) -> None:
        self.usable = False
        waiter = self._waiter
        if waiter is None or waiter.done():
            return
        endless = self._reading_body and not self._fields.keys() & {"content-length", "transfer-encoding"}
        if endless and exc is None:
            waiter.set_result(self._answer())
        elif self._reading_body or self._fields:
            waiter.set_exception(ValueError("the answer broke off"))
        else:
            waiter.set_exception(Dropped("the connection ended without an answer"))

    # httptools.HttpResponseParser

    def on_message_begin(self) -> None:
        if self._waiter is None or self._waiter.done():
            raise ValueError("an answer that nobody asked for")

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head_size += len(name) + len(value)
        if self._head_size > HEAD_MAX:
            raise TooLarge(f"more than {HEAD_MAX} bytes of headers")
        key, text = name.decode("ascii").lower(), value.decode("latin-1")
        known = self._fields.get(key)
        self._fields[key] = text if known is None else f"{known}, {text}"

    def on_headers_complete(self) -> None:
        if self._parser.get_status_code() < 200:
            return
        self._reading_body = True
        self._unfinished = 0
        if self._bodiless:  # whatever its headers say; the parser can't know, so the connection is of no more use
            self.usable = False
            if self._waiter is not None and not self._waiter.done():
                self._waiter.set_result(self._answer())
            return
        packing = self._fields.get("content-encoding", "identity").lower()
        if packing in _PACKINGS:
            self._unpacker = zlib.decompressobj(zlib.MAX_WBITS | 32)
        elif packing not in ("identity", ""):
            raise ValueError("the answer is packed in a way that was not asked for")

    def on_body(self, body: bytes) -> None:
        self._unfinished = 0
        if self._unpacker is not None:
            body = self._unpacker.decompress(body, self._limit - self._size + 1)
        self._size += len(body)
        if self._size > self._limit:
            raise TooLarge(f"more than {self._limit} bytes")
        self._chunks.append(body)

    def on_message_complete(self) -> None:
        if not self._reading_body:  # 100 Continue and the like: the answer comes yet
            if self._parser.get_status_code() == 101:
                raise ValueError("the server changes the protocol")
            self._begin()
            return
        self.usable = self.usable and self._parser.should_keep_alive()
        if self._unpacker is not None and not self._unpacker.eof and self._size:
            raise ValueError("the packed answer broke off")
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(self._answer())

    def _answer(self) -> Fetched:
        chunks = self._chunks
        return Fetched(self._parser.get_status_code(), self._fields, chunks[0] if len(chunks) == 1 else b"".join(chunks))


def _head(target: Target, method: str, fields: Mapping[str, str], body: bytes | None) -> bytes:
    """Raises ValueError for a field that would break out of its line, or has a character that no header can have."""
    lines = [f"{name}: {value}" for name, value in fields.items()]
    text = "\r\n".join(lines)
    breaks = max(len(lines) - 1, 0)
    if text.count("\n") != breaks or text.count("\r") != breaks or "\0" in text:
        raise ValueError("a header has a character that it can't have")
    size = f"Content-Length: {len(body)}\r\n" if body else ("" if method in _BODILESS else "Content-Length: 0\r\n")
    end = "\r\n\r\n" if lines else "\r\n"
    return f"{method}{target.start}{size}{text}{end}".encode("latin-1")


def _cause(error: Exception) -> Exception:
    """What a callback raised, which the parser wraps."""
    inner = error.__context__
    return inner if isinstance(inner, (TooLarge, ValueError)) else ValueError(f"{type(error).__name__}: {error}"[:200])
