"""The transport of 2024-11-05, HTTP+SSE: a GET stream on which all answers arrive, and the address to POST to that comes first on it."""

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final
from urllib.parse import urljoin, urlsplit
from weakref import WeakValueDictionary

import structlog

from adapters.contract import Call, Challenged, Failure, NotSent, Unreachable, UpstreamFault
from adapters.mcp_client.duplex.channel import SEND_SECONDS, Duplex
from adapters.mcp_client.duplex.listening import listen
from adapters.mcp_client.exchange.http import CUT, LATE, Exchange, McpHttp, is_stream
from adapters.mcp_client.legacy.requests import session_key
from adapters.mcp_client.legacy.sessions import IDLE_SECONDS, SESSIONS_MAX, NotLegacy, SessionKey
from adapters.mcp_client.session_room import ANYBODY, retiring
from adapters.mcp_client.wire.messages import ACCEPT, McpRequest
from adapters.mcp_client.wire.peer import Listener, Listening
from adapters.upstream.sse import SseReader
from adapters.upstream.targets import EgressRefused

log = structlog.get_logger()

EVENT_MAX: Final = 8 << 20  # bytes


class SseLine:
    """One connection: `duplex` once it is open, until `close` or its end."""

    def __init__(self, http: McpHttp, key: SessionKey, credentials: Mapping[str, str]) -> None:
        self._http = http
        self._key = key
        self._credentials = credentials
        self._opened: asyncio.Future[Duplex] = asyncio.get_running_loop().create_future()
        self._opened.add_done_callback(lambda opened: opened.cancelled() or opened.exception())  # nobody may be waiting
        self._reading: asyncio.Task[None] | None = None
        self._endpoint = ""
        self.used = 0.0
        self.duplex: Duplex | None = None

    async def open(self, seconds: float) -> Duplex:
        """Raises UpstreamFault, and NotLegacy where the server does not speak this transport."""
        self._reading = asyncio.create_task(self._read())
        try:
            async with asyncio.timeout(max(seconds, 0.001)):
                duplex = await self._opened
                await duplex.open(self._key.capabilities, seconds, may_be_modern=False)
        except TimeoutError as error:
            self.close()
            raise Unreachable(LATE, "no endpoint", Failure.LATE) from error
        except BaseException:
            self.close()
            raise
        self.duplex = duplex
        return duplex

    def close(self) -> None:
        if self._reading is not None:
            self._reading.cancel()

    async def _read(self) -> None:
        """The root of the connection's task."""
        fault: UpstreamFault = Unreachable(CUT, "the stream ended", Failure.CUT)
        duplex = Duplex(self._send, owned=True)
        try:
            headers = {**self._credentials, "accept": "text/event-stream"}
            async with self._http.lasting("GET", self._key.url, headers, b"") as answer:
                if answer.status in (401, 403):
                    raise Challenged(answer.status, answer.headers.get("www-authenticate", ""))
                if answer.status != 200 or not is_stream(answer.headers):
                    raise NotLegacy(f"status {answer.status} to a GET")
                reader = SseReader(EVENT_MAX)
                async for chunk in answer:
                    for event in reader.feed(chunk):
                        await self._take(duplex, event.event, event.data)
        except (NotLegacy, EgressRefused) as error:
            if not self._opened.done():
                self._opened.set_exception(error)
        except UpstreamFault as error:
            fault = error
        finally:
            duplex.end(fault)
            if not self._opened.done():
                self._opened.set_exception(fault)

    async def _take(self, duplex: Duplex, kind: str, data: bytes) -> None:
        if self._endpoint:
            duplex.receive(data)
        elif kind == "endpoint":
            self._endpoint = same_origin(self._key.url, data.decode("utf-8", "replace"))
            if not self._opened.done():  # whoever waited may have given up meanwhile
                self._opened.set_result(duplex)
        elif data:
            raise NotLegacy("something came before the endpoint")

    async def _send(self, body: bytes) -> None:
        status = await self._http.tell(self._endpoint, {**self._credentials, **ACCEPT}, body, SEND_SECONDS)
        if not 200 <= status < 300:
            raise UpstreamFault("The server does not take the message", f"status {status}")


def same_origin(url: str, endpoint: str) -> str:
    """Where to POST to, which is at the same server: the credentials go there too. Raises UpstreamFault."""
    try:
        found = urljoin(url, endpoint.strip())
        same = urlsplit(found)[:2] == urlsplit(url)[:2] and "@" not in urlsplit(found).netloc
    except ValueError as error:  # brackets that enclose no address
        raise UpstreamFault("The server's endpoint is no address", str(error)[:200]) from None
    if not same:
        raise UpstreamFault("The server's endpoint is at another address", "the origin differs")
    return found


class SseSessions:
    """At most `size` connections, one for each owner, client session and set of capabilities. `clock` counts seconds."""

    def __init__(self, http: McpHttp, clock: Callable[[], float], size: int = SESSIONS_MAX, idle: float = IDLE_SECONDS) -> None:
        self._http = http
        self._clock = clock
        self._size = size
        self._idle = idle
        self._lines: dict[SessionKey, SseLine] = {}  # the least recently used first
        self._locks: WeakValueDictionary[SessionKey, asyncio.Lock] = WeakValueDictionary()  # of connections that are being opened
        self.hint: Callable[[str], None] | None = None

    async def once(self, call: Call, request: McpRequest, thought: float = 0.0) -> Exchange:
        """One request and its answer. Raises UpstreamFault and NotLegacy. `thought`: seconds that are not counted."""
        key = session_key(call, request.peer, request.session)
        duplex = await self._duplex(key, call)
        return await duplex.call(request, {}, call.deadline + thought - self._clock())

    async def listen(self, call: Call, wanted: Listening, listener: Listener, front: str) -> None:
        """As McpTools.listen; ends with UpstreamFault when the connection does."""
        duplex = await self._duplex(session_key(call, listener, front), call)
        await listen(duplex, wanted, listener, None if front else frozenset, call.deadline - self._clock())

    def had_by(self, owner: str, front: str) -> list[Duplex]:
        """The channels that a client's session has."""
        lines = [line for key, line in self._lines.items() if (key.owner, key.front) == (owner, front)]
        return [line.duplex for line in lines if line.duplex is not None]

    async def leave(self, owner: str, front: str) -> None:
        self._close([key for key in self._lines if (key.owner, key.front) == (owner, front)])

    async def sweep(self, everything: bool = False) -> None:
        before = self._clock() - self._idle
        self._close([key for key, line in self._lines.items() if everything or (not _busy(line) and line.used <= before)])

    async def _duplex(self, key: SessionKey, call: Call) -> Duplex:
        line = self._lines.get(key)
        if line is None or line.duplex is None or line.duplex.ended is not None:
            line = await self._opened(key, call)
        line.used = self._clock()
        assert line.duplex is not None
        return line.duplex

    async def _opened(self, key: SessionKey, call: Call) -> SseLine:
        """A new connection, unless somebody else opened one meanwhile."""
        lock = self._locks.get(key)
        if lock is None:
            lock = self._locks[key] = asyncio.Lock()
        try:
            async with asyncio.timeout(max(call.deadline - self._clock(), 0.001)), lock:
                line = self._lines.get(key)
                if line is None or line.duplex is None or line.duplex.ended is not None:
                    self._make_room(key)
                    line = SseLine(self._http, key, call.headers)
                    (await line.open(call.deadline - self._clock())).hint = partial(self.hint, key.server) if self.hint else None
                    self._lines[key] = line
        except TimeoutError as error:
            raise Unreachable(LATE, "waiting for a connection", Failure.LATE) from error
        return line

    def _make_room(self, key: SessionKey) -> None:
        self._lines.pop(key, None)
        whose = retiring([other.owner for other in self._lines], key.owner, self._size)
        if whose is not None:
            idle = next((other for other, line in self._lines.items() if not _busy(line) and whose in (ANYBODY, other.owner)), None)
            if idle is None:
                raise NotSent("Too many sessions with servers are busy", f"{self._size} sessions")
            self._close([idle])

    def _close(self, keys: list[SessionKey]) -> None:
        for key in keys:
            self._lines.pop(key).close()


def _busy(line: SseLine) -> bool:
    return line.duplex is not None and line.duplex.busy
