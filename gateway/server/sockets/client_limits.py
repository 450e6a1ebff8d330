"""Limits on client connections: time, size and number, and which connection is closed when all are in use."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from gateway.server.sockets.admission.admitted_requests import RequestAdmission
from gateway.server.sockets.answer_heads import AnswerHeads
from gateway.server.sockets.look_rounds import LookRounds, Watched

STATE = "connections"  # key of Connections in the state of the ASGI lifespan
HEADERS_MAX = 128  # header lines of one request
PIPELINED_MAX = 16  # requests that one connection may send before the first answer
BODY_RATE = 16 << 10  # bytes per second; each such amount of a body extends its time by one second
READ_RATE = 8 << 10  # bytes per second that a client must read of a waiting answer
LOOKS = 4  # how often a connection is checked within the shortest of its limits
LOOK_MAX = 5.0  # seconds between two checks at most


@dataclass(frozen=True, slots=True)
class ClientLimits:
    """The limits of one connection, and the number of connections in one process. Times are in seconds, sizes in bytes."""

    header_bytes: int = 32 << 10
    header_seconds: float = 15.0
    body_seconds: float = 30.0
    idle_seconds: float = 75.0
    send_seconds: float = 30.0
    connections: int = 16_384

    @property
    def look_seconds(self) -> float:
        """The time between two checks of a connection."""
        return min(LOOK_MAX, min(self.header_seconds, self.body_seconds, self.idle_seconds, self.send_seconds) / LOOKS)


class Connection(Watched, Protocol):
    """A connection that is looked at now and then, and that can be closed from outside."""

    def drop(self, reason: str) -> None: ...


class Connections:
    """The open connections of one process, and those without a request in flight, ordered by the start of their wait.

    `count_drop` gets the reason of each connection that the gateway closes because of a limit. `admission` decides when requests start.
    """

    def __init__(
        self,
        limits: ClientLimits | None = None,
        count_drop: Callable[[str], None] = lambda reason: None,
        admission: RequestAdmission | None = None,
    ) -> None:
        self.limits = limits or ClientLimits()
        self.admission = admission or RequestAdmission()
        self.answer_heads = AnswerHeads()
        self.count_drop = count_drop
        self._open = LookRounds(self.limits.look_seconds)
        self._waiting: dict[Connection, None] = {}

    def enter(self, connection: Connection) -> bool:
        """Adds a connection. Above the limit it closes the one that has waited longest; returns False when all have requests in flight."""
        self._open.add(connection)
        if self.open > self.limits.connections and (longest := next(iter(self._waiting), None)) is not None:
            self.exit(longest)
            longest.drop("connections-full")
        self.wait(connection)
        return self.open <= self.limits.connections

    def exit(self, connection: Connection) -> None:
        """Removes a closed connection."""
        self._open.discard(connection)
        self.leave(connection)

    @property
    def open(self) -> int:
        """The number of open connections."""
        return len(self._open)

    def wait(self, connection: Connection) -> None:
        """Records that the connection has no request in flight."""
        self._waiting[connection] = None

    def leave(self, connection: Connection) -> None:
        """Records that the connection has a request in flight."""
        self._waiting.pop(connection, None)


class UnreadTimer:
    """Notices a client that does not read what waits for it in the connection's buffer.

    Within `seconds` the client has to take the bytes that waited at their beginning, or READ_RATE bytes per second, whichever is less. The
    taken bytes are the written ones less the waiting ones. The size of the buffer alone says nothing, because a stream refills it while
    the client reads.
    """

    __slots__ = ("_seconds", "_since", "_taken", "_wanted")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._wanted = 0  # bytes to be taken from `_since` on; 0 while nothing waits
        self._taken = 0  # bytes that had been taken at `_since`
        self._since = 0.0

    def is_overdue(self, written: int, waiting: int, now: float) -> bool:
        """Whether the client has read too little for too long. `written`: all bytes for it so far, of which `waiting` are in the buffer."""
        taken = written - waiting
        if waiting and self._wanted and taken - self._taken < self._wanted:
            return now - self._since >= self._seconds
        self._wanted = min(waiting, max(1, int(READ_RATE * self._seconds)))
        self._taken, self._since = taken, now
        return False
