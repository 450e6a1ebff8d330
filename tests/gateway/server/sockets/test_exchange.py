"""What an ASGI application receives and how its answer is written: framing, order, failures, clients that wait, leave or do not read."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import pytest
from structlog.testing import capture_logs

from gateway.ingress.http.asgi import respond
from gateway.server.sockets.answer_heads import AnswerHeads
from gateway.server.sockets.client_limits import Connections
from tests.fakes.sockets import Client, FakeLoop

DATE = b"date: Thu, 01 Jan 1970 00:00:00 GMT\r\n"
GET = b"GET /path?query HTTP/1.1\r\nHost: x\r\n\r\n"
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Handler = Callable[[Receive, Send], Awaitable[None]]


class App:
    """Handles every request by `handler`, and remembers their scopes."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self.scopes: list[Any] = []

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        self.scopes.append(scope)
        await self._handler(receive, send)


def connect(handler: Handler, now: Callable[[], float] = lambda: 0.0) -> tuple[Client, App]:
    app, connections = App(handler), Connections()
    connections.answer_heads = AnswerHeads(now)
    return Client(app, connections, FakeLoop()), app


def answering(*messages: Message) -> Handler:
    async def answer(_receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)

    return answer


def start(status: int = 200, *headers: tuple[bytes, bytes]) -> Message:
    return {"type": "http.response.start", "status": status, "headers": list(headers)}


def body(data: bytes = b"", *, more: bool = False) -> Message:
    return {"type": "http.response.body", "body": data, "more_body": more}


async def answer_to(request: bytes, *messages: Message) -> Client:
    """A client after an application has answered its request by these messages."""
    client, _ = connect(answering(*messages))
    client.send(request)
    await client.answered()
    return client


async def test_an_application_gets_the_scope_of_asgi() -> None:
    client, app = connect(answering(start(), body()))
    client.send(b"POST /a%20b?c=%20d HTTP/1.1\r\nHost: x\r\nX-A:  1\r\nx-a: 2\r\nContent-Length: 0\r\n\r\n")
    await client.answered()
    (scope,) = app.scopes
    assert (scope["type"], scope["method"], scope["http_version"], scope["scheme"]) == ("http", "POST", "1.1", "http")
    assert (scope["path"], scope["raw_path"], scope["query_string"], scope["root_path"]) == ("/a b", b"/a%20b", b"c=%20d", "")
    assert scope["headers"] == [(b"host", b"x"), (b"x-a", b"1"), (b"x-a", b"2"), (b"content-length", b"0")]


async def test_the_host_of_an_absolute_target_replaces_the_header() -> None:  # RFC 9112 s3.2.2
    client, app = connect(answering(start(), body()))
    client.send(b"GET http://other:81/path HTTP/1.1\r\nHost: x\r\n\r\n")
    await client.answered()
    assert (app.scopes[0]["path"], app.scopes[0]["headers"]) == ("/path", [(b"host", b"other:81")])


async def test_an_absolute_target_without_a_path_is_that_of_the_root() -> None:  # RFC 9112 s3.2.2
    client, app = connect(answering(start(), body()))
    client.send(b"GET http://other?query HTTP/1.1\r\nHost: x\r\n\r\n")
    await client.answered()
    scope = app.scopes[0]
    assert (scope["path"], scope["raw_path"], scope["query_string"], scope["headers"]) == ("/", b"/", b"query", [(b"host", b"other")])


async def test_head_and_body_are_written_together() -> None:
    client = await answer_to(GET, start(201, (b"Content-Length", b"2"), (b"X-A", b"b")), body(b"{}"))
    assert client.wire.sent == b"HTTP/1.1 201 Created\r\n" + DATE + b"content-length: 2\r\nx-a: b\r\n\r\n{}"
    assert client.wire.writes == 1 and not client.wire.closed


async def test_a_whole_answer_is_one_write() -> None:
    async def answer(_receive: Receive, send: Send) -> None:
        await respond(send, 200, b"{}", [(b"x-a", b"b")])

    client, _ = connect(answer)
    client.send(GET)
    await client.answered()
    assert client.wire.writes == 1
    assert client.wire.sent.startswith(b"HTTP/1.1 200 OK\r\n" + DATE + b"content-type: application/json\r\n")
    assert client.wire.sent.endswith(b"x-a: b\r\ncontent-length: 2\r\n\r\n{}")


async def test_a_head_without_a_body_is_written_in_the_same_iteration() -> None:
    go = asyncio.Event()

    async def stream(_receive: Receive, send: Send) -> None:
        await send(start())
        await go.wait()
        await send(body(b"data: 1\n\n", more=True))
        await send(body())

    client, _ = connect(stream)
    client.send(GET)
    await asyncio.sleep(0)
    client.loop.run_soon()
    assert client.wire.sent == b"HTTP/1.1 200 OK\r\n" + DATE + b"transfer-encoding: chunked\r\n\r\n"
    go.set()
    await client.answered()
    assert client.wire.sent.endswith(b"\r\n\r\n9\r\ndata: 1\n\n\r\n0\r\n\r\n") and not client.wire.closed


@pytest.mark.parametrize("length", [(), ((b"content-length", b"2"),)], ids=["chunked", "with a length"])
async def test_an_answer_to_head_has_no_body(length: tuple[tuple[bytes, bytes], ...]) -> None:
    client = await answer_to(GET.replace(b"GET", b"HEAD"), start(200, *length), body(b"{}"))
    assert client.wire.sent.endswith(b"\r\n\r\n") and b"chunked" not in client.wire.sent and not client.wire.closed


@pytest.mark.parametrize("status", [204, 304])
async def test_an_answer_without_content_has_neither_length_nor_body(status: int) -> None:  # RFC 9110 s8.6
    async def answer(_receive: Receive, send: Send) -> None:
        await respond(send, status, b"")

    client, _ = connect(answer)
    client.send(GET)
    await client.answered()
    assert client.wire.sent.endswith(b"\r\n\r\n") and b"content-length" not in client.wire.sent and b"chunked" not in client.wire.sent


async def test_a_client_of_http_1_0_gets_a_body_that_the_end_of_the_connection_ends() -> None:  # RFC 9112 s6.1
    client = await answer_to(GET.replace(b"1.1", b"1.0"), start(), body(b"a", more=True), body(b"b"))
    assert client.wire.sent == b"HTTP/1.1 200 OK\r\n" + DATE + b"connection: close\r\n\r\nab"
    assert client.wire.closed == "closed"


@pytest.mark.parametrize("side", ["client", "application"])
async def test_a_connection_is_closed_after_the_answer_where_one_side_wants_it(side: str) -> None:
    closing = (b"Connection", b"keep-alive, Close")
    request = GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n") if side == "client" else GET
    headers = [closing] if side == "application" else []
    client = await answer_to(request, start(200, (b"content-length", b"0"), *headers), body())
    assert client.wire.sent.lower().count(b"connection: ") == 1 and client.wire.closed == "closed"


@pytest.mark.parametrize("header", [(b"x-a", b"b\r\nset-cookie: c"), (b"x-a\r\nset-cookie", b"c"), (b"", b"c")])
async def test_a_header_that_would_begin_another_is_never_written(header: tuple[bytes, bytes]) -> None:
    async def whole(_receive: Receive, send: Send) -> None:
        await respond(send, 200, b"", [header])

    for handler in (answering(start(200, header), body()), whole):
        client, _ = connect(handler)
        client.send(GET)
        await client.answered()
        assert (client.status, client.wire.closed) == (500, "closed") and b"cookie" not in client.wire.sent


@pytest.mark.parametrize("messages", [[body(b"abc")], [body(b"a")], [body(b"a", more=True), body(b"bc")]])
async def test_a_body_that_is_not_as_long_as_declared_closes_the_connection(messages: list[Message]) -> None:
    client = await answer_to(GET, start(200, (b"content-length", b"2")), *messages)
    assert client.wire.closed == "closed" and not client.wire.sent.endswith(b"abc")


@pytest.mark.parametrize("messages", [[body()], [start(), start()], [start(), body(), body()], [start(), body(), start()]])
async def test_messages_out_of_order_are_refused(messages: list[Message]) -> None:
    with capture_logs() as lines:
        await answer_to(GET, *messages)
    assert [line["event"] for line in lines] == ["application_failed"]


async def test_an_application_that_fails_before_its_answer_is_answered_500() -> None:
    for handler in (answering(), answering({"type": "unknown"})):
        client, _ = connect(handler)
        client.send(GET)
        await client.answered()
        assert (client.status, client.wire.closed) == (500, "closed")


async def test_an_application_that_fails_in_its_answer_leaves_it_cut_off() -> None:
    client = await answer_to(GET, start(), body(b"a", more=True), {"type": "unknown"})
    assert client.wire.sent.endswith(b"1\r\na\r\n") and client.wire.closed == "closed"


async def test_a_canceled_application_closes_its_connection() -> None:
    async def wait(_receive: Receive, _send: Send) -> None:
        await asyncio.Event().wait()

    client, _ = connect(wait)
    client.send(GET)
    (task,) = client.tasks
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled() and not client.tasks and (client.status, client.wire.closed) == (500, "closed")


async def test_leave_to_send_a_body_is_given_when_the_application_wants_it() -> None:  # RFC 9110 s10.1.1
    async def echo(receive: Receive, send: Send) -> None:
        message = await receive()
        await respond(send, 200, message["body"])

    client, _ = connect(echo)
    client.send(b"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
    await asyncio.sleep(0)
    assert client.wire.sent == b"HTTP/1.1 100 Continue\r\n\r\n"
    client.send(b"ab")
    await client.answered()
    assert client.wire.sent.count(b"HTTP/1.1 100") == 1 and client.wire.sent.endswith(b"ab")


async def test_no_leave_to_send_a_body_is_given_after_the_answer() -> None:  # RFC 9110 s10.1.1
    async def refuse(receive: Receive, send: Send) -> None:
        await respond(send, 403, b"{}")
        assert await receive() == {"type": "http.disconnect"}

    client, _ = connect(refuse)
    client.send(b"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
    await client.answered()
    assert client.status == 403 and b"HTTP/1.1 100" not in client.wire.sent


async def test_a_client_of_http_1_0_waits_for_no_leave() -> None:  # RFC 9110 s10.1.1
    async def echo(receive: Receive, send: Send) -> None:
        await respond(send, 200, (await receive())["body"])

    client, _ = connect(echo)
    client.send(b"POST / HTTP/1.0\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nab")
    await client.answered()
    assert client.wire.sent.startswith(b"HTTP/1.1 200") and client.wire.sent.endswith(b"ab")


# attack PRO-07
@pytest.mark.parametrize("is_early", [False, True])
async def test_a_trailer_that_closes_the_connection_closes_it(is_early: bool) -> None:
    async def answer(receive: Receive, send: Send) -> None:
        while not is_early and (await receive())["more_body"]:
            pass
        await respond(send, 200, b"{}")

    client, _ = connect(answer)
    client.send(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
    for _ in range(3):
        await asyncio.sleep(0)
    client.send(b"0\r\nConnection: close\r\n\r\n" + GET)  # the parser reads nothing behind it
    await client.answered()
    assert client.wire.sent.count(b"HTTP/1.1 ") == 1 and client.wire.closed


CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n1\r\nb\r\n0\r\n\r\n"
OFFER = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQBAAAAAAIAAAAA\r\n"


@pytest.mark.parametrize("size", [1, 7, 10_000])
@pytest.mark.parametrize("framed", [b"Content-Length: 2\r\n\r\nab", CHUNKED], ids=["length", "chunks"])
async def test_the_offer_of_another_protocol_is_ignored(framed: bytes, size: int) -> None:  # RFC 9110 s7.8
    async def echo(receive: Receive, send: Send) -> None:
        data = b""
        while (message := await receive())["more_body"]:
            data += message["body"]
        await respond(send, 200, data + message["body"] + b".")

    client, app = connect(echo)
    post = b"POST / HTTP/1.1\r\nHost: x\r\n" + OFFER + framed
    requests = GET.replace(b"Host", OFFER + b"Host") + post + post + GET + post
    for at in range(0, len(requests), size):
        client.send(requests[at : at + size])
        await asyncio.sleep(0)
    while client.tasks:
        await client.answered()
    assert [answer.rpartition(b"\r\n\r\n")[2] for answer in client.wire.sent.split(b"HTTP/1.1 200")[1:]] == [
        b".",
        b"ab.",
        b"ab.",
        b".",
        b"ab.",
    ]
    assert not client.wire.closed and [scope["path"] for scope in app.scopes] == ["/path", "/", "/", "/path", "/"]


async def test_a_body_behind_the_offer_of_another_protocol_is_no_request() -> None:
    client, app = connect(answering(start(200, (b"content-length", b"0")), body()))
    inner = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
    client.send(b"POST / HTTP/1.1\r\nHost: x\r\n" + OFFER + b"Content-Length: %d\r\n\r\n" % len(inner) + inner)
    while client.tasks:
        await client.answered()
    assert [scope["path"] for scope in app.scopes] == ["/"] and client.wire.sent.count(b"HTTP/1.1") == 1


async def test_each_that_waits_learns_that_the_client_has_gone() -> None:
    told: list[Message] = []

    async def wait_twice(receive: Receive, _send: Send) -> None:
        assert (await receive())["more_body"] is False
        told.extend(await asyncio.gather(receive(), receive()))

    client, _ = connect(wait_twice)
    client.send(GET)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    client.wire.close()
    client.loop.run_soon()
    await client.answered()
    assert told == [{"type": "http.disconnect"}] * 2


async def test_after_its_answer_an_application_receives_the_end() -> None:
    async def answer_and_receive(receive: Receive, send: Send) -> None:
        await respond(send, 200, b"")
        assert await receive() == {"type": "http.disconnect"}

    client, _ = connect(answer_and_receive)
    client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\na")
    await client.answered()
    assert client.status == 200 and not client.wire.closed


async def test_an_answer_waits_for_a_client_that_reads_slowly() -> None:
    async def answer(_receive: Receive, send: Send) -> None:
        await respond(send, 200, b"{}")

    client, _ = connect(answer)
    client.protocol.pause_writing()
    client.send(GET)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert client.wire.sent == b"" and client.tasks
    client.protocol.resume_writing()
    await client.answered()
    assert client.wire.sent.endswith(b"{}")


async def test_an_answer_that_waits_ends_when_its_client_leaves() -> None:
    client, _ = connect(answering(start(), body(b"a")))
    client.protocol.pause_writing()
    client.send(GET)
    await asyncio.sleep(0)
    client.wire.close()
    client.loop.run_soon()
    await client.answered()
    assert client.wire.sent == b"" and not client.tasks


async def test_each_answer_has_the_date_of_its_second() -> None:
    moment = [1_764_000_000.25]
    client, _ = connect(answering(start(200, (b"content-length", b"0")), body()), lambda: moment[0])
    for date in (b"Mon, 24 Nov 2025 16:00:00 GMT", b"Mon, 24 Nov 2025 16:00:01 GMT"):
        for _ in range(2):
            client.send(GET)
            await client.answered()
        assert client.wire.sent.count(b"date: " + date) == 2
        moment[0] += 0.75
        client.loop.pass_time(0.75)


async def test_a_connection_that_is_shut_down_answers_first() -> None:
    go = asyncio.Event()

    async def answer(_receive: Receive, send: Send) -> None:
        await go.wait()
        await respond(send, 200, b"")

    busy, _ = connect(answer)
    idle, _ = connect(answer)
    busy.send(GET)
    for client in (busy, idle):
        client.protocol.shutdown()
    assert (busy.wire.closed, idle.wire.closed) == ("", "closed")
    go.set()
    await busy.answered()
    assert (busy.status, busy.wire.closed) == (200, "closed") and b"connection: close\r\n" in busy.wire.sent
