"""Server-sent events are the same however the network cuts them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.contract import UpstreamFault
from adapters.upstream.sse import ServerSentEvent, SseReader
from tests.strategies import cuts

BODY = b'\xef\xbb\xbfid: 7\n: hello\nevent: message\ndata: {"a":\ndata:1}\n\nretry: 5\ndata\n\ndata: [DONE]\n\nid: 9\n\ndata: \xc3\xa9\n\n'
EVENTS = [
    ServerSentEvent(b'{"a":\n1}', "message", "7"),
    ServerSentEvent(b"", "", "7"),
    ServerSentEvent(b"[DONE]", "", "7"),
    ServerSentEvent("é".encode(), "", "9"),
]


def read(chunks: list[bytes]) -> list[ServerSentEvent]:
    reader = SseReader()
    return [event for chunk in chunks for event in reader.feed(chunk)]


@given(st.data(), st.sampled_from([b"\n", b"\r\n", b"\r"]))
def test_any_cut_and_any_line_end_gives_the_same_events(data: st.DataObject, line_end: bytes) -> None:
    body = BODY.replace(b"\n", line_end)
    assert read(data.draw(cuts(body))) == EVENTS


def test_an_unfinished_event_is_not_given_out_and_is_known_to_be_missing() -> None:
    reader = SseReader()
    assert reader.feed(b"data: whole\n\ndata: half") == [ServerSentEvent(b"whole")]
    assert reader.has_unfinished_event


@pytest.mark.parametrize("piece", [b"x" * 100, b"data: x\n" * 10])
def test_an_event_that_grows_beyond_the_limit_is_refused(piece: bytes) -> None:
    reader = SseReader(limit=1000)
    with pytest.raises(UpstreamFault):
        for _ in range(100):
            reader.feed(piece)


def test_many_events_below_the_limit_pass() -> None:
    reader = SseReader(limit=1000)
    assert sum(len(reader.feed(b"data: x\n\n")) for _ in range(1000)) == 1000
