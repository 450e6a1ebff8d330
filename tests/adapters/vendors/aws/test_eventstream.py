"""Event streams of AWS: cut anywhere, and never believed where a checksum does not fit."""

import pytest

from adapters.contract import InvalidAnswer
from adapters.vendors.aws.eventstream import EventStreamDecoder
from adapters.vendors.sdk.frames import End, EventMessage, Frame
from tests.adapters.replay import in_odd_chunks, in_one_chunk
from tests.fakes.aws import chunk, message

BODY = chunk("one") + message("trace", {"trace": {}}) + chunk("two")


def read(pieces: list[bytes]) -> list[Frame]:
    decoder = EventStreamDecoder()
    return [frame for piece in pieces for frame in decoder.feed(piece)] + decoder.finish()


@pytest.mark.parametrize("pieces", [in_one_chunk, in_odd_chunks], ids=["whole", "pieces"])
def test_messages_come_out_whole_however_they_are_cut(pieces: object) -> None:
    frames = read(in_one_chunk(BODY) if pieces is in_one_chunk else in_odd_chunks(BODY))
    assert [frame.headers[":event-type"] for frame in frames if isinstance(frame, EventMessage)] == ["chunk", "trace", "chunk"]
    assert frames[-1] == End(True)


@pytest.mark.parametrize("size", [1, 11, 12, 40, len(BODY) - 1])
def test_an_end_within_a_message_is_not_clean(size: int) -> None:
    assert read([BODY[:size]])[-1] == End(False)


def test_an_empty_body_is_an_end() -> None:
    assert read([]) == [End(True)]


@pytest.mark.parametrize("place", [2, 9, 14, 60, len(BODY) - 2], ids=["length", "checksum", "header", "payload", "last"])
def test_a_changed_byte_is_no_answer(place: int) -> None:
    changed = bytearray(BODY)
    changed[place] ^= 0x55
    with pytest.raises(InvalidAnswer):
        read([bytes(changed)])


def test_a_length_beyond_the_format_s_is_refused_before_it_is_waited_for() -> None:
    with pytest.raises(InvalidAnswer):
        read([b"\xff" * 12])
