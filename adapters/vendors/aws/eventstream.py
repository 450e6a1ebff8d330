"""`application/vnd.amazon.eventstream`: decodes messages with checksums from arbitrary chunks of bytes."""

from collections.abc import Iterator
from typing import Final

from botocore.eventstream import EventStreamBuffer, EventStreamMessage, ParserError

from adapters.contract import InvalidAnswer
from adapters.vendors.sdk.frames import UNREADABLE_TEXT, DecoderFactories, End, EventMessage, Frame

CONTENT_TYPE: Final = "application/vnd.amazon.eventstream"


class EventStreamDecoder:
    """Decodes messages whose checksums are valid. The format allows 24 MB for a message."""

    def __init__(self) -> None:
        self._buffer = EventStreamBuffer()
        self._missing_bytes = 0  # bytes of an incomplete message

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
        except (ParserError, KeyError, ValueError) as error:  # KeyError and ValueError: an invalid header type or text
            raise InvalidAnswer(UNREADABLE_TEXT, f"{type(error).__name__}: {error}"[:300]) from error


EVENTSTREAM_DECODERS: Final[DecoderFactories] = {CONTENT_TYPE: EventStreamDecoder}
