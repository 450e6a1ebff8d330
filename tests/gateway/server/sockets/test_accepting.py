"""Connections that wait are accepted together, and none after the server was closed."""

import asyncio
import errno
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from gateway.server.sockets.accepting import BATCH_MAX, BatchAcceptingLoop, BatchServer

WAITING = 3 * BATCH_MAX


class Counter(asyncio.Protocol):
    """Counts connections."""

    def __init__(self) -> None:
        self.made: list[asyncio.BaseTransport] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.made.append(transport)


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound


def run(coroutine: Any) -> None:
    with asyncio.Runner(loop_factory=BatchAcceptingLoop) as runner:
        runner.run(coroutine)


async def serve(listener: socket.socket, counter: Counter) -> BatchServer:
    server: Any = await asyncio.get_running_loop().create_server(lambda: counter, sock=listener, backlog=2 * WAITING)
    return server  # type: ignore[no-any-return]  # a BatchServer, as this loop makes them


def connect(listener: socket.socket, stack: ExitStack, count: int) -> None:
    for _ in range(count):
        stack.enter_context(socket.create_connection(listener.getsockname()))


def test_waiting_connections_are_accepted_in_a_few_iterations(listener: socket.socket) -> None:
    async def accept() -> None:
        counter = Counter()
        server = await serve(listener, counter)
        with ExitStack() as clients:
            connect(listener, clients, WAITING)
            for _ in range(12):
                await asyncio.sleep(0)
            assert len(counter.made) == WAITING
            assert all(each.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) for each in counter.made)
        server.close()

    run(accept())


def test_a_closed_server_refuses_connections(listener: socket.socket) -> None:
    address = listener.getsockname()

    async def close() -> None:
        server = await serve(listener, Counter())
        server.close()
        await server.wait_closed()
        listener.close()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address)

    run(close())


class Exhausted:
    """A listener of a process without free file descriptors."""

    def __init__(self, real: socket.socket) -> None:
        self._real = real

    def fileno(self) -> int:
        return self._real.fileno()

    def accept(self) -> Any:
        raise OSError(errno.EMFILE, "Too many open files")


def test_a_process_without_descriptors_looks_again_later(listener: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.server.sockets.accepting.PAUSE_SECONDS", 0.01)

    async def exhaust() -> None:
        counter = Counter()
        server = await serve(listener, counter)
        real = server._listeners[0]
        server._accept(Exhausted(real))  # type: ignore[arg-type]  # a listener that fails
        assert not asyncio.get_running_loop().remove_reader(real)
        server._resume(real)
        with ExitStack() as clients:
            connect(listener, clients, 10)
            for _ in range(8):
                await asyncio.sleep(0)
            assert len(counter.made) == 10
        server.close()

    run(exhaust())


def test_a_server_that_closes_accepts_the_connections_that_wait(listener: socket.socket) -> None:
    async def close() -> None:
        counter = Counter()
        server = await serve(listener, counter)
        with ExitStack() as clients:
            connect(listener, clients, WAITING)
            server.close()
            for _ in range(12):
                await asyncio.sleep(0)
            assert len(counter.made) == WAITING and listener.fileno() == -1

    run(close())
