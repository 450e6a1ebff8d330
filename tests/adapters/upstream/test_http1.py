"""The client for whole answers against servers that send whatever they like, byte by byte."""

import asyncio
import gzip
import ssl
import zlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from yarl import URL

from adapters.upstream.http1.connection import FIELDS_MAX, INFORMATIONAL_MAX, HttpTarget
from adapters.upstream.http1.pool import ConnectionPool, ConnectOptions, RequestSlots
from adapters.upstream.http1.responses import ConnectionDropped, HttpResponse, NotConnected, ResponseTooLarge
from tests.adapters.a2a_client.test_grpc_channels import certificate
from tests.fakes.upstream import Handler, Upstream, answer
from tests.fakes.waiting import until

LIMIT = 1000


async def _addresses(host: str, _port: int) -> Sequence[str]:
    return {"two.test": ["127.0.0.9", "127.0.0.1"]}.get(host, [host])


@asynccontextmanager
async def pooled(size: int = 10, idle: float = 5.0, per_host: int = 10) -> AsyncIterator[ConnectionPool]:
    pool = ConnectionPool(ConnectOptions(_addresses, ssl.create_default_context, 60.0, idle), size, per_host)
    yield pool
    await pool.close()


def saying(raw: bytes, then_close: bool = False) -> Handler:
    async def handler(_head: bytes, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(raw)
        if then_close:
            await writer.drain()
            writer.close()

    return handler


async def ask(pool: ConnectionPool, upstream: Upstream, seconds: float = 60.0, **given: object) -> HttpResponse:
    target = HttpTarget.from_url(URL(f"{upstream.url}/a%20b?c=d"))
    return await pool.exchange(target, str(given.get("method", "POST")), {"X-Mine": "1"}, b"{}", seconds=seconds, limit=LIMIT)


async def test_a_request_says_where_it_goes_and_how_long_it_is() -> None:
    async with pooled() as pool, Upstream(saying(answer(b"ok"))) as upstream:
        await ask(pool, upstream)
        await pool.exchange(HttpTarget.from_url(URL(upstream.url)), "GET", {}, None, seconds=60.0, limit=LIMIT)
        await pool.exchange(HttpTarget.from_url(URL(upstream.url)), "POST", {}, None, seconds=60.0, limit=LIMIT)
    first, get, empty = (request.split(b"\r\n") for request in upstream.requests)
    assert first[0] == b"POST /a%20b?c=d HTTP/1.1"
    assert f"Host: 127.0.0.1:{upstream.port}".encode() in first and b"Content-Length: 2" in first and b"X-Mine: 1" in first
    assert get[0] == b"GET / HTTP/1.1" and not any(line.startswith(b"Content-Length") for line in get)
    assert b"Content-Length: 0" in empty


async def test_configured_fields_take_the_place_of_the_clients_own() -> None:
    given = {"user-agent": "Ours/1", "Host": "virtual.test", "X-Mine": "1", "Content-Length": "99", "Transfer-Encoding": "chunked"}
    async with pooled() as pool, Upstream(saying(answer(b"ok"))) as upstream:
        target = HttpTarget.from_url(URL(upstream.url))
        await pool.exchange(target, "POST", given, b"{}", seconds=60.0, limit=LIMIT)
        await pool.exchange(target, "GET", {"HOST": "virtual.test"}, None, seconds=60.0, limit=LIMIT)
    post, get = (request.partition(b"\r\n\r\n")[0].split(b"\r\n")[1:] for request in upstream.requests)
    own = [b"Accept-Encoding: gzip, deflate", b"Content-Length: 2"]
    assert sorted(post) == sorted([*own, b"user-agent: Ours/1", b"Host: virtual.test", b"X-Mine: 1"])
    assert sorted(get) == sorted([b"Accept-Encoding: gzip, deflate", b"User-Agent: interlock", b"HOST: virtual.test"])


@pytest.mark.parametrize(
    ("raw", "body"),
    [
        (answer(b"hello"), b"hello"),
        (answer(b""), b""),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\nTrailer: t\r\n\r\n", b"hello"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + answer(b"hello"), b"hello"),
        (b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + answer(b"hello"), b"hello"),
        (answer(gzip.compress(b"hello", mtime=0), "200 OK", "Content-Encoding: gzip"), b"hello"),
        (answer(zlib.compress(b"hello"), "200 OK", "Content-Encoding: deflate"), b"hello"),
        (answer(b"hello", "200 OK", "Content-Encoding: identity"), b"hello"),
    ],
)
@pytest.mark.parametrize("piecemeal", [False, True])
async def test_an_answer_is_read_however_it_is_framed_and_its_connection_is_used_again(raw: bytes, body: bytes, piecemeal: bool) -> None:
    async def handler(_head: bytes, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for piece in [raw[at : at + 1] for at in range(len(raw))] if piecemeal else [raw]:
            writer.write(piece)
            await asyncio.sleep(0)

    async with pooled() as pool, Upstream(handler) as upstream:
        assert [(await ask(pool, upstream)).body for _ in range(3)] == [body] * 3
        assert upstream.connections == 1


async def test_an_answer_without_a_length_ends_with_its_connection() -> None:
    async with pooled() as pool, Upstream(saying(b"HTTP/1.1 200 OK\r\n\r\nhello", then_close=True)) as upstream:
        assert [(await ask(pool, upstream)).body for _ in range(2)] == [b"hello"] * 2
        assert upstream.connections == 2


async def test_headers_are_read_in_lower_case_and_twice_is_a_list() -> None:
    async with pooled() as pool, Upstream(saying(answer(b"", "200 OK", "X-A: 1", "x-a: 2", "Retry-After: 7"))) as upstream:
        headers = (await ask(pool, upstream)).headers
    assert (headers["x-a"], headers["retry-after"]) == ("1, 2", "7")


@pytest.mark.parametrize(
    ("raw", "error"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhel", ValueError),  # broke off
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n", ValueError),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", ValueError),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok", ValueError),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", ValueError),
        (answer(b"x", "200 OK", "Content-Encoding: br"), ValueError),
        (answer(b"no gzip", "200 OK", "Content-Encoding: gzip"), ValueError),
        (answer(gzip.compress(b"hello", mtime=0)[:-9], "200 OK", "Content-Encoding: gzip"), ValueError),
        (answer(b"", "200 OK", "X-Ü: 1"), ValueError),
        (answer(b"x" * (LIMIT + 1)), ResponseTooLarge),
        (answer(gzip.compress(b"x" * 100_000, mtime=0), "200 OK", "Content-Encoding: gzip"), ResponseTooLarge),
        (answer(b"", "200 OK", *(f"X-{number}: {'v' * 1000}" for number in range(70))), ResponseTooLarge),
        (answer(b"", "200 OK", *["X:"] * (FIELDS_MAX + 1)), ResponseTooLarge),  # joining them all would take quadratic time
        (b"HTTP/1.1 103 Early Hints\r\n\r\n" * (INFORMATIONAL_MAX + 1) + answer(b"ok"), ValueError),
        (answer(gzip.compress(b"hello", mtime=0) + b"more", "200 OK", "Content-Encoding: gzip"), ValueError),  # zlib would keep it all
        (b"", ConnectionDropped),
        (b"SSH-2.0\r\n", ValueError),
    ],
)
async def test_what_is_no_answer_is_an_error_and_the_next_request_gets_another_connection(raw: bytes, error: type[Exception]) -> None:
    async with pooled() as pool, Upstream(saying(raw, then_close=True)) as upstream:
        for _ in range(2):
            with pytest.raises(error):
                await ask(pool, upstream)
        assert upstream.connections == 2


async def test_what_follows_an_answer_unasked_is_nobodys_answer() -> None:
    async with pooled() as pool, Upstream(saying(answer(b"mine") + answer(b"forged"))) as upstream:
        assert [(await ask(pool, upstream)).body for _ in range(3)] == [b"mine"] * 3
        assert upstream.connections == 3


async def test_what_comes_while_nothing_is_asked_ends_the_connection() -> None:
    late, sent = asyncio.Event(), asyncio.Event()

    async def handler(_head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer(b"mine"))
        await writer.drain()
        if not late.is_set():
            await late.wait()
            writer.write(answer(b"forged"))
            with suppress(ConnectionError):
                assert not await reader.read(1)  # the other side is gone
            sent.set()

    async with pooled() as pool, Upstream(handler) as upstream:
        assert (await ask(pool, upstream)).body == b"mine"
        late.set()
        await asyncio.wait_for(sent.wait(), 60)
        assert (await ask(pool, upstream)).body == b"mine"
        assert upstream.connections == 2


async def test_a_request_that_is_late_or_given_up_leaves_no_connection_behind() -> None:
    answered = asyncio.Event()

    async def handler(_head: bytes, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not answered.is_set():
            await answered.wait()
            return
        writer.write(answer(b"ok"))

    async with pooled(size=1) as pool, Upstream(handler) as upstream:
        with pytest.raises(TimeoutError):
            await ask(pool, upstream, seconds=0.05)
        heard = len(upstream.requests)
        given_up = asyncio.create_task(ask(pool, upstream))
        await until(lambda: len(upstream.requests) > heard)
        given_up.cancel()
        await asyncio.gather(given_up, return_exceptions=True)
        answered.set()
        before = upstream.connections
        assert (await ask(pool, upstream)).body == b"ok"
        assert upstream.connections > before


@pytest.mark.parametrize(("first", "second"), [(0.5, 0.7), (60.0, 0.05)])
async def test_each_request_of_a_connection_has_its_own_deadline(first: float, second: float) -> None:
    async def handler(_head: bytes, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(upstream.requests) == 1:
            writer.write(answer(b"ok"))

    async with pooled() as pool, Upstream(handler) as upstream:
        await ask(pool, upstream, seconds=first)
        began = asyncio.get_running_loop().time()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(ask(pool, upstream, seconds=second), 30)
        assert second <= asyncio.get_running_loop().time() - began < 30
        assert upstream.connections == 1


async def test_nothing_is_remembered_of_a_server_that_is_not_used_any_more() -> None:
    async with pooled(idle=0.05) as pool, Upstream(saying(answer(b"ok"))) as upstream:
        await ask(pool, upstream)
        with pytest.raises(NotConnected):
            await pool.exchange(HttpTarget.from_url(URL("http://127.0.0.1:1/")), "GET", {}, None, seconds=60.0, limit=LIMIT)
        assert len(pool._origins) == 2
        await until(lambda: not pool._origins)
        assert (await ask(pool, upstream)).body == b"ok"


async def test_a_server_with_a_request_under_way_is_not_forgotten() -> None:
    go_on = asyncio.Event()

    async def slow(_head: bytes, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await go_on.wait()
        writer.write(answer(b"ok"))

    async with pooled(per_host=1) as pool, Upstream(slow) as upstream:
        asking = [asyncio.create_task(ask(pool, upstream)) for _ in range(2)]
        await until(lambda: len(upstream.requests) == 1)
        pool._sweep(asyncio.get_running_loop())
        asking.append(asyncio.create_task(ask(pool, upstream)))
        go_on.set()
        assert [(await each).body for each in asking] == [b"ok"] * 3
        assert upstream.connections == 1


async def test_who_finds_no_free_place_waits_for_one_within_its_time() -> None:
    go, two = asyncio.Event(), asyncio.Event()

    async def handler(_head: bytes, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if upstream.connections == 2:
            two.set()
        await go.wait()
        writer.write(answer(b"ok"))

    async with pooled(size=2) as pool, Upstream(handler) as upstream:
        asking = [asyncio.create_task(ask(pool, upstream)) for _ in range(6)]
        await asyncio.wait_for(two.wait(), 60)
        with pytest.raises(TimeoutError):
            await ask(pool, upstream, seconds=0.05)
        go.set()
        assert [answer.body for answer in await asyncio.gather(*asking)] == [b"ok"] * 6
        assert upstream.connections == 2


async def test_a_host_that_is_slow_takes_no_place_from_another() -> None:
    async def silent(_head: bytes, _reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    async with pooled(size=3, per_host=2) as pool, Upstream(silent) as slow, Upstream(saying(answer(b"ok"))) as quick:
        waiting = [asyncio.create_task(ask(pool, slow)) for _ in range(5)]
        assert [(await ask(pool, quick)).body for _ in range(3)] == [b"ok"] * 3
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


async def test_who_waits_for_the_pool_holds_no_second_place_at_the_host() -> None:
    go, arrived = asyncio.Event(), asyncio.Event()

    async def held(_head: bytes, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        arrived.set()
        await go.wait()
        writer.write(answer(b"late"))

    async with pooled(size=1, per_host=2) as pool, Upstream(held) as slow, Upstream(saying(answer(b"ok"))) as quick:
        for _ in range(3):  # each time the request finds a place at its host, but none in the pool
            go.clear()
            arrived.clear()
            first = asyncio.create_task(ask(pool, slow))
            await asyncio.wait_for(arrived.wait(), 60)
            second = asyncio.create_task(ask(pool, quick, seconds=20.0))
            await asyncio.sleep(0)
            go.set()
            assert [(await first).body, (await second).body] == [b"late", b"ok"]


async def test_nobody_takes_a_place_before_those_who_wait_for_it() -> None:
    slots, plenty = RequestSlots(1), RequestSlots(9)
    for first, second in ((slots, plenty), (plenty, slots)):
        assert first.try_acquire_with(second) and not first.try_acquire_with(second)
        waiting = asyncio.create_task(slots.acquire())
        await asyncio.sleep(0)
        slots.release()
        assert not first.try_acquire_with(second)
        assert await waiting
        slots.release()
        assert first.try_acquire_with(second)
        slots.release()
    assert plenty.are_unused(5)


async def test_a_connection_that_idles_is_closed() -> None:
    ended = asyncio.Event()

    async def handler(_head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer(b"ok"))
        await writer.drain()
        await reader.read(1)
        ended.set()

    async with pooled(idle=0.05) as pool, Upstream(handler) as upstream:
        await ask(pool, upstream)
        await asyncio.wait_for(ended.wait(), 60)
        assert (await ask(pool, upstream)).body == b"ok"
        assert upstream.connections == 2


async def test_the_next_address_is_tried_when_the_first_does_not_answer() -> None:
    async with pooled() as pool, Upstream(saying(answer(b"ok"))) as upstream:
        target = HttpTarget.from_url(URL(f"http://two.test:{upstream.port}/"))
        assert (await pool.exchange(target, "GET", {}, None, seconds=60.0, limit=LIMIT)).body == b"ok"
    assert f"Host: two.test:{upstream.port}".encode() in upstream.requests[0]


@pytest.mark.parametrize("value", ["a\r\nY: b", "a\nY: b", "a\rb", "a\0b", "snow \u2603"])
async def test_a_header_that_no_line_can_hold_is_not_sent(value: str) -> None:  # attack SSR-04
    async with pooled() as pool, Upstream(saying(answer(b"ok"))) as upstream:
        with pytest.raises(ValueError):
            await pool.exchange(HttpTarget.from_url(URL(upstream.url)), "GET", {"X": value}, None, seconds=60.0, limit=LIMIT)
        assert upstream.requests == []


@pytest.mark.parametrize(
    ("host", "trusted", "reached"), [("agent.test", True, True), ("other.test", True, False), ("agent.test", False, False)]
)
async def test_a_server_must_prove_the_name_that_was_asked_for(tmp_path: Path, host: str, trusted: bool, reached: bool) -> None:
    pem, key = certificate("agent.test")
    (tmp_path / "cert.pem").write_bytes(pem + key)
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(tmp_path / "cert.pem")

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer(b"ok"))
        await writer.drain()
        writer.close()

    async def loopback(_host: str, _port: int) -> Sequence[str]:
        return ["127.0.0.1"]

    trusting = ssl.create_default_context(cadata=pem.decode() if trusted else None)
    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=serving)
    port = server.sockets[0].getsockname()[1]
    pool = ConnectionPool(ConnectOptions(loopback, lambda: trusting, 5.0, 5.0), 10, 10)
    asking = pool.exchange(HttpTarget.from_url(URL(f"https://{host}:{port}/")), "GET", {}, None, seconds=60.0, limit=LIMIT)
    try:
        if reached:
            assert (await asking).body == b"ok"
        else:
            with pytest.raises(NotConnected) as refused:
                await asking
            assert isinstance(refused.value.error, ssl.SSLCertVerificationError)
    finally:
        await pool.close()
        server.close()


@pytest.mark.parametrize("before", [b"X-Long: ", b"", b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nX-Long: "])
async def test_a_header_that_never_ends_is_not_waited_for(before: bytes) -> None:  # attack PRO-04
    sent = 0

    async def endless(_head: bytes, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\n" + before)
        with suppress(ConnectionError):
            while sent < 100 << 20:
                writer.write(b"a" * 65536)
                sent += 65536
                await writer.drain()

    async with pooled() as pool, Upstream(endless) as upstream:
        with pytest.raises(ResponseTooLarge):
            await ask(pool, upstream)
    assert sent < 20 << 20


@pytest.mark.parametrize("fields", [b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"Content-Encoding: br\r\n", b""])
async def test_an_answer_to_head_has_no_body(fields: bytes) -> None:
    async with pooled() as pool, Upstream(saying(b"HTTP/1.1 200 OK\r\nX-It: is\r\n" + fields + b"\r\n")) as upstream:
        for _ in range(2):
            found = await ask(pool, upstream, method="HEAD")
            assert (found.status, found.headers["x-it"], found.body) == (200, "is", b"")
