"""A connection to the gateway's HTTP protocol without a socket: a transport that records, and a loop whose clock the test moves."""

import asyncio
from collections.abc import Callable
from typing import Any

from uvicorn.config import Config
from uvicorn.server import ServerState

from gateway.server.sockets.client_limits import STATE, Connections
from gateway.server.sockets.http_protocol import HttpProtocol


class Wire(asyncio.Transport):
    """What the gateway sees of a socket. `waiting` is what the client has not read; `lost` is called once it is closed."""

    def __init__(self, lost: Callable[[], None]) -> None:
        super().__init__()
        self._lost = lost
        self.sent = b""
        self.writes = 0
        self.waiting = 0
        self.closed = ""
        self.paused = False

    def write(self, data: Any) -> None:
        self.sent += bytes(data)
        self.writes += 1

    def get_write_buffer_size(self) -> int:
        return self.waiting

    def close(self) -> None:
        if not self.closed and not self.waiting:
            self._lost()
        self.closed = self.closed or "closed"

    def abort(self) -> None:
        self.closed, self.waiting = "aborted", 0
        self._lost()

    def is_closing(self) -> bool:
        return bool(self.closed)

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False


class Handle:
    """A callback of FakeLoop."""

    def __init__(self, at: float, act: Callable[[], None]) -> None:
        self.at = at
        self.act = act
        self.live = True

    def cancel(self) -> None:
        self.live = False


class FakeLoop:
    """Tasks run in the loop of the test; timers fire when `pass_time` reaches them."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.timers: list[Handle] = []
        self.soon: list[Callable[[], None]] = []

    def time(self) -> float:
        return self.now

    def call_later(self, seconds: float, act: Callable[[], None]) -> Handle:
        self.timers.append(Handle(self.now + seconds, act))
        return self.timers[-1]

    def call_soon(self, act: Callable[[], None]) -> None:
        self.soon.append(act)

    def create_future(self) -> "asyncio.Future[Any]":
        return asyncio.get_running_loop().create_future()

    def create_task(self, work: Any, **more: Any) -> "asyncio.Task[Any]":
        return asyncio.get_running_loop().create_task(work, **more)

    def pass_time(self, seconds: float) -> None:
        """Fires what is due until `seconds` from now, in order."""
        until = self.now + seconds
        while due := sorted((each for each in self.timers if each.live and each.at <= until), key=lambda each: each.at):
            self.timers.remove(due[0])
            self.now = max(self.now, due[0].at)
            due[0].act()
            self.run_soon()
        self.now = until

    def run_soon(self) -> None:
        """Ends an iteration: sends heads that wait for a body, and tells the protocols of connections that were closed."""
        soon, self.soon = self.soon, []
        for act in soon:
            act()


class Client:
    """One connection to `app`. `connections` is shared by the clients of a gateway."""

    def __init__(self, app: Any, connections: Connections, loop: FakeLoop) -> None:
        config = Config(app, log_config=None, lifespan="off", ws="none", proxy_headers=False, timeout_keep_alive=3600)
        self.loop = loop
        self.wire = Wire(lambda: loop.soon.append(lambda: self.protocol.connection_lost(None)))
        self.state = ServerState()
        self.tasks = self.state.tasks  # of requests in flight
        self.protocol = HttpProtocol(config, self.state, {STATE: connections}, loop)  # type: ignore[arg-type]  # as much of a loop as it needs
        self.protocol.connection_made(self.wire)
        loop.run_soon()

    def send(self, data: bytes) -> None:
        if not self.wire.closed:
            self.protocol.data_received(data)
            self.loop.run_soon()

    async def answered(self) -> None:
        """Returns when the application has dealt with all requests."""
        await asyncio.gather(*self.tasks)
        self.loop.run_soon()

    @property
    def status(self) -> int:
        """Of the last answer; 0 without one."""
        return int(self.wire.sent.rpartition(b"HTTP/1.1 ")[2][:3] or 0)
