"""The protocol of the gateway's sockets: HTTP/1.1 with limits on what a client may use."""

import asyncio
from typing import Any

import httptools
import msgspec
import structlog
from uvicorn.config import Config
from uvicorn.server import ServerState

from gateway.calls.limits.slots import Overloaded
from gateway.ingress.http.asgi import SECURITY_HEADERS, App, HeadersTooLarge, Receive, RequestTooSlow, Scope, Send, respond
from gateway.ingress.http.error_bodies import PROBLEM_MEDIA_TYPE, problem
from gateway.ingress.http.errors import InvalidRequest, describe
from gateway.server.health import HEALTH_PATHS
from gateway.server.sockets.admission_protocol import AdmissionProtocol
from gateway.server.sockets.answer_heads import encode_headers
from gateway.server.sockets.client_connection import Phase
from gateway.server.sockets.client_limits import BODY_RATE, HEADERS_MAX, PIPELINED_MAX, UnreadTimer
from gateway.server.sockets.client_transport import LARGE_READ
from gateway.telemetry.spans import new_trace_id

log = structlog.get_logger()
ROOM_SECONDS = 1  # Retry-After for a client above the limit of connections


class HttpProtocol(AdmissionProtocol):
    """One client's connection, with limits on what the client may use."""

    __slots__ = ("_has_room", "_limits", "_unread")

    def __init__(
        self, config: Config, server_state: ServerState, app_state: dict[str, Any], _loop: asyncio.AbstractEventLoop | None = None
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._limits = self._connections.limits
        self._unread = UnreadTimer(self._limits.send_seconds)
        self._has_room = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._has_room = self._connections.enter(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.exit(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if len(data) >= LARGE_READ:
            self.yield_turn()
        if self in self._batch.answers:  # the answer to this request must not overtake that to the one before
            self._batch.write()
        if not self._admission.can_start() and self._refuse_unparsed(data):
            return
        try:
            self.read(data)
        except httptools.HttpParserError as error:
            self._refuse_unreadable(error)
        if self._field_bytes > self._limits.header_bytes and not self.transport.is_closing():
            self._refuse_fields()

    def _refuse_unparsed(self, data: bytes) -> bool:
        """Refuses a request that follows no other on the connection, if it can be refused without parsing."""
        if (self._phase is not Phase.IDLE and self._phase is not Phase.OPENED) or not self._has_room:
            return False
        if is_refused := self._refuse_whole_request(data):
            self._enter(Phase.IDLE, self.loop.time())
        return is_refused

    def _check_head(self) -> None:
        """Raises HeadersTooLarge or InvalidRequest, which stop the parser."""
        if self.transport.is_closing():
            raise InvalidRequest("nothing is answered behind a request after which the connection closes")
        may_be_large = self._shares_read or self._field_bytes > self._limits.header_bytes
        if (may_be_large and self._head_size() > self._limits.header_bytes) or len(self._headers) > HEADERS_MAX:
            raise HeadersTooLarge(self._limits.header_bytes, HEADERS_MAX)
        if len(self._pipelined) >= PIPELINED_MAX or self._read_count > PIPELINED_MAX:  # requests that are refused do not wait
            self.drop("pipelined")
            raise InvalidRequest("too many requests were sent before the answer to the first")

    def _application_for(self, path: str) -> App:
        return self._app if self._has_room or path in HEALTH_PATHS else refuse_for_want_of_room

    def _head_size(self) -> int:
        return len(self._url) + sum(len(name) + len(value) for name, value in self._headers)

    def _refuse_unreadable(self, error: httptools.HttpParserError) -> None:
        """Answers a request that can't be parsed, or whose head was refused."""
        if self.transport.is_closing():
            return
        reason = error.__context__ if isinstance(error, httptools.HttpParserCallbackError) else None
        if not isinstance(reason, (HeadersTooLarge, InvalidRequest)):
            if reason is not None and not isinstance(reason, httptools.HttpParserInvalidURLError):
                log.error("request_not_read", exc_info=reason)
            reason = InvalidRequest("The request can't be read as HTTP/1.1. TLS and HTTP/2 need a proxy in front of this port.")
        self._refuse(reason)

    def _refuse_fields(self) -> None:
        """Refuses a request whose headers, trailers or chunk extensions are too large."""
        error = HeadersTooLarge(self._limits.header_bytes, HEADERS_MAX)
        if self._phase is Phase.HEAD:
            self._refuse(error)
        else:
            self._refuse_body(error)

    def _refuse(self, error: Exception) -> None:
        """Answers a request whose headers are incomplete, and closes the connection."""
        if self.is_answering:
            self.drop(describe(error).mapping.reason_id)
        else:
            self._answer(error)

    def _refuse_body(self, error: Exception) -> None:
        """Answers a request whose body is incomplete, unless its answer has begun, and closes the connection."""
        exchange = self._exchange
        if exchange is None or exchange.has_begun or self._pipelined:
            self.drop(describe(error).mapping.reason_id)
        else:
            exchange.disconnect()  # the application, which waits for the rest, must not answer
            self._answer(error)

    def _answer(self, error: Exception) -> None:
        report, trace_id = describe(error), new_trace_id()
        reason = report.mapping.reason_id
        self._connections.count_drop(reason)
        log.warning("request_refused", trace_id=trace_id, reason=reason, detail=report.detail, client=self.client[0] if self.client else "")
        body = msgspec.json.encode(problem(report, trace_id))
        length = (b"content-length", b"%d" % len(body))
        lines = encode_headers(((b"content-type", PROBLEM_MEDIA_TYPE), length, (b"connection", b"close"), *SECURITY_HEADERS))
        self.write(b"%b%b\r\n%b" % (self.answer_start(report.mapping.status), lines, body))
        self.transport.close()

    def look(self) -> None:
        """Checks whether the client is too slow to send or to read, and keeps a quiet stream alive."""
        now = self.loop.time()
        if self._answering is not None:
            self._answering.write_comment(self.measure_quiet(now))
        if self._unread.is_overdue(self.written, self.transport.get_write_buffer_size(), now):
            self._connections.count_drop("not-read")
            self.transport.abort()
        elif not self.transport.is_closing():
            self._check_request(now - self._since)

    def _check_request(self, seconds: float) -> None:
        """Closes a connection whose phase has lasted too long. `seconds` is the age of the phase."""
        limits, phase = self._limits, self._phase
        if phase is Phase.HEAD and seconds >= limits.header_seconds:
            self._refuse(RequestTooSlow())
        elif phase is Phase.OPENED and seconds >= limits.header_seconds:
            self.drop("nothing-sent")
        elif phase is Phase.IDLE and seconds >= limits.idle_seconds:
            self.drop("idle")
        elif phase is Phase.BODY:
            self._check_body(seconds)

    def _check_body(self, seconds: float) -> None:
        if self._is_read_paused:  # the gateway itself has paused reading
            self._enter(Phase.BODY, self._since + self._limits.look_seconds)
            return
        more = self._body_bytes / BODY_RATE if self.is_answering else 0.0
        if seconds < self._limits.body_seconds + more:
            return
        self._refuse_body(RequestTooSlow())


async def refuse_for_want_of_room(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers a request on a connection above the limit, and closes the connection."""
    report = describe(Overloaded("The gateway has the maximum number of connections with requests in flight.", ROOM_SECONDS))
    headers = [(b"retry-after", str(report.retry_after).encode()), (b"connection", b"close")]
    await respond(send, report.mapping.status, msgspec.json.encode(problem(report)), headers, PROBLEM_MEDIA_TYPE)
