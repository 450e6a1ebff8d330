"""HTTP/1.1 on the gateway's sockets: uvicorn's protocol with limits on what a client may use."""

import asyncio
import re
from enum import Enum, auto
from http import HTTPStatus
from typing import Any, cast

import msgspec
import structlog
from uvicorn.config import Config
from uvicorn.server import ServerState

from gateway.calls.limits.slots import Overloaded
from gateway.ingress.http.asgi import HeadersTooLarge, Receive, RequestTooSlow, Scope, Send, respond
from gateway.ingress.http.error_bodies import problem
from gateway.ingress.http.errors import InvalidRequest, describe
from gateway.server.health import HEALTH_PATHS as HEALTH_PATHS
from gateway.server.sockets.admission_protocol import AdmissionProtocol
from gateway.server.sockets.answer_transport import AnswerTransport
from gateway.server.sockets.client_limits import BODY_RATE, HEADERS_MAX, PIPELINED_MAX, UnreadTimer
from gateway.telemetry.spans import new_trace_id

log = structlog.get_logger()
PROBLEM = b"application/problem+json"
_ABSOLUTE = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]*://([^/?#]*)")  # group 1: host and port, with user information if there is any
ROOM_SECONDS = 1  # Retry-After for a client above the limit of connections


class Phase(Enum):
    """What a connection is doing, from the client's side."""

    OPENED = auto()  # no byte of a first request has arrived
    HEAD = auto()
    BODY = auto()
    ANSWER = auto()  # the request is complete, the gateway's answer is not
    IDLE = auto()


class HttpProtocol(AdmissionProtocol):
    """One client's connection.

    The host of an absolute request target (`GET http://host/path`) replaces the Host header (RFC 9112 s3.2.2).
    """

    def __init__(
        self, config: Config, server_state: ServerState, app_state: dict[str, Any], _loop: asyncio.AbstractEventLoop | None = None
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._limits = self._connections.limits
        self._phase = Phase.OPENED
        self._since = 0.0
        self._field_bytes = 0  # bytes of the head, or between pieces of a body: trailers and chunk extensions
        self._shares_read = False  # the head began in a read with another request's end, so `_field_bytes` is too small
        self._body_bytes = 0
        self._unread = UnreadTimer(self._limits.send_seconds)
        self._refusal: Exception | None = None
        self._has_room = True
        self._look: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(AnswerTransport(transport, self.loop))  # type: ignore[arg-type]  # it has all that a transport has
        self._enter(Phase.OPENED)
        self._has_room = self._connections.enter(self)
        self._look = self.loop.call_later(self._limits.look_seconds, self._check)

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.exit(self)
        if self._look is not None:
            self._look.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport in self._batch:  # the answer to this request must not overtake that to the one before
            self._batch.write()
        if self._admission.can_start() or not self._refuse_unparsed(data):
            self._parse(data)

    def _refuse_unparsed(self, data: bytes) -> bool:
        """Refuses a request that follows no other on the connection, if it can be refused without parsing."""
        if (self._phase is not Phase.IDLE and self._phase is not Phase.OPENED) or not self._has_room:
            return False
        if is_refused := self._refuse_whole_request(data):
            self._enter(Phase.IDLE)
        return is_refused

    def _parse(self, data: bytes) -> None:
        self._field_bytes += len(data)
        super().data_received(data)
        if self._phase is not Phase.HEAD and self._phase is not Phase.BODY:
            self._field_bytes = 0
            self._shares_read = False
        elif self._field_bytes > self._limits.header_bytes and not self.transport.is_closing():
            self._refuse_fields()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._enter(Phase.HEAD)

    def on_headers_complete(self) -> None:
        """Starts the request. Trailers of a chunked body are not headers of the request (RFC 9110 s6.5.1), so they get another list."""
        self._check_head()
        if not self.url.startswith(b"/") and (found := _ABSOLUTE.match(self.url)) is not None:
            self.headers[:] = [(name, found[1] if name == b"host" else value) for name, value in self.headers]
        if not self._has_room and self.url.partition(b"?")[0].decode("latin-1") not in HEALTH_PATHS:
            self.app = refuse_for_want_of_room
        self._connections.leave(self)
        self._enter(Phase.BODY)
        self._field_bytes = self._body_bytes = 0
        self._shares_read = False
        super().on_headers_complete()
        self.headers = []

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        self._field_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._field_bytes = 0
        self._shares_read = True
        self._enter(Phase.IDLE if self.cycle.response_complete else Phase.ANSWER)

    def on_response_complete(self) -> None:
        if not self.pipeline:
            self._connections.wait(self)
            if self._phase is Phase.ANSWER:
                self._enter(Phase.IDLE)
            elif self._phase is Phase.BODY:  # the rest of the body is not read, and gets the time of a small body
                self._enter(Phase.BODY)
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """Answers a request that can't be parsed. uvicorn also calls it when on_headers_complete raises."""
        if self.transport.is_closing():
            return
        self._refuse(self._refusal or InvalidRequest("The request can't be read as HTTP/1.1."))

    def _enter(self, phase: Phase) -> None:
        self._phase = phase
        self._since = self.loop.time()

    def _check_head(self) -> None:
        """Raises HeadersTooLarge or InvalidRequest, which stop the parser; uvicorn then calls send_400_response."""
        may_be_large = self._shares_read or self._field_bytes > self._limits.header_bytes
        if (may_be_large and self._head_size() > self._limits.header_bytes) or len(self.headers) > HEADERS_MAX:
            self._refusal = HeadersTooLarge(self._limits.header_bytes, HEADERS_MAX)
            raise self._refusal
        if len(self.pipeline) >= PIPELINED_MAX:
            self.drop("pipelined")
            raise InvalidRequest("too many requests were sent before the answer to the first")

    def _head_size(self) -> int:
        return len(self.url) + sum(len(name) + len(value) for name, value in self.headers)

    def _is_answering(self) -> bool:
        """Returns whether the answer to an earlier request is being sent, so that no error can be written."""
        return self.cycle is not None and not self.cycle.response_complete

    def _refuse_fields(self) -> None:
        """Refuses a request whose headers, trailers or chunk extensions are too large."""
        error = HeadersTooLarge(self._limits.header_bytes, HEADERS_MAX)
        if self._phase is Phase.HEAD:
            self._refuse(error)
        else:
            self._refuse_body(error)

    def _refuse(self, error: Exception) -> None:
        """Answers a request whose headers are incomplete, and closes the connection."""
        if self._is_answering():
            self.drop(describe(error).mapping.reason_id)
        else:
            self._answer(error)

    def _refuse_body(self, error: Exception) -> None:
        """Answers a request whose body is incomplete, unless its answer has begun, and closes the connection."""
        if self.cycle.response_started or self.pipeline:
            self.drop(describe(error).mapping.reason_id)
        else:
            self.cycle.disconnected = True  # the application, which waits for the rest, must not answer
            self.cycle.message_event.set()
            self._answer(error)

    def _answer(self, error: Exception) -> None:
        report, trace_id = describe(error), new_trace_id()
        reason = report.mapping.reason_id
        self._connections.count_drop(reason)
        log.warning("request_refused", trace_id=trace_id, reason=reason, detail=report.detail, client=self.client[0] if self.client else "")
        body = msgspec.json.encode(problem(report, trace_id))
        status = HTTPStatus(report.mapping.status)
        head = b"HTTP/1.1 %d %s\r\ncontent-type: %s\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
        self.transport.write(head % (status, status.phrase.encode(), PROBLEM, len(body)) + body)
        self.transport.close()

    def _check(self) -> None:
        """Checks periodically whether the client is too slow to send or to read."""
        now = self.loop.time()
        self._look = self.loop.call_later(self._limits.look_seconds, self._check)
        written = cast("AnswerTransport", self.transport).written
        if self._unread.is_overdue(written, self.transport.get_write_buffer_size(), now):
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
        if self.flow.read_paused:  # the gateway itself has paused reading
            self._since += self._limits.look_seconds
            return
        answered = self.cycle.response_complete
        more = 0.0 if answered else self._body_bytes / BODY_RATE
        if seconds < self._limits.body_seconds + more:
            return
        self._refuse_body(RequestTooSlow())


async def refuse_for_want_of_room(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers a request on a connection above the limit, and closes the connection."""
    report = describe(Overloaded("The gateway has the maximum number of connections with requests in flight.", ROOM_SECONDS))
    headers = [(b"retry-after", str(report.retry_after).encode()), (b"connection", b"close")]
    await respond(send, report.mapping.status, msgspec.json.encode(problem(report)), headers, PROBLEM)
