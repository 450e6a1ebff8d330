"""A load balancer of the plainest kind: round robin over the processes that are ready, one connection for each request, no stickiness."""

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

from tests.fakes.ports import free_port

PROBE_SECONDS = 0.2
CHUNK = 65_536
NONE_READY = "no process is ready"
NOBODY = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (len(NONE_READY), NONE_READY.encode())
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CONNECTION = re.compile(rb"\r\nconnection: *[^\r]*", re.IGNORECASE)


class Balancer:
    """Sends each request to the next process whose /readyz answers 200. It tries another one only where a connection is refused."""

    def __init__(self, ports: Sequence[int]) -> None:
        self._ports = list(ports)
        self._next = 0
        self._serving: set[asyncio.Task[None]] = set()  # asyncio itself holds them weakly
        self.ready: set[int] = set()
        self.served = dict.fromkeys(ports, 0)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        """Yields the balancer's URL without a path."""
        port = free_port()
        probing = asyncio.create_task(self._probe_all())
        async with await asyncio.start_server(self._begin, "127.0.0.1", port):
            try:
                yield f"http://127.0.0.1:{port}"
            finally:
                probing.cancel()

    async def _probe_all(self) -> None:
        while True:
            for port in self._ports:
                (self.ready.add if await _is_ready(port) else self.ready.discard)(port)
            await asyncio.sleep(PROBE_SECONDS)

    def _begin(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answers one request, with 503 where every process refuses."""
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            length = _LENGTH.search(head)
            body = await reader.readexactly(int(length[1])) if length else b""
            try:
                answer, request = await self._connect()
            except ConnectionRefusedError:
                writer.write(NOBODY)
                writer.close()
                return
            request.write(_CONNECTION.sub(b"", head[:-4]) + b"\r\nConnection: close\r\n\r\n" + body)
            gone = asyncio.create_task(_close_when_gone(reader, request))
            try:
                while data := await answer.read(CHUNK):
                    writer.write(data)
                    await writer.drain()
            finally:
                gone.cancel()
                request.close()
        writer.close()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Raises ConnectionRefusedError where every process refuses."""
        for _ in range(2 * len(self._ports)):
            port = self._ports[self._next % len(self._ports)]
            self._next += 1
            if port in self.ready:
                with suppress(ConnectionRefusedError):
                    opened = await asyncio.open_connection("127.0.0.1", port)
                    self.served[port] += 1
                    return opened
        raise ConnectionRefusedError


async def _close_when_gone(reader: asyncio.StreamReader, request: asyncio.StreamWriter) -> None:
    """Ends the request at the gateway when the client ends its own."""
    await reader.read(1)
    request.close()


async def _is_ready(port: int) -> bool:
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /readyz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
        line = await reader.readline()
        writer.close()
    except OSError:
        return False
    return b" 200 " in line
