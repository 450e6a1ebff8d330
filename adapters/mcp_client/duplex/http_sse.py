"""The HTTP+SSE transport of 2024-11-05: a GET stream with all responses, whose first event names the URL to POST to."""

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final
from urllib.parse import urljoin, urlsplit
from weakref import WeakValueDictionary

from adapters.contract import Call, Challenged, Failure, NotSent, Unreachable, UpstreamFault
from adapters.mcp_client.duplex.channel import SEND_SECONDS, DuplexChannel
from adapters.mcp_client.duplex.listening import listen
from adapters.mcp_client.exchange.http import CUT_TEXT, LATE_TEXT, Exchange, McpHttp, is_stream
from adapters.mcp_client.legacy.requests import session_key
from adapters.mcp_client.legacy.sessions import IDLE_SECONDS, SESSIONS_MAX, NotLegacy, OnServerChanged, SessionKey, ignore_change
from adapters.mcp_client.session_room import ANY_OWNER, owner_to_evict
from adapters.mcp_client.wire.messages import ACCEPT, McpRequest
from adapters.mcp_client.wire.peer import ListenFilter, McpListener
from adapters.upstream.sse import SseReader
from adapters.upstream.targets import EgressRefused

EVENT_MAX: Final = 8 << 20  # bytes


class SseConnection:
    """One connection: `channel` is set once it is open, until `close` or its end."""

    def __init__(
        self, http: McpHttp, key: SessionKey, credentials: Mapping[str, str], on_list_changed: OnServerChanged = ignore_change
    ) -> None:
        self._http = http
        self._key = key
        self._credentials = credentials
        self._on_list_changed = on_list_changed
        self._channel_opened: asyncio.Future[DuplexChannel] = asyncio.get_running_loop().create_future()
        self._channel_opened.add_done_callback(lambda opened: opened.cancelled() or opened.exception())  # there may be no waiter
        self._reader_task: asyncio.Task[None] | None = None
        self._endpoint = ""
        self.last_used = 0.0
        self.channel: DuplexChannel | None = None

    async def open(self, seconds: float) -> DuplexChannel:
        """Opens the connection. Raises UpstreamFault, and NotLegacy where the server does not support this transport."""
        self._reader_task = asyncio.create_task(self._read())
        try:
            async with asyncio.timeout(max(seconds, 0.001)):
                duplex = await self._channel_opened
                await duplex.shake_hands(self._key.capabilities, seconds, discover_seconds=None)
        except TimeoutError as error:
            self.close()
            raise Unreachable(LATE_TEXT, "no endpoint", Failure.LATE) from error
        except BaseException:
            self.close()
            raise
        self.channel = duplex
        return duplex

    def close(self) -> None:
        if self._reader_task is not None:
            self._reader_task.cancel()

    async def _read(self) -> None:
        """Reads the stream; the root of the connection's task."""
        fault: UpstreamFault = Unreachable(CUT_TEXT, "the stream ended", Failure.CUT)
        duplex = DuplexChannel(self._send, has_one_client=True, on_list_changed=partial(self._on_list_changed, self._key.server))
        try:
            headers = {**self._credentials, "accept": "text/event-stream"}
            async with self._http.open_stream("GET", self._key.url, headers, b"") as answer:
                if answer.status in (401, 403):
                    raise Challenged(answer.status, answer.headers.get("www-authenticate", ""))
                if answer.status != 200 or not is_stream(answer.headers):
                    raise NotLegacy(f"status {answer.status} to a GET")
                reader = SseReader(EVENT_MAX)
                async for chunk in answer:
                    for event in reader.feed(chunk):
                        await self._receive_event(duplex, event.event, event.data)
        except (NotLegacy, EgressRefused) as error:
            if not self._channel_opened.done():
                self._channel_opened.set_exception(error)
        except UpstreamFault as error:
            fault = error
        finally:
            duplex.end(fault)
            if not self._channel_opened.done():
                self._channel_opened.set_exception(fault)

    async def _receive_event(self, channel: DuplexChannel, kind: str, data: bytes) -> None:
        if self._endpoint:
            channel.receive(data)
        elif kind == "endpoint":
            self._endpoint = resolve_endpoint(self._key.url, data.decode("utf-8", "replace"))
            if not self._channel_opened.done():  # the waiter may have given up
                self._channel_opened.set_result(channel)
        elif data:
            raise NotLegacy("an event arrived before the endpoint")

    async def _send(self, body: bytes) -> None:
        status = await self._http.notify(self._endpoint, {**self._credentials, **ACCEPT}, body, SEND_SECONDS)
        if not 200 <= status < 300:
            raise UpstreamFault("The server did not accept the message", f"status {status}")


def resolve_endpoint(url: str, endpoint: str) -> str:
    """The URL to POST to, which must be at the same origin, since it gets the credentials. Raises UpstreamFault."""
    try:
        found = urljoin(url, endpoint.strip())
        same = urlsplit(found)[:2] == urlsplit(url)[:2] and "@" not in urlsplit(found).netloc
    except ValueError as error:  # brackets without an IPv6 address
        raise UpstreamFault("The server's endpoint is not a valid URL", str(error)[:200]) from None
    if not same:
        raise UpstreamFault("The server's endpoint is at another origin", "the origin differs")
    return found


class SseSessions:
    """At most `size` connections, one for each owner, client session and set of capabilities. `clock` counts seconds."""

    def __init__(
        self,
        http: McpHttp,
        clock: Callable[[], float],
        size: int = SESSIONS_MAX,
        idle: float = IDLE_SECONDS,
        on_list_changed: OnServerChanged = ignore_change,
    ) -> None:
        self._http = http
        self._clock = clock
        self._size = size
        self._idle_seconds = idle
        self._on_list_changed = on_list_changed
        self._connections: dict[SessionKey, SseConnection] = {}  # least recently used first
        self._locks: WeakValueDictionary[SessionKey, asyncio.Lock] = WeakValueDictionary()  # of connections that are being opened

    async def send(self, call: Call, request: McpRequest, paused_seconds: float = 0.0) -> Exchange:
        """Sends one request and returns its response. Raises UpstreamFault and NotLegacy. `paused_seconds` extend the deadline."""
        key = session_key(call, request.peer, request.client_session)
        duplex = await self._channel_for(key, call)
        return await duplex.call(request, {}, call.deadline + paused_seconds - self._clock())

    async def listen(self, call: Call, wanted: ListenFilter, listener: McpListener, client_session: str) -> None:
        """Listens for changes, see McpTools.listen. Ends with UpstreamFault when the connection does."""
        duplex = await self._channel_for(session_key(call, listener, client_session), call)
        await listen(duplex, wanted, listener, None if client_session else frozenset, call.deadline - self._clock())

    def channels_of(self, owner: str, client_session: str) -> list[DuplexChannel]:
        """The channels of a client's session."""
        lines = [connection for key, connection in self._connections.items() if (key.owner, key.client_session) == (owner, client_session)]
        return [connection.channel for connection in lines if connection.channel is not None]

    async def close_client_session(self, owner: str, client_session: str) -> None:
        self._close([key for key in self._connections if (key.owner, key.client_session) == (owner, client_session)])

    async def sweep(self, everything: bool = False) -> None:
        idle_since = self._clock() - self._idle_seconds
        self._close(
            [
                key
                for key, connection in self._connections.items()
                if everything or (not _is_busy(connection) and connection.last_used <= idle_since)
            ]
        )

    async def _channel_for(self, key: SessionKey, call: Call) -> DuplexChannel:
        connection = self._connections.get(key)
        if connection is None or connection.channel is None or connection.channel.end_fault is not None:
            connection = await self._connect(key, call)
        connection.last_used = self._clock()
        assert connection.channel is not None
        return connection.channel

    async def _connect(self, key: SessionKey, call: Call) -> SseConnection:
        """Opens a connection, unless another task did so first."""
        lock = self._locks.get(key)
        if lock is None:
            lock = self._locks[key] = asyncio.Lock()
        try:
            async with asyncio.timeout(max(call.deadline - self._clock(), 0.001)), lock:
                connection = self._connections.get(key)
                if connection is None or connection.channel is None or connection.channel.end_fault is not None:
                    self._make_room(key)
                    connection = SseConnection(self._http, key, call.headers, self._on_list_changed)
                    await connection.open(call.deadline - self._clock())
                    self._connections[key] = connection
        except TimeoutError as error:
            raise Unreachable(LATE_TEXT, "waiting for a connection", Failure.LATE) from error
        return connection

    def _make_room(self, key: SessionKey) -> None:
        self._connections.pop(key, None)
        whose = owner_to_evict([other.owner for other in self._connections], key.owner, self._size)
        if whose is not None:
            idle = next(
                (
                    other
                    for other, connection in self._connections.items()
                    if not _is_busy(connection) and whose in (ANY_OWNER, other.owner)
                ),
                None,
            )
            if idle is None:
                raise NotSent("Too many sessions with servers are busy", f"{self._size} sessions")
            self._close([idle])

    def _close(self, keys: list[SessionKey]) -> None:
        for key in keys:
            self._connections.pop(key).close()


def _is_busy(connection: SseConnection) -> bool:
    return connection.channel is not None and connection.channel.is_busy
