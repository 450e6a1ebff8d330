"""What a client's connection may cost: time for headers and bodies, unread answers, size of headers, pipelining, number of connections."""

import asyncio
import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from structlog.testing import capture_logs

from gateway.ingress.http.asgi import SECURITY_HEADERS, BodyIncomplete, read_body, respond
from gateway.server.sockets.client_limits import BODY_RATE, HEADERS_MAX, PIPELINED_MAX, READ_RATE, ClientLimits, Connections, UnreadTimer
from tests.fakes.sockets import Client, FakeLoop

LIMITS = ClientLimits(header_seconds=10, body_seconds=20, idle_seconds=40, send_seconds=30, connections=3)
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
Connect = Callable[[], Client]


class Echo:
    """Answers with the body. Requests to /hang are answered when `go` is set."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.cut = 0
        self.headers: list[tuple[bytes, bytes]] = []  # of the last request

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.headers = scope["headers"]
        if scope["path"] == "/hang":
            await self.go.wait()
        try:
            body = b"" if scope["path"] == "/early" else await read_body(scope, receive, 1 << 20)
        except BodyIncomplete:
            self.cut += 1
            return
        await respond(send, 200, body)


@pytest.fixture
async def app() -> Echo:
    return Echo()


@pytest.fixture
def dropped() -> list[str]:
    return []


@pytest.fixture
def connect(app: Echo, dropped: list[str]) -> Connect:
    loop, connections = FakeLoop(), Connections(LIMITS, dropped.append)
    return lambda: Client(app, connections, loop)


def post(path: str, length: int) -> bytes:
    return b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (path.encode(), length)


def reason(client: Client) -> Any:
    return json.loads(client.wire.sent.rpartition(b"\r\n\r\n")[2])["reason_id"]


# attack AVL-04
def test_a_client_that_sends_nothing_is_closed_without_an_answer(connect: Connect, dropped: list[str]) -> None:
    client = connect()
    client.loop.pass_time(9)
    assert not client.wire.closed
    client.loop.pass_time(4)
    assert (client.wire.closed, client.wire.sent, dropped) == ("closed", b"", ["nothing-sent"])


# attack AVL-04
def test_headers_that_trickle_are_answered_408(connect: Connect, dropped: list[str]) -> None:
    client = connect()
    for byte in b"GET / HTTP/1.1\r\nHost: x\r\nX-Long: aaaaaaaaaaaaaa":
        client.send(bytes([byte]))
        client.loop.pass_time(0.3)
    assert (client.status, client.wire.closed, dropped) == (408, "closed", ["request-timeout"])
    assert reason(client) == "request-timeout"


def test_a_request_that_was_not_read_has_a_trace_id_by_which_the_log_has_the_reason(connect: Connect) -> None:
    cases = {
        "headers-too-large": b"GET / HTTP/1.1\r\nHost: x\r\nX-Long: " + b"a" * 40_000 + b"\r\n\r\n",
        "invalid-request": b"GET / HTTP/9\r\n\r\n",
    }
    for expected, request in cases.items():
        with capture_logs() as lines:
            client = connect()
            client.send(request)
        told = json.loads(client.wire.sent.rpartition(b"\r\n\r\n")[2])
        (line,) = [line for line in lines if line["event"] == "request_refused"]
        assert (told["reason_id"], line["reason"], line["trace_id"]) == (expected, expected, told["trace_id"])
        assert re.fullmatch(r"[0-9a-f]{32}", told["trace_id"]) and line["detail"] == told["detail"]


@pytest.mark.parametrize(
    "start", [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"], ids=["HTTP/2", "TLS"]
)
def test_another_protocol_is_told_that_it_needs_a_proxy(connect: Connect, start: bytes) -> None:
    client = connect()
    client.send(start)
    assert (client.status, reason(client)) == (400, "invalid-request")
    assert b"TLS and HTTP/2 need a proxy in front" in client.wire.sent


def test_a_request_that_was_not_read_is_answered_with_the_headers_of_every_answer(connect: Connect) -> None:
    client = connect()
    client.send(b"GET / HTTP/9\r\n\r\n")
    assert all(part in client.wire.sent for part in (b"\r\ndate: ", *(b"\r\n%b: %b\r\n" % line for line in SECURITY_HEADERS)))


# attack AVL-04
async def test_a_body_that_trickles_is_answered_408_and_never_read_as_whole(connect: Connect, app: Echo) -> None:
    client = connect()
    client.send(post("/", 100) + b"{}")
    for _ in range(26):
        client.send(b" ")
        client.loop.pass_time(1)
    await client.answered()
    assert (client.status, client.wire.closed, app.cut) == (408, "closed", 1)


async def test_a_large_body_has_time_as_it_comes(connect: Connect, app: Echo) -> None:
    client = connect()
    size = 40 * BODY_RATE
    client.send(post("/", size))
    for _ in range(40):
        client.send(b"x" * BODY_RATE)
        await asyncio.sleep(0)
        client.loop.pass_time(1)
    await client.answered()
    assert (client.status, client.wire.closed) == (200, "")


async def test_the_time_of_the_gateway_is_not_the_clients(connect: Connect, app: Echo) -> None:
    client = connect()
    client.send(GET.replace(b"/ ", b"/hang ", 1))
    client.loop.pass_time(1000)
    assert not client.wire.closed
    app.go.set()
    await client.answered()
    assert client.status == 200


async def test_a_body_that_the_gateway_does_not_read_costs_the_client_no_time(connect: Connect, app: Echo) -> None:
    client = connect()
    client.send(post("/hang", 200_000) + b"x" * 100_000)
    assert client.wire.paused
    client.loop.pass_time(1000)
    assert not client.wire.closed
    app.go.set()
    client.send(b"x" * 100_000)
    await client.answered()
    assert client.status == 200


# attack AVL-04
async def test_the_rest_of_a_body_that_is_answered_already_gets_no_more_time(connect: Connect, dropped: list[str]) -> None:
    client = connect()
    client.send(post("/early", 10_000_000))
    await client.answered()
    assert client.status == 200
    for _ in range(25):
        client.send(b"x" * BODY_RATE)
        client.loop.pass_time(1)
    assert (client.wire.closed, dropped) == ("closed", ["request-timeout"])


# attack AVL-04
async def test_an_idle_connection_is_closed_even_if_it_sends_empty_lines(connect: Connect, dropped: list[str]) -> None:
    client = connect()
    client.send(GET)
    await client.answered()
    for _ in range(45):
        client.send(b"\r\n")
        client.loop.pass_time(1)
    assert (client.wire.closed, dropped) == ("closed", ["idle"])


# attack AVL-04
async def test_a_client_that_does_not_read_is_cut(connect: Connect, dropped: list[str]) -> None:
    client = connect()
    client.send(GET.replace(b"/ ", b"/hang ", 1))
    client.wire.waiting = 70_000
    client.loop.pass_time(29)
    assert not client.wire.closed
    client.loop.pass_time(10)
    assert (client.wire.closed, dropped) == ("aborted", ["not-read"])


# attack AVL-04
async def test_a_closed_connection_whose_last_bytes_are_not_read_is_cut(connect: Connect) -> None:
    client = connect()
    client.send(GET)
    await client.answered()
    client.wire.waiting = 10
    client.wire.close()
    client.loop.pass_time(40)
    assert client.wire.closed == "aborted"


def test_a_slow_reader_is_no_stalled_one() -> None:
    unread, size = UnreadTimer(30), 100 * 30 * READ_RATE
    for second in range(0, 3000, 10):
        assert not unread.is_overdue(10**9, size, second)
        size -= 10 * READ_RATE


def test_a_reader_that_takes_a_byte_now_and_then_is_overdue() -> None:
    unread = UnreadTimer(30)
    assert any(unread.is_overdue(10**9, 10_000_000 - second, second) for second in range(0, 60, 5))


def test_a_stream_reader_that_keeps_emptying_the_buffer_is_not_timed_out() -> None:
    unread = UnreadTimer(30)
    for second in range(0, 3000, 5):
        assert not unread.is_overdue(10_000 * second, 50_000 if second % 10 else 0, second)


async def test_a_reader_whose_buffer_is_filled_again_while_it_reads_is_not_cut(connect: Connect) -> None:
    client = connect()
    client.send(GET.replace(b"/ ", b"/hang ", 1))
    client.wire.waiting = 60_000
    for _ in range(300):
        client.protocol.write(b"x" * 10_000)  # which it reads: as much waits as before
        client.loop.pass_time(1)
    assert not client.wire.closed


# attack AVL-04
async def test_a_reader_that_takes_a_little_whenever_the_buffer_is_full_is_cut(connect: Connect, dropped: list[str]) -> None:
    client = connect()
    client.send(GET.replace(b"/ ", b"/hang ", 1))
    client.wire.waiting = 64 << 10
    for _ in range(10):
        client.protocol.pause_writing()
        client.loop.pass_time(29)
        client.protocol.resume_writing()  # it took three quarters of what waited, and the next events are there
        client.protocol.write(b"x" * (48 << 10))
    assert (client.wire.closed, dropped) == ("aborted", ["not-read"])


@pytest.mark.parametrize("chunk", [100, 1_000_000], ids=["piece by piece", "at once"])
@pytest.mark.parametrize("end", [b"", b"\r\n\r\n"], ids=["without an end", "with an end"])
def test_headers_that_are_too_large_are_answered_431(connect: Connect, chunk: int, end: bytes) -> None:  # attack AVL-04
    client = connect()
    request = b"GET / HTTP/1.1\r\nHost: x\r\nX-Long: " + b"a" * 40_000 + end
    for start in range(0, len(request), chunk):
        client.send(request[start : start + chunk])
    assert (client.status, client.wire.closed, reason(client)) == (431, "closed", "headers-too-large")
    assert not client.tasks


def test_too_many_headers_are_answered_431(connect: Connect) -> None:  # attack AVL-04
    client = connect()
    client.send(b"GET / HTTP/1.1\r\nHost: x\r\n" + b"a: b\r\n" * HEADERS_MAX + b"\r\n")
    assert (client.status, client.wire.closed) == (431, "closed")


# attack AVL-04
async def test_too_many_headers_behind_an_offered_protocol_are_no_error_of_the_gateway(connect: Connect) -> None:
    client = connect()
    with capture_logs() as logs:
        offer = b"Connection: upgrade\r\nUpgrade: h2c\r\n"
        client.send(b"GET / HTTP/1.1\r\n" + offer + b"\r\n")
        await client.answered()
        client.send(b"GET / HTTP/1.1\r\n" + offer + b"\r\n" + b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * (HEADERS_MAX + 1) + b"\r\n")
    assert client.wire.closed and not any(line["log_level"] == "error" for line in logs)


CHUNKED = b"POST %s HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n"


async def test_a_trailer_is_no_header_of_the_request(connect: Connect, app: Echo) -> None:  # RFC 9110 s6.5.1
    client = connect()
    client.send(CHUNKED % b"/hang" + b"0\r\n")
    client.send(b"Authorization: Bearer trailer\r\nHost: other\r\n\r\n")
    app.go.set()
    await client.answered()
    assert app.headers == [(b"host", b"x"), (b"transfer-encoding", b"chunked")]
    client.send(GET)
    await client.answered()
    assert client.wire.sent.count(b"HTTP/1.1 200") == 2 and not client.wire.closed


ENDLESS = {
    "trailers": (b"0\r\n", b"a: b\r\n" * 100),
    "one trailer": (b"0\r\na: ", b"b" * 600),
    "a chunk's extension": (b"2;a=", b"b" * 600),
}


# attack AVL-04
@pytest.mark.parametrize(("start", "more"), ENDLESS.values(), ids=ENDLESS.keys())
async def test_trailers_without_end_are_answered_431(connect: Connect, app: Echo, start: bytes, more: bytes) -> None:
    client = connect()
    client.send(CHUNKED % b"/" + start)
    for _ in range(LIMITS.header_bytes // len(more) + 2):
        client.send(more)
    assert (client.status, client.wire.closed, reason(client)) == (431, "closed", "headers-too-large")
    await client.answered()
    assert (app.cut, len(app.headers)) == (1, 2)


# attack AVL-04
async def test_trailers_without_end_after_the_answer_close_the_connection(connect: Connect, dropped: list[str]) -> None:
    client = connect()
    client.send(CHUNKED % b"/early")
    await client.answered()
    client.send(b"0\r\n" + b"a: b\r\n" * 6000)
    client.send(b"a: b\r\n")
    assert (client.wire.closed, dropped, client.wire.sent.count(b"HTTP/1.1")) == ("closed", ["headers-too-large"], 1)


async def test_a_body_in_small_chunks_may_be_large(connect: Connect) -> None:
    client = connect()
    client.send(CHUNKED % b"/")
    for _ in range(LIMITS.header_bytes):
        client.send(b"1\r\nx\r\n")
    client.send(b"0\r\n\r\n")
    await client.answered()
    assert client.status == 200 and client.wire.sent.endswith(b"x" * LIMITS.header_bytes)


# attack AVL-04
@pytest.mark.parametrize("pieces", [1, 2])
async def test_headers_that_are_too_large_behind_another_request_are_refused(connect: Connect, dropped: list[str], pieces: int) -> None:
    client, request = connect(), b"GET / HTTP/1.1\r\nHost: x\r\nX-Long: " + b"a" * 40_000
    client.send(GET + request + (b"\r\n\r\n" if pieces == 1 else b""))
    client.send(b"\r\n\r\n")
    assert (client.wire.closed, dropped, client.wire.sent.count(b"HTTP/1.1 200")) == ("closed", ["headers-too-large"], 0)


async def test_a_body_is_no_part_of_the_headers(connect: Connect) -> None:
    client = connect()
    for _ in range(3):
        client.send(post("/", 60_000) + b"x" * 60_000)
        await client.answered()
        assert client.status == 200
    client.send(post("/", 60_000) + b"x" * 60_000 + b"GET / HT")
    await client.answered()
    client.send(b"TP/1.1\r\nHost: x\r\n\r\n")
    await client.answered()
    assert client.wire.sent.count(b"HTTP/1.1 200") == 5 and not client.wire.closed


async def test_requests_in_a_row_are_bounded(connect: Connect, dropped: list[str]) -> None:  # attack AVL-04
    client = connect()
    client.send(GET.replace(b"/ ", b"/hang ", 1) + GET * PIPELINED_MAX)
    assert not client.wire.closed
    client.send(GET * 1000)
    assert (client.wire.closed, dropped, client.wire.sent) == ("closed", ["pipelined"], b"")


async def test_a_few_requests_in_a_row_are_answered_in_order(connect: Connect) -> None:
    client = connect()
    client.send(post("/", 1) + b"1" + post("/", 1) + b"2" + post("/", 1) + b"3")
    while client.tasks:
        await client.answered()
    assert [answer[-1:] for answer in client.wire.sent.split(b"HTTP/1.1 ")[1:]] == [b"1", b"2", b"3"]
    client.loop.pass_time(39)
    assert not client.wire.closed


async def test_the_connection_that_waited_longest_makes_room(connect: Connect, dropped: list[str]) -> None:  # attack AVL-04
    first, second, third, fourth = (connect() for _ in range(4))
    assert [bool(each.wire.closed) for each in (first, second, third, fourth)] == [True, False, False, False]
    assert dropped == ["connections-full"]
    second.send(GET)
    connect()
    assert [bool(each.wire.closed) for each in (second, third, fourth)] == [False, True, False]


async def test_without_room_requests_are_refused_and_health_is_answered(connect: Connect, app: Echo) -> None:  # attack AVL-04
    busy = [connect() for _ in range(3)]
    for client in busy:
        client.send(GET.replace(b"/ ", b"/hang ", 1))
    silent, late = connect(), connect()
    assert silent.wire.closed == "closed"  # it had sent nothing when the next one came
    late.send(GET)
    await late.answered()
    assert (late.status, late.wire.closed, reason(late)) == (503, "closed", "overloaded")
    assert b"retry-after: 1\r\n" in late.wire.sent
    probe = connect()
    probe.send(GET.replace(b"/ ", b"/livez?x ", 1))
    app.go.set()
    await probe.answered()
    assert [client.status for client in (probe, *busy)] == [200] * 4


def test_a_closed_connection_makes_room(connect: Connect, dropped: list[str]) -> None:
    for _ in range(10):
        client = connect()
        client.wire.close()
        client.loop.run_soon()
    assert dropped == []
    assert not [timer for timer in client.loop.timers if timer.live]
