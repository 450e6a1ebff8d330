"""Streams of the gateway's sockets end when their clients leave, and are kept alive while they are quiet."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, MutableMapping
from typing import Any

from gateway.ingress.http.event_streams import KEEPALIVE_COMMENT, stream_events
from gateway.server.sockets.client_limits import Connections
from tests.fakes.sockets import Client, FakeLoop

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Handler = Callable[[Receive, Send], Awaitable[None]]


def connect(handler: Handler) -> Client:
    async def app(_scope: Any, receive: Receive, send: Send) -> None:
        await handler(receive, send)

    return Client(app, Connections(), FakeLoop())


class Stream:
    """An event stream whose events the test sends, and how it ended."""

    def __init__(self) -> None:
        self.events: asyncio.Queue[bytes] = asyncio.Queue()
        self.ended = ""

    async def __call__(self, receive: Receive, send: Send) -> None:
        try:
            await stream_events(receive, send, self._until_end())
            self.ended = self.ended or "returned"
        except asyncio.CancelledError:
            self.ended = "canceled"
            raise

    async def _until_end(self) -> AsyncGenerator[bytes]:
        try:
            while event := await self.events.get():
                yield event
        except asyncio.CancelledError:
            self.ended = "client gone"
            raise


async def settle(client: Client) -> None:
    for _ in range(5):
        await asyncio.sleep(0)
    client.loop.run_soon()


async def test_a_stream_ends_when_its_client_disconnects() -> None:
    stream = Stream()
    client = connect(stream)
    client.send(GET)
    await settle(client)
    client.wire.close()
    client.loop.run_soon()
    await client.answered()
    assert stream.ended == "client gone" and not client.tasks


async def test_a_stream_whose_client_has_gone_before_it_begins_ends_at_once() -> None:
    stream, go = Stream(), asyncio.Event()

    async def stream_later(receive: Receive, send: Send) -> None:
        await go.wait()
        await stream(receive, send)

    client = connect(stream_later)
    client.send(GET)
    await settle(client)
    client.wire.close()
    client.loop.run_soon()
    go.set()
    await settle(client)
    await client.answered()
    assert stream.ended == "client gone"


# attack PRO-08
async def test_a_stream_before_a_waiting_request_is_kept_alive_and_ends_with_its_client() -> None:
    stream = Stream()
    client = connect(stream)
    client.send(GET + GET)
    await settle(client)
    client.loop.pass_time(60)
    assert KEEPALIVE_COMMENT in client.wire.sent  # without it nothing would notice that the client has gone: reading is paused
    client.wire.close()
    client.loop.run_soon()
    await settle(client)
    assert stream.ended == "client gone" and not client.tasks


async def test_a_client_that_leaves_after_the_last_event_cancels_nothing() -> None:
    stream = Stream()
    client = connect(stream)
    client.send(GET)
    stream.events.put_nowait(b"")
    await client.answered()
    client.wire.close()
    client.loop.run_soon()
    assert stream.ended == "returned"


async def test_a_quiet_stream_gets_a_comment_every_quarter_of_a_minute_or_so() -> None:
    stream = Stream()
    client = connect(stream)
    client.send(GET)
    await settle(client)
    for _ in range(30):
        stream.events.put_nowait(b"data: 1\n\n")
        await settle(client)
        client.loop.pass_time(4)
    assert KEEPALIVE_COMMENT not in client.wire.sent
    client.loop.pass_time(100)
    assert 4 <= client.wire.sent.count(KEEPALIVE_COMMENT) <= 6
    assert client.wire.sent.count(b"%x\r\n%b\r\n" % (len(KEEPALIVE_COMMENT), KEEPALIVE_COMMENT)) >= 4
    sent = len(client.wire.sent)
    client.protocol.pause_writing()
    client.loop.pass_time(29)
    assert len(client.wire.sent) == sent


async def test_an_answer_that_takes_long_gets_no_comment() -> None:
    async def wait(_receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await asyncio.Event().wait()

    client = connect(wait)
    client.send(GET)
    await settle(client)
    client.loop.pass_time(60)
    assert client.wire.sent.endswith(b"\r\n\r\n")
    client.wire.close()
