"""A client's connection whose requests start only when the process admits them (gateway/concurrency/admission.py)."""

import asyncio
from typing import Any

from uvicorn.config import Config
from uvicorn.server import ServerState

from gateway.concurrency.admission import Admission
from gateway.ingress.http.asgi import App
from gateway.server.sockets.admission.admitted_requests import PROBE_PATHS, RESERVED_PATHS, RequestAdmission
from gateway.server.sockets.client_connection import ClientConnection
from gateway.server.sockets.http_exchange import HttpExchange


class AdmissionProtocol(ClientConnection):
    """One client's connection. A request that is not admitted waits, or is refused before its body is read."""

    __slots__ = ("_admission", "_batch", "_requests")

    def __init__(
        self, config: Config, server_state: ServerState, app_state: dict[str, Any], _loop: asyncio.AbstractEventLoop | None = None
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._requests: RequestAdmission = self._connections.admission
        self._admission: Admission = self._requests.admission
        self._batch = self._requests.refusal_batch

    def shutdown(self) -> None:
        """Closes the connection as soon as its request is answered."""
        self._batch.write()
        super().shutdown()

    def start_request(self, exchange: HttpExchange, app: App) -> None:
        """Starts an admitted request."""
        exchange.start(app, self._server_state.tasks)

    def refuse_request(self, exchange: HttpExchange, owner: str) -> None:
        """Answers 503 without starting the request. Its body is dropped; a client that waits for leave to send one is disconnected."""
        keeps_open = exchange.end_refused()
        self._write_refusal(owner, keeps_open=keeps_open, with_body=exchange.scope["method"] != "HEAD")
        if not keeps_open:
            self.transport.close()
        self.end_exchange()

    def drop(self, reason: str) -> None:
        """Closes the connection without a further answer, and counts `reason`."""
        self._connections.count_drop(reason)
        has_unread = self.transport.get_write_buffer_size()
        if self in self._batch.answers:  # the answer to the request before
            self._batch.write()
        if has_unread:  # the client may never read the buffer
            self.transport.abort()
        else:
            self.transport.close()

    def _begin_exchange(self, exchange: HttpExchange, app: App) -> None:
        """Starts a request, unless the process is overloaded: then the request waits or is refused."""
        if self._admission.try_start():
            self.start_request(exchange, app)
            return
        path = exchange.scope["raw_path"]
        if path in PROBE_PATHS:
            self.start_request(exchange, app)
            return
        headers = dict([*exchange.scope["headers"]][::-1])  # the first one of each name
        owner = self._owner_of(headers.get(b"authorization", b""), headers.get(b"cookie", b""))
        if not self._admission.wait(owner, _WaitingRequest(self, exchange, app, owner), is_reserved=path.startswith(RESERVED_PATHS)):
            self.refuse_request(exchange, owner)

    def _refuse_whole_request(self, data: bytes) -> bool:
        """Refuses a request that arrived in one piece and that may not wait, without parsing it. Returns False for all others."""
        request = self._requests.whole_requests.read(data)
        if request is None or request.path in PROBE_PATHS:
            return False
        owner = self._owner_of(request.authorization, request.cookie)
        if self._admission.has_room(owner, is_reserved=request.path.startswith(RESERVED_PATHS)):
            return False
        self._write_refusal(owner, is_batched=True)
        return True

    def _write_refusal(self, owner: str, *, keeps_open: bool = True, with_body: bool = True, is_batched: bool = False) -> None:
        """Writes the answer, or closes the connection of a client that reads no answers."""
        self._requests.count_refusal(owner)
        if self.is_write_paused:
            self.drop("not-read")
            return
        answer = self._requests.refusals.next(keeps_open=keeps_open, with_body=with_body)
        if is_batched:
            self._batch.add(self, answer)
        else:
            self.write(answer)

    def _owner_of(self, authorization: bytes, cookie: bytes) -> str:
        return self._requests.owner_of(authorization, self.client[0] if self.client else "", cookie)


class _WaitingRequest:
    """A request of a connection that waits to be admitted."""

    __slots__ = ("_app", "_exchange", "_owner", "_protocol")

    def __init__(self, protocol: AdmissionProtocol, exchange: HttpExchange, app: App, owner: str) -> None:
        self._protocol = protocol
        self._exchange = exchange
        self._app = app
        self._owner = owner

    def start(self) -> bool:
        if self._protocol.transport.is_closing():
            return False
        self._protocol.start_request(self._exchange, self._app)
        return True

    def refuse(self) -> None:
        if not self._protocol.transport.is_closing():
            self._protocol.refuse_request(self._exchange, self._owner)
