"""Responses of HTTP/1.1, whole or while their bodies arrive, and how they fail."""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from typing import NamedTuple

from msgspec import Struct

WAITING_MAX = 64 << 10  # bytes of an arriving body that wait for their reader
PIECE_MAX = 96 << 10  # bytes that a reader gets at once, so that others run between its pieces


class HttpResponse(Struct, frozen=True):
    """A whole response. Names of `headers` are in lower case; repeated values are joined by commas."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class ArrivingBody:
    """A body while it arrives. The connection pauses while more than WAITING_MAX bytes wait for their reader."""

    __slots__ = (
        *("_chunks", "_error", "_has_left_some", "_is_discarded", "_is_paused", "_pause_timer", "_size", "_transport", "_waiter"),
        "is_complete",
    )

    def __init__(self, transport: asyncio.ReadTransport) -> None:
        self._transport = transport
        self._chunks: deque[bytes] = deque()
        self._size = 0
        self._has_left_some = False  # the last read
        self._is_paused = False
        self._pause_timer: asyncio.TimerHandle | None = None
        self._error: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._is_discarded = False
        self.is_complete = False  # whether the whole body has arrived

    async def read(self) -> bytes:
        """Returns what has arrived, as soon as there is anything, in pieces of at most PIECE_MAX bytes; empty at the end.

        Raises the error that ended the connection.
        """
        if self._has_left_some:
            self._has_left_some = False
            await asyncio.sleep(0)
        while not self._chunks:
            if self._error is not None:
                raise self._error
            if self.is_complete:
                return b""
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        if self._size > PIECE_MAX:
            return self._take_piece()
        data = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        self.drop()
        return data

    def _take_piece(self) -> bytes:
        """Takes the first bytes of what waits. The connection stays paused until the rest is read too."""
        taken, size = list[bytes](), 0
        while self._chunks and size + len(self._chunks[0]) <= PIECE_MAX:
            taken.append(self._chunks.popleft())
            size += len(taken[-1])
        self._size -= size
        self._has_left_some = True
        return b"".join(taken)

    def pause_until(self, when: float) -> None:
        """Leaves what the peer sends in the socket until `when`, on the event loop's clock, so that it is read in one piece."""
        if self._is_paused or self.is_complete or self._error is not None:
            return
        self._is_paused = True
        self._transport.pause_reading()
        self._pause_timer = asyncio.get_running_loop().call_at(when, self._resume)

    @property
    def is_read(self) -> bool:
        """Whether the whole body has arrived and was read."""
        return self.is_complete and not self._chunks

    def drop(self) -> None:
        """Drops what waits for a reader."""
        self._chunks, self._size = deque(), 0
        if self._is_paused:
            self._resume()

    def discard(self) -> asyncio.Future[None]:
        """Drops the rest, of which nothing is read any more. The future is done at its end, or when it is more than WAITING_MAX bytes."""
        self.drop()
        self._is_discarded = True
        self._waiter = asyncio.get_running_loop().create_future()
        if self.is_complete or self._error is not None:
            self._wake()
        return self._waiter

    def feed(self, data: bytes) -> None:
        """Takes the next bytes."""
        self._size += len(data)
        if self._is_discarded:
            if self._size > WAITING_MAX:
                self.end(ResponseTooLarge("the response goes on"))
            return
        if data:
            if len(data) <= PIECE_MAX:
                self._chunks.append(data)
            else:
                self._chunks.extend(data[at : at + PIECE_MAX] for at in range(0, len(data), PIECE_MAX))
            self._wake()
        if self._size > WAITING_MAX and not self._is_paused:
            self._is_paused = True
            self._transport.pause_reading()

    def end(self, error: Exception | None = None) -> None:
        """Ends the body, with an error unless it is complete."""
        if not self.is_complete and self._error is None:
            self._error, self.is_complete = error, error is None
            if self._pause_timer is not None:
                self._resume()
            self._wake()

    def _resume(self) -> None:
        self._is_paused = False
        if self._pause_timer is not None:
            self._pause_timer.cancel()
            self._pause_timer = None
        self._transport.resume_reading()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class OpenedResponse(NamedTuple):
    """A response whose body arrives. `close` ends it, and keeps the connection where the body is complete.

    `close(True)` also keeps it where the body completes within a moment: events of a stream are known to be the last before its end comes.
    """

    status: int
    headers: Mapping[str, str]
    body: ArrivingBody
    close: Callable[[bool], None]


class ResponseTooLarge(Exception):
    """The response exceeds the limit of its headers or its (decompressed) body."""


class NotConnected(Exception):
    """There is no connection, so nothing was sent. `error` says why."""

    def __init__(self, error: OSError) -> None:
        super().__init__(str(error))
        self.error = error


class ConnectionDropped(ConnectionError):
    """The connection ended without a response, for example a kept one that the server closed."""
