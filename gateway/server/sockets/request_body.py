"""The body of a request on its way from a client's connection to an ASGI application."""

import asyncio
from collections.abc import MutableMapping
from typing import Any, Final

from gateway.server.sockets.client_transport import ClientTransport

CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


class RequestBody:
    """The body of one request. `receive` is that of the application, the other methods are those of the connection."""

    __slots__ = ("_awaits_continue", "_body", "_connection", "_has_news", "_more_body", "_waiters", "is_answered", "is_disconnected")

    def __init__(self, connection: ClientTransport, *, awaits_continue: bool) -> None:
        """`awaits_continue`: the client sends the body after 100 (Continue)."""
        self._connection = connection
        self._awaits_continue = awaits_continue
        self._body: bytes | bytearray = b""  # that the application has not received yet
        self._more_body = True
        self._has_news = False  # for the application: a piece of the body, its end, or the end of the exchange
        self._waiters: list[asyncio.Future[None]] = []  # for news
        self.is_answered = False  # whether the answer is complete, so that the application needs no more of the body
        self.is_disconnected = False

    @property
    def size(self) -> int:
        """The number of bytes that wait for the application."""
        return len(self._body)

    def feed(self, body: bytes) -> None:
        """Adds a piece of the body."""
        if not self._body:
            self._body = body
        else:
            if isinstance(self._body, bytes):  # a body may come in very many pieces, which take linear time
                self._body = bytearray(self._body)
            self._body += body
        self._wake()

    def end_body(self) -> None:
        """Notes that the body is complete."""
        self._more_body = False
        self._wake()

    def disconnect(self) -> None:
        """Ends the exchange: the client, or the connection to it, is gone."""
        self.is_disconnected = True
        self._wake()

    def end_answer(self) -> None:
        """Ends the exchange: the answer is complete."""
        self.is_answered = True
        self._wake()

    def withdraw_continue(self) -> None:
        """Sends no 100 (Continue) any more, since the answer comes first."""
        self._awaits_continue = False

    async def receive(self) -> MutableMapping[str, Any]:
        """Waits for the next piece of the body, or for the end of the exchange (ASGI HTTP, `http.request` and `http.disconnect`)."""
        if self._awaits_continue and not (self.is_answered or self._connection.is_closing()):
            self._awaits_continue = False
            self._connection.write(CONTINUE)
        while not (self._has_news or self.is_disconnected or self.is_answered):
            self._connection.resume_reading()
            waiter: asyncio.Future[None] = self._connection.loop.create_future()
            self._waiters.append(waiter)
            await waiter
        self._has_news = False
        if self.is_disconnected or self.is_answered:
            return {"type": "http.disconnect"}
        body, self._body = self._body, b""
        return {"type": "http.request", "body": bytes(body), "more_body": self._more_body}

    def _wake(self) -> None:
        """Wakes the application where it waits in `receive`: there is news."""
        self._has_news = True
        if self._waiters:
            waiters, self._waiters = self._waiters, []
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)
