"""uvloop's event loop with servers that accept all waiting connections at once.

uvloop accepts one connection of a listener in each iteration. While iterations take 10 ms, that is 100 connections a second: the queue of
the kernel overflows, and clients try again after 1, 3, 7 and 15 seconds.
"""

import asyncio
import os
import socket
from collections.abc import Callable, Sequence
from typing import Any, Final

import structlog
import uvloop

BATCH_MAX: Final = 64  # connections of one listener in one iteration
PAUSE_SECONDS: Final = 1.0  # after a connection that could not be accepted, such as for want of file descriptors
log = structlog.get_logger()


class BatchAcceptingLoop(uvloop.Loop):
    """Its TCP servers accept up to BATCH_MAX connections in one iteration. TLS is not supported: a proxy in front has it."""

    async def create_server(  # type: ignore[override]  # the options that uvicorn uses
        self, protocol_factory: Callable[[], asyncio.BaseProtocol], *place: Any, ssl: None = None, **options: Any
    ) -> "BatchServer":
        """Returns a server that accepts connections until it is closed."""
        server = await super().create_server(protocol_factory, *place, ssl=ssl, **options)
        return BatchServer(self, server, protocol_factory)


class BatchServer:
    """A server of uvloop, with a second look at each of its listeners that takes what uvloop leaves for later iterations."""

    def __init__(self, loop: asyncio.AbstractEventLoop, server: Any, protocol_factory: Callable[[], asyncio.BaseProtocol]) -> None:
        self._loop = loop
        self._server = server  # uvloop has no types for it
        self._protocol_factory = protocol_factory
        self._connecting: set[asyncio.Task[Any]] = set()
        self._listeners = [socket.socket(fileno=os.dup(each.fileno())) for each in self._server.sockets]
        for listener in self._listeners:
            loop.add_reader(listener, self._accept, listener)

    @property
    def sockets(self) -> Sequence[Any]:
        """The listeners."""
        return self._server.sockets  # type: ignore[no-any-return]  # of uvloop

    def close(self) -> None:
        """Accepts the connections that wait, which the kernel would reset, and no more. Those that were accepted stay."""
        for listener in self._listeners:
            while self._accept(listener):
                pass
            self._loop.remove_reader(listener)
            listener.close()
        self._listeners.clear()
        self._server.close()

    async def wait_closed(self) -> None:
        """Waits until uvloop has closed its listeners."""
        await self._server.wait_closed()

    def _accept(self, listener: socket.socket) -> bool:
        """Accepts up to BATCH_MAX connections, and returns whether more may wait."""
        for _ in range(BATCH_MAX):
            try:
                connection, _ = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return False
            except OSError as error:
                self._pause(listener, error)
                return False
            connection.setblocking(False)
            task = self._loop.create_task(self._connect(connection))
            self._connecting.add(task)
            task.add_done_callback(self._connecting.discard)
        return True

    async def _connect(self, connection: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._protocol_factory, connection)
        except OSError:  # the client has gone
            connection.close()

    def _pause(self, listener: socket.socket, error: OSError) -> None:
        """Leaves the listener to uvloop for a second, which goes on accepting one connection in each iteration."""
        log.warning("accept_failed", error=str(error))
        self._loop.remove_reader(listener)
        self._loop.call_later(PAUSE_SECONDS, self._resume, listener)

    def _resume(self, listener: socket.socket) -> None:
        if listener in self._listeners:
            self._loop.add_reader(listener, self._accept, listener)
