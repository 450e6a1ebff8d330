"""`application/vnd.amazon.eventstream`: messages with checksums, of bytes that are cut anywhere."""

from collections.abc import Iterator
from typing import Final

from botocore.eventstream import EventStreamBuffer, EventStreamMessage, ParserError

from adapters.contract import InvalidAnswer
from adapters.vendors.sdk.frames import UNREADABLE_TEXT, DecoderFactories, End, EventMessage, Frame

CONTENT_TYPE: Final = "application/vnd.amazon.eventstream"


class EventStreamDecoder:
    """Messages are given out when their checksums fit. A message may have 24 MB, as the format has it."""

    def __init__(self) -> None:
        self._buffer = EventStreamBuffer()
        self._missing_bytes = 0  # bytes of a message that is not whole

    def feed(self, chunk: bytes) -> list[Frame]:
        self._buffer.add_data(chunk)
        self._missing_bytes += len(chunk)
        return [EventMessage(message.headers, message.payload) for message in self._messages()]

    def finish(self) -> list[Frame]:
        return [End(self._missing_bytes == 0)]

    def _messages(self) -> Iterator[EventStreamMessage]:
        try:
            for message in self._buffer:
                self._missing_bytes -= message.prelude.total_length
                yield message
        except (ParserError, KeyError, ValueError) as error:  # the latter two: a type of header, or a text, that is none
            raise InvalidAnswer(UNREADABLE_TEXT, f"{type(error).__name__}: {error}"[:300]) from error


EVENTSTREAM_DECODERS: Final[DecoderFactories] = {CONTENT_TYPE: EventStreamDecoder}
