"""What an exchange needs of its client's connection: to write, to wait for a slow reader, and to go on reading."""

import asyncio
from abc import ABC, abstractmethod
from typing import Final

LARGE_READ: Final = 128 << 10  # bytes; the event loop would read up to 32 such pieces, one after the other, before it serves others


class ClientTransport(asyncio.Protocol, ABC):
    """One client's connection without the protocol that is spoken over it."""

    __slots__ = ("_is_read_paused", "_quiet_since", "_waits_for_turn", "_writable", "_written_before", "loop", "transport", "written")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.transport: asyncio.Transport = None  # type: ignore[assignment]  # until the connection is made, before all else
        self.written = 0  # bytes
        self._written_before = 0  # bytes, at `_quiet_since`
        self._quiet_since = 0.0
        self._writable: asyncio.Event | None = None  # while the client reads more slowly than the gateway writes
        self._is_read_paused = False
        self._waits_for_turn = False  # to go on reading in the next iteration

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # a stream's transport also writes

    def connection_lost(self, exc: Exception | None) -> None:
        self.resume_writing()
        if exc is None:
            self.transport.close()

    @property
    def is_write_paused(self) -> bool:
        """Whether the client reads more slowly than the gateway writes."""
        return self._writable is not None

    def pause_writing(self) -> None:
        if self._writable is None:
            self._writable = asyncio.Event()

    def resume_writing(self) -> None:
        if self._writable is not None:
            self._writable.set()
            self._writable = None

    async def wait_until_writable(self) -> None:
        """Waits until the client has read most of what was written, or has gone."""
        if self._writable is not None:
            await self._writable.wait()

    def is_closing(self) -> bool:
        return self.transport.is_closing()

    def write(self, data: bytes) -> None:
        self.written += len(data)
        self.transport.write(data)

    def measure_quiet(self, now: float) -> float:
        """Returns for how many seconds nothing was written, to the precision of the times at which this was called."""
        if self.written != self._written_before:
            self._written_before, self._quiet_since = self.written, now
        return now - self._quiet_since

    def pause_reading(self) -> None:
        if not self._is_read_paused:
            self._is_read_paused = True
            if not self._waits_for_turn:
                self.transport.pause_reading()

    def resume_reading(self) -> None:
        if self._is_read_paused:
            self._is_read_paused = False
            if not (self._waits_for_turn or self.transport.is_closing()):
                self.transport.resume_reading()

    def yield_turn(self) -> None:
        """Reads no more in this iteration of the event loop, so that others have their turn."""
        if self._waits_for_turn or self.transport.is_closing():
            return
        self._waits_for_turn = True
        if not self._is_read_paused:
            self.transport.pause_reading()
        self.loop.call_soon(self._end_wait_for_turn)

    def _end_wait_for_turn(self) -> None:
        self._waits_for_turn = False
        if not (self._is_read_paused or self.transport.is_closing()):
            self.transport.resume_reading()

    @abstractmethod
    def look(self) -> None:
        """Checks, now and then, what the client does."""

    @abstractmethod
    def drop(self, reason: str) -> None:
        """Closes the connection without a further answer, and counts `reason`."""

    @abstractmethod
    def answer_start(self, status: int) -> bytes:
        """Returns the status line and the headers of the server for an answer with this status."""

    @abstractmethod
    def end_exchange(self) -> None:
        """Goes on with the next request, since the current one is answered."""
