"""Responses that are opened only where they are event streams: any other one is read whole."""

import asyncio

import pytest
from yarl import URL

from adapters.upstream.egress import EVENT_STREAM
from adapters.upstream.http1.connection import HttpTarget
from adapters.upstream.http1.pool import ConnectionPool
from adapters.upstream.http1.responses import HttpResponse, OpenedResponse, ResponseTooLarge
from tests.adapters.upstream.test_http1 import LIMIT, pooled, saying
from tests.fakes.upstream import Upstream, answer

EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: Text/Event-Stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n"


async def ask(pool: ConnectionPool, upstream: Upstream, seconds: float = 60.0) -> HttpResponse | OpenedResponse:
    target = HttpTarget.from_url(URL(upstream.url))
    return await pool.exchange_or_open(target, "POST", {}, b"{}", EVENT_STREAM, seconds=seconds, limit=LIMIT)


async def test_a_response_of_another_type_is_read_whole_and_gives_its_place_back() -> None:
    async with pooled(size=1, per_host=1) as pool, Upstream(saying(answer(b"{}", "200 OK", "Content-Type: application/json"))) as upstream:
        for _ in range(3):
            response = await ask(pool, upstream, seconds=5.0)
            assert isinstance(response, HttpResponse) and response.body == b"{}"
        assert upstream.connections == 1


async def test_a_response_without_a_type_is_read_whole() -> None:
    async with pooled() as pool, Upstream(saying(answer(b"ok"))) as upstream:
        assert isinstance(await ask(pool, upstream), HttpResponse)


async def test_a_whole_response_has_a_limit_and_a_deadline() -> None:
    async with pooled() as pool, Upstream(saying(answer(b"x" * (LIMIT + 1)))) as upstream:
        with pytest.raises(ResponseTooLarge):
            await ask(pool, upstream)
    async with pooled() as pool, Upstream(saying(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")) as upstream:
        with pytest.raises(TimeoutError):
            await ask(pool, upstream, seconds=0.05)


async def test_an_event_stream_is_opened_and_has_no_deadline() -> None:
    late = asyncio.Event()

    async def streaming(_head: bytes, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(EVENTS + b"5\r\nfirst\r\n")
        await late.wait()
        writer.write(b"6\r\nsecond\r\n0\r\n\r\n")

    async with pooled() as pool, Upstream(streaming) as upstream:
        response = await ask(pool, upstream, seconds=0.1)
        assert isinstance(response, OpenedResponse) and await response.body.read() == b"first"
        reading = asyncio.create_task(response.body.read())
        await asyncio.wait([reading], timeout=0.3)  # what is not to happen has its time
        assert not reading.done()
        late.set()
        assert await reading == b"second"
        response.close(True)


async def test_an_event_stream_may_be_longer_than_a_whole_response() -> None:
    size = 4 * LIMIT
    async with pooled() as pool, Upstream(saying(EVENTS + b"%x\r\n%s\r\n0\r\n\r\n" % (size, b"x" * size))) as upstream:
        response = await ask(pool, upstream)
        assert isinstance(response, OpenedResponse)
        body = b""
        while piece := await response.body.read():
            body += piece
        response.close(True)
        assert len(body) == size
