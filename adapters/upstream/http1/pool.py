"""Kept connections of HTTP/1.1 to vetted addresses."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from ssl import SSLContext
from typing import Final, NamedTuple
from weakref import WeakValueDictionary

from adapters.upstream.http1.connection import Http1Connection, HttpTarget
from adapters.upstream.http1.responses import ArrivingBody, HttpResponse, NotConnected, OpenedResponse

UNBOUNDED = 1 << 30
IDLE_MAX = 200  # idle connections
_METHODS_WITHOUT_BODY = frozenset({"GET", "HEAD", "DELETE"})
_FRAMING_FIELDS: Final = frozenset({"content-length", "transfer-encoding"})
_OWN_FIELDS: Final = frozenset({"host", "user-agent", "accept-encoding", *_FRAMING_FIELDS})
END_SECONDS = 1.0  # in which a body that is not read any more may end


class ConnectOptions(NamedTuple):
    """How connections are made: vetted addresses of a name, the TLS context (made on first use), and timeouts in seconds."""

    resolve: Callable[[str, int], Awaitable[Sequence[str]]]
    tls_context: Callable[[], SSLContext]
    connect_seconds: float
    idle_seconds: float


class RequestSlots(asyncio.Semaphore):
    """A semaphore from which a free slot is taken without a coroutine."""

    def try_acquire(self) -> bool:
        """Takes a slot, unless none is free or others wait for one."""
        if self._value <= 0 or self._waiters:
            return False
        self._value -= 1
        return True


class ConnectionPool:
    """Sends at most `size` requests at once, `per_host` of them to one host (0: unlimited); others wait within their timeout."""

    def __init__(self, options: ConnectOptions, size: int, per_host: int) -> None:
        self._options = options
        self._request_slots = RequestSlots(size or UNBOUNDED)
        self._per_host = per_host or UNBOUNDED
        self._host_slots: WeakValueDictionary[tuple[str, int, bool], RequestSlots] = WeakValueDictionary()  # of live connections
        self._idle: dict[tuple[str, int, bool], list[Http1Connection]] = {}
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
        host = self._try_take_slots(target) or await self._wait_for_slots(target, deadline)
        connection: Http1Connection | None = None
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

    async def open(
        self, target: HttpTarget, method: str, fields: Mapping[str, str], body: bytes | None, *, seconds: float
    ) -> OpenedResponse:
        """Sends one request and returns the response as soon as its head has come. `seconds`: for all of it. Raises as `exchange`."""
        head = _build_head(target, method, fields, body)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        host = self._try_take_slots(target) or await self._wait_for_slots(target, deadline)
        connection: Http1Connection | None = None

        def close(waits_for_end: bool) -> None:
            self._request_slots.release()
            host.release()
            if connection is None:
                return
            connection.stop_timer()
            if arriving is not None and arriving.is_complete:
                arriving.discard()  # what was not read may have paused the connection
                self._keep_idle(target, connection, loop)
            elif arriving is not None and waits_for_end:
                late = loop.call_later(END_SECONDS, connection.close)
                arriving.discard().add_done_callback(partial(self._keep_complete, target, connection, arriving, late))
            else:
                connection.close()

        arriving: ArrivingBody | None = None
        try:
            connection = self._take_idle(target, loop.time()) or await self._open_connection(target, deadline)
            connection.host_slot = host
            status, headers, arriving = await connection.open(head, body, deadline)
        except BaseException:
            close(False)
            raise
        return OpenedResponse(status, headers, arriving, close)

    def _try_take_slots(self, target: HttpTarget) -> RequestSlots | None:
        """Takes a slot of the pool, and one of the host, which is returned; None where a request has to wait."""
        host = self._slots_of(target)
        if not host.try_acquire():
            return None
        if self._request_slots.try_acquire():
            return host
        host.release()
        return None

    def _slots_of(self, target: HttpTarget) -> RequestSlots:
        host = self._host_slots.get(target[:3])
        if host is None:
            host = self._host_slots[target[:3]] = RequestSlots(self._per_host)
        return host

    async def _wait_for_slots(self, target: HttpTarget, deadline: float) -> RequestSlots:
        """Waits for what `_try_take_slots` takes. Raises TimeoutError."""
        host = self._slots_of(target)
        async with asyncio.timeout_at(deadline):
            await self._acquire_slots(host)
        return host

    async def _acquire_slots(self, host: RequestSlots) -> None:
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

    def _take_idle(self, target: HttpTarget, now: float) -> "Http1Connection | None":
        """The idle connection that was used last and is still usable, or None."""
        waiting = self._idle.get(target[:3])
        while waiting:
            connection = waiting.pop()
            self._idle_count -= 1
            if connection.is_usable and connection.idle_since > now - self._options.idle_seconds:
                return connection
            connection.close()
        return None

    def _keep_idle(self, target: HttpTarget, connection: "Http1Connection", loop: asyncio.AbstractEventLoop) -> None:
        if not connection.is_usable or self._idle_count >= IDLE_MAX:
            connection.close()
            return
        connection.idle_since = loop.time()
        self._idle.setdefault(target[:3], []).append(connection)
        self._idle_count += 1
        if self._sweep_timer is None:
            self._sweep_timer = loop.call_later(self._options.idle_seconds, self._close_unused, loop)

    def _keep_complete(
        self, target: HttpTarget, connection: Http1Connection, body: ArrivingBody, late: asyncio.TimerHandle, _ended: asyncio.Future[None]
    ) -> None:
        """Keeps the connection of a body that has ended well."""
        late.cancel()
        if body.is_complete:
            self._keep_idle(target, connection, asyncio.get_running_loop())
        else:
            connection.close()

    def _close_unused(self, loop: asyncio.AbstractEventLoop) -> None:
        """Closes connections that were idle for too long."""
        cutoff = loop.time() - self._options.idle_seconds
        still_idle: dict[tuple[str, int, bool], list[Http1Connection]] = {}
        for origin, waiting in self._idle.items():
            for connection in waiting:
                if connection.is_usable and connection.idle_since > cutoff:
                    still_idle.setdefault(origin, []).append(connection)
                else:
                    connection.close()
        self._idle = still_idle
        self._idle_count = sum(map(len, still_idle.values()))
        self._sweep_timer = loop.call_later(self._options.idle_seconds, self._close_unused, loop) if still_idle else None

    async def _open_connection(self, target: HttpTarget, deadline: float) -> "Http1Connection":
        """A new connection to the first address that accepts one. Raises NotConnected."""
        try:
            return await self._connect_to_first(target, deadline)
        except OSError as error:
            raise NotConnected(error) from error

    async def _connect_to_first(self, target: HttpTarget, deadline: float) -> "Http1Connection":
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
                        partial(Http1Connection, loop), address, target.port, ssl=tls, server_hostname=target.host if tls else None
                    )
                return made[1]
            except OSError as error:  # includes TimeoutError
                failed = error
        raise failed


def _build_head(target: HttpTarget, method: str, fields: Mapping[str, str], body: bytes | None) -> bytes:
    """The head of a request as bytes. Raises ValueError for a field that would break out of its line or is not Latin-1."""
    start = target.head_start
    if not _OWN_FIELDS.isdisjoint(map(str.lower, fields)):
        start, fields = _replace_own_fields(start, fields)
    lines = [f"{name}: {value}" for name, value in fields.items()]
    text = "\r\n".join(lines)
    breaks = max(len(lines) - 1, 0)
    if text.count("\n") != breaks or text.count("\r") != breaks or "\0" in text:
        raise ValueError("a header has a character that it can't have")
    size = f"Content-Length: {len(body)}\r\n" if body else ("" if method in _METHODS_WITHOUT_BODY else "Content-Length: 0\r\n")
    end = "\r\n\r\n" if lines else "\r\n"
    return f"{method}{start}{size}{text}{end}".encode("latin-1")


def _replace_own_fields(start: str, fields: Mapping[str, str]) -> tuple[str, Mapping[str, str]]:
    """Returns the constant part without the fields that a request has itself, such as a configured User-Agent, and the request's fields.

    No field is sent twice (RFC 9110 5.3), and the framing of the body is never that of a setting.
    """
    given = {name.lower() for name in fields}
    first, *lines = start.split("\r\n")
    kept = [line for line in lines if line.partition(":")[0].lower() not in given]
    return "\r\n".join((first, *kept)), {name: value for name, value in fields.items() if name.lower() not in _FRAMING_FIELDS}
