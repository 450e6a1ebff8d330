"""Clients that send much at once, or bodies in very many pieces: others have their turn, and reading takes linear time."""

import time

from gateway.server.sockets.client_limits import Connections
from gateway.server.sockets.client_transport import LARGE_READ
from gateway.server.sockets.request_body import RequestBody
from tests.fakes.sockets import Client, FakeLoop
from tests.gateway.server.sockets.test_http_protocol import Echo, post


def connect() -> Client:
    return Client(Echo(), Connections(), FakeLoop())


# attack AVL-02
async def test_others_have_their_turn_between_the_large_reads_of_a_connection() -> None:
    client = connect()
    client.send(post("/early", 1 << 20))
    await client.answered()
    client.protocol.data_received(b"x" * LARGE_READ)  # is dropped, and costs time all the same
    assert client.wire.paused
    client.loop.run_soon()
    assert not client.wire.paused


# attack AVL-02
async def test_a_connection_that_is_paused_does_not_read_on_because_it_has_its_turn() -> None:
    client = connect()
    client.send(post("/hang", 1 << 20))
    client.protocol.data_received(b"x" * LARGE_READ)  # more than may wait for the application
    client.loop.run_soon()
    assert client.wire.paused


# attack AVL-02
async def test_a_body_in_very_many_pieces_takes_linear_time() -> None:
    seconds = list[float]()
    for count in (20_000, 320_000):
        body, began = RequestBody(connect().protocol, awaits_continue=False), time.process_time()
        for _ in range(count):
            body.feed(b"a")
        seconds.append(time.process_time() - began)
        assert await body.receive() == {"type": "http.request", "body": b"a" * count, "more_body": True}
    assert seconds[1] < 100 * seconds[0]
