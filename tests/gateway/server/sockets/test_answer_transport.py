"""Which bytes of an answer are sent together, and that none is left behind."""

from typing import Any

import pytest

from gateway.server.sockets.answer_transport import AnswerTransport
from tests.fakes.sockets import FakeLoop, Wire

HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n"


class Sends(Wire):
    """A socket that keeps what each system call would send."""

    def __init__(self) -> None:
        super().__init__(lambda: None)
        self.calls: list[bytes] = []

    def write(self, data: Any) -> None:
        self.calls.append(bytes(data))


@pytest.fixture
def loop() -> FakeLoop:
    return FakeLoop()


@pytest.fixture
def wire() -> Sends:
    return Sends()


@pytest.fixture
def transport(wire: Sends, loop: FakeLoop) -> AnswerTransport:
    return AnswerTransport(wire, loop)  # type: ignore[arg-type]  # as much of a loop as it needs


def test_head_and_body_are_sent_together(transport: AnswerTransport, wire: Sends, loop: FakeLoop) -> None:
    transport.write(HEAD)
    transport.write(b"{}")
    loop.run_soon()
    assert wire.calls == [HEAD + b"{}"]


def test_a_head_without_a_body_is_sent_in_the_same_iteration(transport: AnswerTransport, wire: Sends, loop: FakeLoop) -> None:
    transport.write(HEAD)
    loop.run_soon()
    transport.write(b"data: 1\n\n")
    assert wire.calls == [HEAD, b"data: 1\n\n"]


def test_a_connection_is_closed_after_its_last_head(transport: AnswerTransport, wire: Sends) -> None:
    transport.write(HEAD)
    transport.close()
    assert wire.calls == [HEAD]
    assert wire.closed == "closed"


def test_a_head_for_a_connection_that_was_lost_is_dropped(transport: AnswerTransport, wire: Sends, loop: FakeLoop) -> None:
    transport.write(HEAD)
    wire.abort()
    loop.run_soon()
    assert wire.calls == []


def test_bytes_count_as_written_once(transport: AnswerTransport) -> None:
    transport.write(HEAD)
    transport.write(b"{}")
    assert transport.written == len(HEAD) + 2
