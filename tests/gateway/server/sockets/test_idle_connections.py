"""A connection between two requests keeps no parser, which is a quarter of its memory, and reads the next request as it read the first."""

import asyncio
import gc
from typing import Any

import httptools
import pytest

from gateway.ingress.http.asgi import read_body, respond
from gateway.server.sockets.client_limits import Connections
from tests.fakes.sockets import Client, FakeLoop

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
UPGRADE = b"POST / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\n{}"


async def echo(scope: Any, receive: Any, send: Any) -> None:
    await respond(send, 200, await read_body(scope, receive, 1 << 20))


class Held:
    """Answers when `go` is set, and counts its requests."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.requests = 0

    async def __call__(self, _scope: Any, _receive: Any, send: Any) -> None:
        self.requests += 1
        await self.go.wait()
        await respond(send, 200, b"")


async def refuse_early(_scope: Any, _receive: Any, send: Any) -> None:
    await respond(send, 413, b"")


def post(body: bytes) -> bytes:
    return b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


def connect(app: Any = echo) -> Client:
    return Client(app, Connections(), FakeLoop())


def living_parsers() -> int:
    return sum(isinstance(each, httptools.HttpRequestParser) for each in gc.get_objects())


@pytest.fixture
def before() -> int:
    """Parsers that exist without the connections of this test."""
    gc.collect()
    return living_parsers()


async def test_connections_have_a_parser_only_while_they_are_busy(before: int) -> None:
    clients = [connect() for _ in range(20)]
    assert living_parsers() == before
    for client in clients:
        client.send(post(b"12")[:-1])
    assert living_parsers() == before + 20
    for client in clients:
        client.send(b"2")
        await client.answered()
    assert [client.status for client in clients] == [200] * 20
    assert living_parsers() == before


async def test_empty_lines_between_requests_leave_no_parser(before: int) -> None:
    client = connect()
    client.send(b"\r\n")
    assert living_parsers() == before
    client.send(GET)
    await client.answered()
    client.send(b"\r\n")
    assert living_parsers() == before
    client.send(b"\r\n" + GET)
    await client.answered()
    assert client.wire.sent.count(b"HTTP/1.1 200") == 2


@pytest.mark.parametrize("end", range(1, len(GET)))
async def test_a_request_that_begins_before_the_last_answer_is_read_to_its_end(end: int) -> None:
    client = connect()
    client.send(post(b"12") + GET[:end])
    await client.answered()
    client.send(GET[end:])
    await client.answered()
    assert client.wire.sent.count(b"HTTP/1.1 200") == 2


async def test_a_body_that_arrives_after_its_answer_is_no_request(before: int) -> None:
    client = connect(refuse_early)
    client.send(post(GET)[: -len(GET)])
    await client.answered()
    client.send(GET[:9])
    client.send(GET[9:])
    assert living_parsers() == before
    client.send(GET)
    await client.answered()
    assert client.wire.sent.count(b"HTTP/1.1 413") == 2


@pytest.mark.parametrize("closing", [GET.replace(b"1.1", b"1.0"), GET[:-2] + b"Connection: close\r\n\r\n"], ids=["HTTP/1.0", "close"])
@pytest.mark.parametrize("more", [GET, GET[:9], b"\x00"], ids=["request", "part", "garbage"])
async def test_what_follows_a_closing_request_is_ignored_while_it_is_answered(closing: bytes, more: bytes) -> None:
    app = Held()
    client = connect(app)
    client.send(closing)
    await asyncio.sleep(0)
    client.send(more)
    app.go.set()
    await client.answered()
    assert (client.wire.sent.count(b"HTTP/1.1 200"), client.wire.closed, app.requests) == (1, "closed", 1)


async def test_a_connection_whose_offer_of_a_protocol_was_ignored_goes_on(before: int) -> None:  # RFC 9110 s7.8
    client = connect()
    for _ in range(2):
        client.send(UPGRADE)
        await client.answered()
        assert living_parsers() == before
    assert client.wire.sent.count(b"HTTP/1.1 200") == 2
