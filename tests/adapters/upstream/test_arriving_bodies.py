"""Responses that are read while they arrive: their connections are kept where the body ends, and a slow reader stops its server."""

import asyncio
import gzip
from collections.abc import Callable

import pytest
from yarl import URL

from adapters.upstream.http1.connection import DECOMPRESSED_MAX, LARGE_READ, Http1Connection, HttpTarget
from adapters.upstream.http1.pool import ConnectionPool
from adapters.upstream.http1.responses import PIECE_MAX, WAITING_MAX, ArrivingBody, ConnectionDropped, OpenedResponse, ResponseTooLarge
from tests.adapters.upstream.test_http1 import pooled, saying
from tests.fakes.upstream import Upstream, answer
from tests.fakes.waiting import SECONDS, until

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunked(compressed: bytes) -> bytes:
    """A response in chunks of which each becomes much, but less than is allowed."""
    chunks = [b"%x\r\n%b\r\n" % (len(piece), piece) for piece in (compressed[at : at + 4096] for at in range(0, len(compressed), 4096))]
    return CHUNKED[:-2] + b"Content-Encoding: gzip\r\n\r\n" + b"".join(chunks) + b"0\r\n\r\n"


async def opened(pool: ConnectionPool, upstream: Upstream, seconds: float = 60.0) -> OpenedResponse:
    return await pool.open(HttpTarget.from_url(URL(upstream.url)), "POST", {}, b"{}", seconds=seconds)


async def read_all(response: OpenedResponse) -> bytes:
    body = b""
    while piece := await response.body.read():
        body += piece
    return body


async def test_pieces_are_read_while_more_are_to_come() -> None:
    may_go_on = asyncio.Event()

    async def dripping(_head: bytes, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(CHUNKED + b"3\r\none\r\n")
        await may_go_on.wait()
        writer.write(b"3\r\ntwo\r\n0\r\n\r\n")

    async with pooled() as pool, Upstream(dripping) as upstream:
        response = await opened(pool, upstream)
        assert (response.status, await response.body.read()) == (200, b"one")
        may_go_on.set()
        assert await read_all(response) == b"two"
        response.close(False)


@pytest.mark.parametrize(
    "raw", [answer(b"hello"), answer(b""), answer(gzip.compress(b"hello", mtime=0), "200 OK", "Content-Encoding: gzip")]
)
async def test_the_connection_of_a_body_that_was_read_is_used_again(raw: bytes) -> None:
    async with pooled() as pool, Upstream(saying(raw)) as upstream:
        for _ in range(3):
            response = await opened(pool, upstream)
            await read_all(response)
            response.close(False)
        assert upstream.connections == 1


async def test_the_connection_of_a_large_body_that_nothing_read_is_used_again() -> None:
    async with pooled() as pool, Upstream(saying(answer(b"x" * (WAITING_MAX + 1)))) as upstream:
        response = await opened(pool, upstream)
        await until(lambda: response.body.is_complete)
        response.close(False)
        response = await opened(pool, upstream, seconds=5.0)
        assert len(await read_all(response)) == WAITING_MAX + 1
        response.close(False)
        assert upstream.connections == 1


async def test_an_empty_body_may_name_a_compression() -> None:
    async with pooled() as pool, Upstream(saying(answer(b"", "401 Unauthorized", "Content-Encoding: gzip"))) as upstream:
        response = await opened(pool, upstream)
        assert (response.status, await read_all(response)) == (401, b"")
        response.close(False)


@pytest.mark.parametrize("is_swept", [False, True])
async def test_a_body_may_end_shortly_after_its_reader_has_left(is_swept: bool) -> None:
    may_end = asyncio.Event()

    async def ending_late(_head: bytes, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(CHUNKED + b"3\r\none\r\n")
        await may_end.wait()
        writer.write(b"0\r\n\r\n")

    async with pooled(size=1) as pool, Upstream(ending_late) as upstream:
        response = await opened(pool, upstream)
        assert await response.body.read() == b"one"
        response.close(True)
        if is_swept:
            pool._sweep(asyncio.get_running_loop())
        may_end.set()
        await until(lambda: response.body.is_complete)
        await asyncio.sleep(0)  # the connection is kept right after
        (await opened(pool, upstream)).close(True)
        assert upstream.connections == 1


@pytest.mark.parametrize("waits_for_end", [False, True])
async def test_a_body_that_goes_on_without_a_reader_is_cut(waits_for_end: bool) -> None:
    is_cut = asyncio.Event()

    async def endless(_head: bytes, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(CHUNKED)
        try:
            while True:
                writer.write(b"400\r\n" + b"x" * 1024 + b"\r\n")
                await writer.drain()
        except ConnectionError:
            is_cut.set()
            raise

    async with pooled() as pool, Upstream(endless) as upstream:
        response = await opened(pool, upstream)
        assert await response.body.read()
        response.close(waits_for_end)
        await is_cut.wait()


class PausableTransport(asyncio.Transport):
    """Notes whether it reads."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = True
        self.closed = False

    def write(self, data: object) -> None:
        pass

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        self.reads = False

    def resume_reading(self) -> None:
        self.reads = True


async def test_a_slow_reader_stops_its_connection() -> None:
    transport = PausableTransport()
    body = ArrivingBody(transport)
    body.feed(b"x" * WAITING_MAX)
    assert transport.reads
    body.feed(b"x")
    assert not transport.reads
    assert len(await body.read()) == WAITING_MAX + 1 and transport.reads


# attack AVL-02
async def test_others_run_between_the_pieces_of_a_large_body() -> None:
    transport = PausableTransport()
    body, sizes = ArrivingBody(transport), list[int]()
    for piece in (b"x" * (2 * PIECE_MAX + 1), b"y", b"z" * PIECE_MAX):
        body.feed(piece)
    body.end()

    async def read() -> None:
        while piece := await body.read():
            sizes.append(len(piece))

    reading = asyncio.create_task(read())
    turns = 0
    while not reading.done():
        turns += 1
        await asyncio.sleep(0)
    assert sizes == [PIECE_MAX, PIECE_MAX, 2, PIECE_MAX] and turns >= len(sizes)
    assert transport.reads and body.is_read


@pytest.mark.parametrize("is_closed", [False, True])
async def test_others_have_their_turn_between_the_large_reads_of_a_response(is_closed: bool) -> None:  # attack AVL-02
    loop, wire = asyncio.get_running_loop(), PausableTransport()
    connection = Http1Connection(loop)
    connection.connection_made(wire)
    found = connection.send(b"GET / HTTP/1.1\r\n\r\n", None, loop.time() + 60, 1 << 20)
    connection.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % LARGE_READ)
    assert wire.reads
    connection.data_received(b"x" * LARGE_READ)
    assert not wire.reads and len((await found).body) == LARGE_READ
    wire.closed = is_closed
    await asyncio.sleep(0)
    assert wire.reads is not is_closed


async def test_what_arrives_during_a_pause_is_read_in_one_piece() -> None:
    transport = PausableTransport()
    body, loop = ArrivingBody(transport), asyncio.get_running_loop()
    body.pause_until(loop.time() + SECONDS)
    assert not transport.reads
    body.feed(b"two, ")
    assert await body.read() == b"two, " and transport.reads  # what has come already need not wait
    body.pause_until(loop.time())
    assert not transport.reads
    await until(lambda: transport.reads)


async def test_a_connection_whose_body_has_ended_is_not_paused() -> None:
    transport = PausableTransport()
    body, later = ArrivingBody(transport), asyncio.get_running_loop().time() + SECONDS
    body.pause_until(later)
    body.end()
    assert transport.reads
    body.pause_until(later)
    assert transport.reads and await body.read() == b""


@pytest.mark.parametrize(
    ("raw", "error"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhel", ConnectionDropped),
        (CHUNKED + b"3\r\nhel\r\n", ConnectionDropped),
        (CHUNKED + b"nonsense\r\n", ValueError),
        (answer(gzip.compress(b"hello", mtime=0)[:-9], "200 OK", "Content-Encoding: gzip"), ValueError),
        (answer(gzip.compress(b"x" * (2 * DECOMPRESSED_MAX), mtime=0), "200 OK", "Content-Encoding: gzip"), ResponseTooLarge),
        (chunked(gzip.compress(b"x" * (2 * DECOMPRESSED_MAX), mtime=0)), ResponseTooLarge),
        (answer(gzip.compress(b"hello", mtime=0) + b"more", "200 OK", "Content-Encoding: gzip"), ValueError),
    ],
    ids=["cut", "cut-chunked", "not-chunked", "cut-gzip", "bomb", "bomb-in-pieces", "behind-gzip"],
)
async def test_a_body_that_ends_badly_says_so_to_its_reader(raw: bytes, error: type[Exception]) -> None:
    async with pooled() as pool, Upstream(saying(raw, then_close=True)) as upstream:
        response = await opened(pool, upstream)
        with pytest.raises(error):
            await read_all(response)
        response.close(True)


async def test_a_body_without_a_length_ends_with_its_connection() -> None:
    async with pooled() as pool, Upstream(saying(b"HTTP/1.1 200 OK\r\n\r\nhello", then_close=True)) as upstream:
        response = await opened(pool, upstream)
        assert await read_all(response) == b"hello"
        response.close(False)


async def silent(_head: bytes, _reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize("begin", [b"", CHUNKED])
async def test_the_time_of_a_response_covers_its_head_and_its_body(begin: bytes) -> None:
    async def stalling(head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(begin)
        await silent(head, reader, writer)

    async with pooled() as pool, Upstream(stalling) as upstream:
        with pytest.raises(TimeoutError):
            await read_all(await opened(pool, upstream, seconds=0.05))


async def test_a_caller_that_leaves_before_the_head_gives_its_place_back() -> None:
    async with pooled(size=1) as pool, Upstream(silent) as upstream:
        for _ in range(2):
            waiting = asyncio.create_task(opened(pool, upstream))
            await until(_has_requests(upstream, 1))
            upstream.requests.clear()
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting


def _has_requests(upstream: Upstream, count: int) -> Callable[[], bool]:
    return lambda: len(upstream.requests) >= count
