"""HTTP/1.1 of one client's connection: parses requests, and runs the application for each, one after the other."""

import asyncio
import re
from abc import abstractmethod
from collections.abc import Iterable
from enum import Enum, auto
from functools import lru_cache
from typing import Any, Final
from urllib.parse import unquote

import httptools
from uvicorn.config import Config
from uvicorn.protocols.utils import get_local_addr, get_remote_addr
from uvicorn.server import ServerState

from gateway.ingress.http.asgi import App, Header, Scope
from gateway.server.sockets.client_limits import STATE, Connections
from gateway.server.sockets.client_transport import ClientTransport
from gateway.server.sockets.http_exchange import HttpExchange
from gateway.server.sockets.request_parser import RequestParser

UNREAD_MAX: Final = 64 << 10  # bytes of a body that wait for the application before reading pauses
_ASGI: Final = {"version": "3.0", "spec_version": "2.3"}
_ABSOLUTE: Final = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]*://([^/?#]*)")  # group 1: host and port, with user information if there is any


class Phase(Enum):
    """What a connection is doing, from the client's side."""

    OPENED = auto()  # no byte of a first request has arrived
    HEAD = auto()
    BODY = auto()
    ANSWER = auto()  # the request is complete, the gateway's answer is not
    IDLE = auto()


class ClientConnection(ClientTransport):
    """One client's connection. uvicorn constructs it, and calls `shutdown` when the listener has closed.

    AdmissionProtocol and HttpProtocol extend it: they decide whether a request starts, and limit what a client may use by the phase, its
    time and its bytes that are counted here. All are one object, since a process may have thousands of idle connections.
    """

    __slots__ = (
        *("_answering", "_app", "_app_state", "_awaits_continue", "_body_bytes", "_connections", "_exchange"),
        *("_field_bytes", "_headers", "_parser", "_phase", "_pipelined", "_read_at", "_read_count"),
        *("_server", "_server_state", "_shares_read", "_since", "_url", "client"),
    )

    def __init__(
        self, config: Config, server_state: ServerState, app_state: dict[str, Any], _loop: asyncio.AbstractEventLoop | None = None
    ) -> None:
        super().__init__(_loop or asyncio.get_event_loop())
        if not config.loaded:
            config.load()
        if STATE not in app_state:
            app_state[STATE] = Connections()
        self._app: App = config.loaded_app
        self._app_state = app_state
        self._server_state = server_state
        self._connections: Connections = app_state[STATE]
        self._parser: RequestParser | None = None  # from a request's first byte to its answer: it ignores what follows a closing one
        self.client: tuple[str, int] | None = None
        self._server: tuple[str, int | None] | None = None
        self._url = b""
        self._headers: list[Header] = []
        self._awaits_continue = False
        self._exchange: HttpExchange | None = None  # of the request that arrived last
        self._answering: HttpExchange | None = None  # of the request that has started, or may start: the others wait behind it
        self._pipelined: list[tuple[HttpExchange, App]] = []  # requests that wait until those before are answered
        self._phase = Phase.OPENED
        self._since = self._read_at = 0.0  # when the phase began, and when the last bytes came, by the event loop's clock
        self._field_bytes = 0  # bytes of the head, or between pieces of a body: trailers and chunk extensions
        self._shares_read = False  # the head began in a read with another request's end, so `_field_bytes` is too small
        self._body_bytes = 0
        self._read_count = 0  # requests whose heads ended in the read under way

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._server, self.client = _intern_address(get_local_addr(self.transport)), get_remote_addr(self.transport)
        self._server_state.connections.add(self)  # type: ignore[arg-type]  # uvicorn calls only `shutdown`
        self._enter(Phase.OPENED, self.loop.time())

    def connection_lost(self, exc: Exception | None) -> None:
        self._server_state.connections.discard(self)
        for exchange in filter(None, (self._answering, *(waiting for waiting, _ in self._pipelined))):
            exchange.disconnect()
        self._exchange = self._answering = None
        self._parser = None  # breaks a cycle of references
        self._pipelined = []
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """Closes the connection as soon as its request is answered."""
        if self._exchange is None or self._exchange.is_answered:
            self.transport.close()
        else:
            self._exchange.close_after_answer()

    @property
    def is_answering(self) -> bool:
        """Whether a request is not answered yet, or the answer not complete."""
        return self._exchange is not None and not self._exchange.is_answered

    def answer_start(self, status: int) -> bytes:
        return self._connections.answer_heads.start_of(status, self.loop)

    def end_exchange(self) -> None:
        """Starts the next request, or waits for one."""
        if self._pipelined:
            if not self.transport.is_closing():
                self.resume_reading()
                self._begin_next(*self._pipelined.pop(0))
            return
        self._answering = None
        self._connections.wait(self)
        if self._phase is Phase.ANSWER:
            self._exchange = self._parser = None  # an idle connection keeps neither
            self._enter(Phase.IDLE, self.loop.time())
        elif self._phase is Phase.BODY:  # the rest of the body is not read, and gets the time of a small body
            self._enter(Phase.BODY, self.loop.time())
        self.resume_reading()

    def read(self, data: bytes) -> None:
        """Reads what the client has sent. Raises httptools.HttpParserError."""
        self._read_at = self.loop.time()
        self._field_bytes += len(data)
        self._read_count = 0
        parser = self._parser
        if parser is None:
            parser = self._parser = RequestParser(self)
        try:
            parser.feed(data)
        finally:
            if self._phase is not Phase.HEAD and self._phase is not Phase.BODY:
                self._field_bytes = 0
                self._shares_read = False
                if self._phase is not Phase.ANSWER:
                    self._parser = None

    @property
    def headers(self) -> Iterable[Header]:
        """The headers of the request that arrived last."""
        return () if self._exchange is None else self._exchange.scope["headers"]

    # httptools.HttpRequestParser

    def on_message_begin(self) -> None:
        self._url = b""
        self._headers = []
        self._awaits_continue = False
        self._enter(Phase.HEAD, self._read_at)

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if name == b"expect" and value.lower() == b"100-continue":
            self._awaits_continue = True
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Begins the exchange. Raises what `_check_head` and `_request_part` raise, which stops the parser."""
        self._check_head()
        self._read_count += 1
        assert self._parser is not None
        scope, keeps_open = _request_part(self._url, self._headers, self._parser.http), self._parser.http.should_keep_alive()
        scope.update(client=self.client, server=self._server, state=self._app_state.copy())
        previous, is_current = self._exchange, scope["http_version"] == "1.1"
        exchange = self._exchange = HttpExchange(
            self, scope, keeps_open=keeps_open and is_current, awaits_continue=self._awaits_continue and is_current
        )
        self._connections.leave(self)
        self._enter(Phase.BODY, self._read_at)
        self._field_bytes = self._body_bytes = 0
        self._shares_read = False
        self._headers = []  # another list for trailers, which are not headers of the request (RFC 9110 s6.5.1)
        app = self._application_for(scope["path"])
        if previous is None or previous.is_answered:
            self._begin_next(exchange, app)
        else:
            self.pause_reading()
            self._pipelined.append((exchange, app))

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        self._field_bytes = 0
        exchange = self._exchange
        if exchange is not None and not exchange.is_answered:
            exchange.feed(body)
            if exchange.size > UNREAD_MAX:
                self.pause_reading()

    def on_message_complete(self) -> None:
        assert self._parser is not None
        if self._parser.has_stopped_before_body():
            return
        self._field_bytes = 0
        self._shares_read = True
        exchange, goes_on = self._exchange, self._parser.http.should_keep_alive()  # a trailer may say that it does not
        if exchange is None or exchange.is_answered:
            self._exchange = None
            self._enter(Phase.IDLE, self._read_at)
            if not goes_on:
                self.transport.close()
        else:
            if not goes_on:
                exchange.close_after_answer()
            exchange.end_body()
            self._enter(Phase.ANSWER, self._read_at)

    @abstractmethod
    def _check_head(self) -> None:
        """Raises an exception for a head that no application may answer."""

    @abstractmethod
    def _application_for(self, path: str) -> App:
        """Returns what answers a request for `path`."""

    @abstractmethod
    def _begin_exchange(self, exchange: HttpExchange, app: App) -> None:
        """Starts a request, or decides that it waits, or refuses it."""

    def _begin_next(self, exchange: HttpExchange, app: App) -> None:
        self._answering = exchange
        self._begin_exchange(exchange, app)

    def _enter(self, phase: Phase, now: float) -> None:
        self._phase = phase
        self._since = now


def _request_part(url: bytes, headers: list[Header], http: httptools.HttpRequestParser) -> Scope:
    """Returns what the ASGI scope has of the request whose headers have arrived. Raises httptools.HttpParserInvalidURLError."""
    if not url.startswith(b"/") and (found := _ABSOLUTE.match(url)) is not None:  # its host replaces the header (RFC 9112 s3.2.2)
        headers = [(name, found[1] if name == b"host" else value) for name, value in headers]
    parsed = httptools.parse_url(url)
    raw_path = parsed.path or b"/"  # that of an absolute target may be empty
    path = raw_path.decode("ascii")
    return {
        "type": "http",
        "asgi": _ASGI,
        "http_version": http.get_http_version(),
        "method": http.get_method().decode("ascii"),
        "scheme": "http",
        "path": unquote(path) if "%" in path else path,
        "raw_path": raw_path,
        "query_string": parsed.query or b"",
        "root_path": "",
        "headers": headers,
    }


@lru_cache(maxsize=64)
def _intern_address(address: tuple[str, int | None] | None) -> tuple[str, int | None] | None:
    """Returns one object for all equal addresses of listeners, since each connection keeps its listener's."""
    return address
