"""Clients that send and read slowly: their connections end, what they cost is bounded, and others are served meanwhile."""

import asyncio
import tracemalloc
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any, ClassVar

import httpx
import pytest
from uvicorn.config import Config
from uvicorn.server import ServerState

from adapters.contract import ArtifactPiece, Done
from adapters.task import Artifact, Part, encode
from gateway.ingress.a2a_server.bindings.sse_frames import SseFrames
from gateway.ingress.a2a_server.operations import SequencedEvent
from gateway.ingress.http.event_streams import stream_events
from gateway.ingress.mcp_server.protocol.response import (
    BACKLOG_MAX,
    CROWDED_MAX,
    QUEUED_BYTES_MAX,
    Backlog,
    HttpResponseWriter,
    frame_event,
)
from gateway.server.sockets.client_limits import STATE, ClientLimits, Connections
from gateway.server.sockets.http_protocol import HttpProtocol
from gateway.storage.database import Database
from gateway.tasks.events.entries import stream_response
from gateway.tasks.log import BATCH_SIZE
from tests.fakes.a2a_agents import loopback, serving
from tests.fakes.house import House, house
from tests.fakes.turning import Desk
from tests.fakes.waiting import SECONDS, until

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
QUICK = ClientLimits(header_seconds=0.5, body_seconds=0.5, idle_seconds=0.5, send_seconds=0.5)
SLOW = 150
PARTS = {
    "nothing": b"",
    "a part of the headers": b"GET /livez HTTP/1.1\r\nHost: %s\r\nX-Long: a",
    "a part of a body": b"POST /oauth/token HTTP/1.1\r\nHost: %s\r\nContent-Type: application/x-www-form-urlencoded\r\n"
    b"Content-Length: 99\r\n\r\na",
}


class Quick(HttpProtocol):
    """The gateway's protocol with limits that a test can wait for; the connections of all that share one server."""

    dropped: ClassVar[list[str]] = []
    connections = Connections(QUICK, dropped.append)

    def __init__(
        self, config: Config, server_state: ServerState, app_state: dict[str, Any], _loop: asyncio.AbstractEventLoop | None = None
    ) -> None:
        app_state[STATE] = self.connections
        super().__init__(config, server_state, app_state, _loop)


@pytest.fixture
async def impatient_house(tmp_path: Path, database_url: str) -> AsyncIterator[House]:
    with loopback() as listener:
        server = {"public_url": f"http://127.0.0.1:{listener.getsockname()[1]}"}
        async with house(tmp_path / "home", database_url, server=server) as home, serving(home.app, listener, Quick):
            yield home


async def status_at_close(home: House, part: bytes) -> int:
    """Sends a part of a request and reads until the gateway closes the connection: the status of its answer, 0 for none."""
    host = home.url.removeprefix("http://")
    reader, writer = await asyncio.open_connection("127.0.0.1", int(host.rpartition(":")[2]))
    try:
        writer.write(part.replace(b"%s", host.encode()))
        answer = await reader.read()
    finally:
        writer.close()
    return int(answer.split(b" ")[1]) if answer else 0


# attack AVL-04
async def test_slow_senders_are_closed_while_others_are_served(impatient_house: House) -> None:
    async with asyncio.timeout(60), httpx.AsyncClient(base_url=impatient_house.url, timeout=60) as other:
        slow = {
            name: [asyncio.create_task(status_at_close(impatient_house, part)) for _ in range(SLOW // 3)] for name, part in PARTS.items()
        }
        while not all(task.done() for tasks in slow.values() for task in tasks):
            assert (await other.get("/livez")).status_code == 200
        found = {name: {task.result() for task in tasks} for name, tasks in slow.items()}
    assert found == {"nothing": {0}, "a part of the headers": {408}, "a part of a body": {408}}
    assert Quick.connections.open <= 1


# attack AVL-04
async def test_a_reader_that_does_not_read_is_cut_and_its_answer_freed(impatient_house: House) -> None:
    await impatient_house.http.get("/openapi.json")  # what the first request loads takes long enough for requests to pile up
    host = impatient_house.url.removeprefix("http://")
    _, writer = await asyncio.open_connection("127.0.0.1", int(host.rpartition(":")[2]), limit=1024)
    try:
        async with asyncio.timeout(60):
            with pytest.raises(ConnectionError):
                while True:  # requests requests for a large page, none of whose answers is read
                    writer.write(b"GET /openapi.json HTTP/1.1\r\nHost: %s\r\n\r\n" % host.encode())
                    await writer.drain()
                    await asyncio.sleep(0)
    finally:
        writer.close()
    assert Quick.dropped[-1] == "not-read"
    assert Quick.connections.open == 0


class Stalled:
    """A reader of a stream who takes nothing until `go` is set."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.read: list[bytes] = []

    async def receive(self) -> dict[str, Any]:
        await asyncio.Event().wait()
        raise AssertionError

    async def send(self, message: Any) -> None:
        await self.go.wait()
        self.read.append(message.get("body", b""))


# attack AVL-04
async def test_what_waits_for_readers_of_mcp_that_do_not_read_is_bounded(database_url: str) -> None:
    backlog, said = Backlog(), frame_event(b'"%s"' % (b"x" * 8000))
    readers = [Stalled() for _ in range(2 * BACKLOG_MAX // QUEUED_BYTES_MAX)]
    streams = [HttpResponseWriter({"headers": []}, reader.receive, reader.send, backlog) for reader in readers]
    for stream in streams:
        while stream.send_event(said):
            pass
    assert backlog.size <= BACKLOG_MAX + QUEUED_BYTES_MAX + len(streams) * (CROWDED_MAX + len(said))
    for stream in streams:
        stream.stream_task.cancel()
    await asyncio.wait([stream.stream_task for stream in streams])
    assert backlog.size == 0


class StalledBody(Stalled):
    """A reader who takes the headers, and nothing of the body until `go` is set."""

    waits = False

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.body":
            self.waits = True
            await super().send(message)


# attack AVL-04
async def test_what_waits_for_readers_of_a2a_that_do_not_read_is_bounded(database: Database) -> None:
    desk, readers = Desk(database), [StalledBody() for _ in range(20)]
    opened = await desk.opened()
    pieces = [ArtifactPiece(Artifact("a", (Part(data="x" * BATCH_SIZE),)), append=True) for _ in range(40)]

    async def events() -> AsyncGenerator[list[SequencedEvent], None]:
        async with aclosing(desk.log.follow(opened.row, opened.row.last_seq)) as batches:
            async for batch in batches:
                found = ((event.seq, stream_response(opened.row, event)) for event in batch)
                yield [SequencedEvent(seq, response) for seq, response in found if response is not None]

    async with asyncio.timeout(SECONDS), asyncio.TaskGroup() as group:
        tracemalloc.start()
        frames = (SseFrames(events(), lambda event: encode(event.response), lambda _: b"") for _ in readers)
        streams = [
            group.create_task(stream_events(reader.receive, reader.send, each)) for reader, each in zip(readers, frames, strict=True)
        ]
        await desk.run(*pieces, Done(), opened=opened)
        await until(lambda: all(reader.waits for reader in readers))
        held, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        for reader in readers:
            reader.go.set()
        await asyncio.wait(streams)
    assert held < 4 * len(readers) * BATCH_SIZE + len(pieces) * BATCH_SIZE
    assert [b"".join(reader.read).count(b"x" * BATCH_SIZE) for reader in readers] == [len(pieces)] * len(readers)


async def test_what_must_not_be_left_out_waits_for_a_slow_reader(database_url: str) -> None:
    reader = Stalled()
    stream = HttpResponseWriter({"headers": []}, reader.receive, reader.send, Backlog())
    count = 3 * QUEUED_BYTES_MAX // 8000

    async def tell() -> None:
        for number in range(count):
            assert await stream.say_in_turn(b"data: %d %s\n\n" % (number, b"x" * 8000))

    telling = asyncio.create_task(tell())
    await asyncio.sleep(0)
    assert not telling.done()
    reader.go.set()
    await telling
    await stream.end()
    told = b"".join(reader.read).split(b"data: ")[1:]
    assert [int(each.split(b" ")[0]) for each in told] == list(range(count))
