"""Kept connections of HTTP/1.1 to vetted addresses."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import lru_cache, partial
from ssl import SSLContext
from typing import Final, NamedTuple

from adapters.upstream.http1.connection import Http1Connection, HttpOrigin, HttpTarget
from adapters.upstream.http1.responses import ArrivingBody, HttpResponse, NotConnected, OpenedResponse

UNBOUNDED = 1 << 30
IDLE_MAX = 200  # idle connections
NAMES_MAX = 256  # sets of names of headers that are remembered
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

    def try_acquire_with(self, other: "RequestSlots") -> bool:
        """Takes a slot here and one of `other`, or none of them."""
        if self._value <= 0 or self._waiters or not other.try_acquire():
            return False
        self._value -= 1
        return True

    def release(self) -> None:
        """Gives a slot back."""
        if self._waiters:
            super().release()
        else:
            self._value += 1

    def are_unused(self, size: int) -> bool:
        """Whether all `size` slots are free."""
        return self._value == size and not self._waiters


class _OriginState:
    """What the requests to one host and port share: their slots, and the connections that are idle."""

    __slots__ = ("idle", "slots")

    def __init__(self, size: int) -> None:
        self.slots = RequestSlots(size)
        self.idle: list[Http1Connection] = []


class ConnectionPool:
    """Sends at most `size` requests at once, `per_host` of them to one host (0: unlimited); others wait within their timeout."""

    def __init__(self, options: ConnectOptions, size: int, per_host: int) -> None:
        self._options = options
        self.bounds = (size, per_host)
        self._request_slots = RequestSlots(size or UNBOUNDED)
        self._per_host = per_host or UNBOUNDED
        self._origins: dict[HttpOrigin, _OriginState] = {}
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
        state = self._origins.get(target.origin) or self._add_origin(target.origin, loop)
        if not state.slots.try_acquire_with(self._request_slots):
            await self._wait_for_slots(state, deadline)
        connection: Http1Connection | None = None
        try:
            connection = self._take_idle(state, loop) or await self._open_connection(target.origin, deadline)
            answer: HttpResponse = await connection.send(head, body, deadline, limit)
            self._keep_idle(state, connection, loop)
            connection = None
            return answer
        finally:
            self._request_slots.release()
            state.slots.release()
            if connection is not None:
                connection.close()

    async def open(
        self, target: HttpTarget, method: str, fields: Mapping[str, str], body: bytes | None, *, seconds: float
    ) -> OpenedResponse:
        """Sends one request and returns the response as soon as its head has come. `seconds`: for all of it. Raises as `exchange`."""
        opened = await self.exchange_or_open(target, method, fields, body, "", seconds=seconds, limit=0)
        assert isinstance(opened, OpenedResponse)
        return opened

    async def exchange_or_open(
        self, target: HttpTarget, method: str, fields: Mapping[str, str], body: bytes | None, opens: str, *, seconds: float, limit: int
    ) -> HttpResponse | OpenedResponse:
        """Sends one request and returns the whole response, or opens it where its media type begins with `opens`.

        `seconds`: for all of a response, and until the head of one that is opened by its media type. An empty `opens` opens every response,
        and `seconds` is then for all of it. Raises as `exchange`.
        """
        head = _build_head(target, method, fields, body)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        state = self._origins.get(target.origin) or self._add_origin(target.origin, loop)
        if not state.slots.try_acquire_with(self._request_slots):
            await self._wait_for_slots(state, deadline)
        connection: Http1Connection | None = None
        arriving: ArrivingBody | None = None

        def close(waits_for_end: bool) -> None:
            self._request_slots.release()
            state.slots.release()
            if connection is None:
                return
            connection.stop_timer()
            if arriving is not None and arriving.is_complete:
                arriving.drop()  # what was not read may have paused the connection
                self._keep_idle(state, connection, loop)
            elif arriving is not None and waits_for_end:
                late = loop.call_later(END_SECONDS, connection.close)
                arriving.discard().add_done_callback(partial(self._keep_complete, target.origin, connection, arriving, late))
            else:
                connection.close()

        try:
            connection = self._take_idle(state, loop) or await self._open_connection(target.origin, deadline)
            answer = await connection.send(head, body, deadline, limit, opens=opens)
        except BaseException:
            close(False)
            raise
        if isinstance(answer, HttpResponse):
            self._request_slots.release()
            state.slots.release()
            self._keep_idle(state, connection, loop)
            return answer
        if opens:
            connection.stop_timer()
        status, headers, arriving = answer
        return OpenedResponse(status, headers, arriving, close)

    def _add_origin(self, origin: HttpOrigin, loop: asyncio.AbstractEventLoop) -> _OriginState:
        state = self._origins[origin] = _OriginState(self._per_host)
        if self._sweep_timer is None:
            self._sweep_timer = loop.call_later(self._options.idle_seconds, self._sweep, loop)
        return state

    async def _wait_for_slots(self, state: _OriginState, deadline: float) -> None:
        """Waits for a slot of the host and then for one of the pool, so that requests to a busy host take no slots from others.

        Raises TimeoutError.
        """
        async with asyncio.timeout_at(deadline):
            await state.slots.acquire()
            try:
                await self._request_slots.acquire()
            except BaseException:
                state.slots.release()
                raise

    async def close(self) -> None:
        """Closes every idle connection."""
        if self._sweep_timer is not None:
            self._sweep_timer.cancel()
        for state in self._origins.values():
            self._close_all(state)

    def close_idle(self, target: HttpTarget) -> None:
        """Closes the idle connections to a target: its next request gets a new one."""
        if (state := self._origins.get(target.origin)) is not None:
            self._close_all(state)

    def _close_all(self, state: _OriginState) -> None:
        idle, state.idle = state.idle, []
        self._idle_count -= len(idle)
        for connection in idle:
            connection.close()

    def _take_idle(self, state: _OriginState, loop: asyncio.AbstractEventLoop) -> Http1Connection | None:
        """The idle connection that was used last and is still usable, or None."""
        while state.idle:
            connection = state.idle.pop()
            self._idle_count -= 1
            if connection.is_usable and connection.idle_since > loop.time() - self._options.idle_seconds:
                return connection
            connection.close()
        return None

    def _keep_idle(self, state: _OriginState, connection: Http1Connection, loop: asyncio.AbstractEventLoop) -> None:
        if not connection.is_usable or self._idle_count >= IDLE_MAX:
            connection.close()
            return
        connection.idle_since = loop.time()
        state.idle.append(connection)
        self._idle_count += 1

    def _keep_complete(
        self, origin: HttpOrigin, connection: Http1Connection, body: ArrivingBody, late: asyncio.TimerHandle, _ended: asyncio.Future[None]
    ) -> None:
        """Keeps the connection of a body that has ended well."""
        late.cancel()
        if body.is_complete:
            loop = asyncio.get_running_loop()
            self._keep_idle(self._origins.get(origin) or self._add_origin(origin, loop), connection, loop)
        else:
            connection.close()

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        """Closes connections that were idle for too long, and forgets origins without connections and requests."""
        cutoff = loop.time() - self._options.idle_seconds
        for origin, state in list(self._origins.items()):
            idle, state.idle = state.idle, []
            for connection in idle:
                if connection.is_usable and connection.idle_since > cutoff:
                    state.idle.append(connection)
                else:
                    connection.close()
            if not state.idle and state.slots.are_unused(self._per_host):
                del self._origins[origin]
        self._idle_count = sum(len(state.idle) for state in self._origins.values())
        self._sweep_timer = loop.call_later(self._options.idle_seconds, self._sweep, loop) if self._origins else None

    async def _open_connection(self, origin: HttpOrigin, deadline: float) -> Http1Connection:
        """A new connection to the first address that accepts one. Raises NotConnected."""
        try:
            return await self._connect_to_first(origin, deadline)
        except OSError as error:
            raise NotConnected(error) from error

    async def _connect_to_first(self, origin: HttpOrigin, deadline: float) -> Http1Connection:
        loop = asyncio.get_running_loop()
        last = min(deadline, loop.time() + self._options.connect_seconds)
        async with asyncio.timeout_at(last):
            addresses = await self._options.resolve(origin.host, origin.port)
            tls = self._options.tls_context() if origin.uses_tls else None
        failed: Exception = OSError("the name has no address")
        for tried, address in enumerate(addresses):
            share = (last - loop.time()) / (len(addresses) - tried)  # a silent address leaves time for the others
            try:
                async with asyncio.timeout(share):
                    made = await loop.create_connection(
                        partial(Http1Connection, loop), address, origin.port, ssl=tls, server_hostname=origin.host if tls else None
                    )
                return made[1]
            except OSError as error:  # includes TimeoutError
                failed = error
        raise failed


def _build_head(target: HttpTarget, method: str, fields: Mapping[str, str], body: bytes | None) -> bytes:
    """The head of a request as bytes. Raises ValueError for a field that would break out of its line or is not Latin-1."""
    start = target.head_start
    if _names_own_field(tuple(fields)):
        start, fields = _replace_own_fields(start, fields)
    lines = "".join([f"{name}: {value}\r\n" for name, value in fields.items()])
    if lines.count("\n") != len(fields) or lines.count("\r") != len(fields) or "\0" in lines:
        raise ValueError("a header has a character that it can't have")
    size = f"Content-Length: {len(body)}\r\n" if body else ("" if method in _METHODS_WITHOUT_BODY else "Content-Length: 0\r\n")
    return f"{method}{start}{size}{lines}\r\n".encode("latin-1")


@lru_cache(maxsize=NAMES_MAX)
def _names_own_field(names: tuple[str, ...]) -> bool:
    """Whether one of the names of a request's headers is of a field that each request has. Requests have few sets of names."""
    return not _OWN_FIELDS.isdisjoint(map(str.lower, names))


def _replace_own_fields(start: str, fields: Mapping[str, str]) -> tuple[str, Mapping[str, str]]:
    """Returns the constant part without the fields that a request has itself, such as a configured User-Agent, and the request's fields.

    No field is sent twice (RFC 9110 5.3), and the framing of the body is never that of a setting.
    """
    given = {name.lower() for name in fields}
    first, *lines = start.split("\r\n")
    kept = [line for line in lines if line.partition(":")[0].lower() not in given]
    return "\r\n".join((first, *kept)), {name: value for name, value in fields.items() if name.lower() not in _FRAMING_FIELDS}
