"""Streams are read in batches: the first reads at once, later ones when a moment ends, and no event is lost."""

import asyncio

import pytest

from adapters.a2a_client.stream_batching import BATCH_SECONDS, IMMEDIATE_READS, StreamBatches
from adapters.a2a_client.wire.tolerant import PeerEvent
from adapters.contract import InvalidAnswer, UpstreamFault
from adapters.task import Message, Part, Role
from policies.strict_json import LARGE

LIMIT = 8 << 20


class Arriving:
    """A response whose chunks are there, which notes its pauses in batches since a moment's beginning. It breaks after its last chunk."""

    def __init__(self, *chunks: bytes) -> None:
        self._chunks = list(chunks)
        self.pauses: list[float] = []

    async def next_chunk(self) -> bytes:
        if not self._chunks:
            raise UpstreamFault("the connection broke")
        return self._chunks.pop(0)

    def pause_until(self, when: float) -> None:
        self.pauses.append(round(when / BATCH_SECONDS, 6))


def decode(data: bytes) -> PeerEvent:
    if data == b"broken":
        raise InvalidAnswer("broken")
    return Message(data[:9].decode(), Role.AGENT, (Part(text="x"),))


async def read(answer: Arriving, limit: int = LIMIT) -> list[list[str]]:
    """The ids of the messages in each batch."""
    batches = StreamBatches(answer, limit, lambda: None, decode)  # type: ignore[arg-type]  # all that is used of a response
    read = list[list[str]]()
    while (batch := await batches.next_batch()) is not None:
        read.append([event.message_id for event in batch if isinstance(event, Message)])
    return read


async def test_the_first_reads_come_at_once_and_later_ones_when_a_moment_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: 100.25 * BATCH_SECONDS)
    answer = Arriving(*(b"data: %d\n\n" % number for number in range(IMMEDIATE_READS + 2)))
    assert await read(answer) == [[str(number)] for number in range(IMMEDIATE_READS + 2)]
    assert answer.pauses == [101.0, 101.0]  # of all streams alike, so that they share a commit


async def test_events_that_arrive_together_are_one_batch() -> None:
    assert await read(Arriving(b"data: 1\n\ndata: 2\n\nda", b"ta: 3\n\n: comment\n\n", b": comment\n\n")) == [["1", "2"], ["3"]]


async def test_a_large_event_is_a_batch_of_its_own() -> None:
    large = b"large" + b"x" * LARGE
    assert await read(Arriving(b"data: 1\n\ndata: %b\n\ndata: 2\n\n" % large)) == [["1"], ["largexxxx"], ["2"]]


async def test_what_came_before_a_broken_event_is_read() -> None:
    batches = StreamBatches(Arriving(b"data: 1\n\ndata: broken\n\n"), LIMIT, lambda: None, decode)  # type: ignore[arg-type]  # see `read`
    events = iter(await batches.next_batch() or ())
    assert next(events).message_id == "1"  # type: ignore[union-attr]  # a message
    with pytest.raises(InvalidAnswer):
        next(events)


async def test_an_event_over_the_limit_ends_the_stream() -> None:
    with pytest.raises(InvalidAnswer):
        await read(Arriving(b"data: " + b"x" * 100), limit=99)


async def test_every_read_is_a_sign_of_life() -> None:
    signs = list[int]()
    batches = StreamBatches(Arriving(b": comment\n\n", b"data: 1\n\n"), LIMIT, lambda: signs.append(1), decode)  # type: ignore[arg-type]  # see `read`
    assert list(await batches.next_batch() or ()) == [decode(b"1")] and len(signs) == 2
