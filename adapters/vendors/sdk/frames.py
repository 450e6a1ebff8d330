"""The pieces that an agent's answer comes in, and what makes them of bytes that are cut anywhere: no I/O, no clock."""

from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

import msgspec
from msgspec import Struct

from adapters.contract import InvalidAnswer
from adapters.upstream.sse import EVENT_LIMIT, SseReader
from policies.strict_json import LARGE, count_names

UNREADABLE_TEXT: Final = "The agent's answer can't be read"
PIECE_TOO_LARGE_TEXT: Final = "The agent's answer has a piece that is too large"


class Head(Struct, frozen=True):
    """The first frame of every answer: its headers, with lower-case names, and its status, which is 2xx or one of `Request.also`."""

    headers: Mapping[str, str]
    status: int = 200


class JsonBody(Struct, frozen=True):
    """The whole answer, which is one JSON value."""

    value: Any


class SseFrame(Struct, frozen=True):
    """One server-sent event."""

    event: str
    data: str
    id: str = ""

    def json(self) -> Any:
        """Raises InvalidAnswer."""
        return parse_json(self.data.encode())


class NdjsonLine(Struct, frozen=True):
    """One line of newline-delimited JSON."""

    value: Any


class EventMessage(Struct, frozen=True):
    """One message of `application/vnd.amazon.eventstream`."""

    headers: Mapping[str, Any]
    payload: bytes


class End(Struct, frozen=True):
    """The last frame. `clean`: the body ended where one may end; not that the answer is whole."""

    is_clean: bool


Frame = Head | JsonBody | SseFrame | NdjsonLine | EventMessage | End


class BodyDecoder(Protocol):
    """One kind of body. Raises InvalidAnswer for what is none."""

    def feed(self, chunk: bytes) -> list[Frame]: ...

    def finish(self) -> list[Frame]:
        """What is left when the body is over; its last frame is `End`."""
        ...


DecoderFactories = Mapping[str, Callable[[], BodyDecoder]]


class JsonDecoder:
    """Nothing until the body is over."""

    def __init__(self, limit: int = EVENT_LIMIT) -> None:
        self._limit = limit
        self._chunks: list[bytes] = []
        self._size = 0

    def feed(self, chunk: bytes) -> list[Frame]:
        self._size += len(chunk)
        if self._size > self._limit:
            raise InvalidAnswer(PIECE_TOO_LARGE_TEXT, f"more than {self._limit} bytes")
        self._chunks.append(chunk)
        return []

    def finish(self) -> list[Frame]:
        return [JsonBody(parse_json(b"".join(self._chunks))), End(True)]


class SseDecoder:
    """Events of an unfinished block are never given out."""

    def __init__(self, limit: int = EVENT_LIMIT) -> None:
        self._reader = SseReader(limit)

    def feed(self, chunk: bytes) -> list[Frame]:
        return [SseFrame(each.event, each.data.decode("utf-8", "replace"), each.id) for each in self._reader.feed(chunk)]

    def finish(self) -> list[Frame]:
        return [End(not self._reader.has_unfinished_event)]


class NdjsonDecoder:
    """Empty lines are skipped; a last line needs no line feed."""

    def __init__(self, limit: int = EVENT_LIMIT) -> None:
        self._limit = limit
        self._tail: list[bytes] = []  # pieces of the line that has no end yet
        self._size = 0

    def feed(self, chunk: bytes) -> list[Frame]:
        self._tail.append(chunk)
        self._size += len(chunk)
        if self._size > self._limit and b"\n" not in chunk:
            raise InvalidAnswer(PIECE_TOO_LARGE_TEXT, f"a line of more than {self._limit} bytes")
        if b"\n" not in chunk:
            return []
        *lines, rest = b"".join(self._tail).split(b"\n")
        self._tail, self._size = [rest], len(rest)
        return [NdjsonLine(parse_json(line)) for line in lines if line.strip()]

    def finish(self) -> list[Frame]:
        tail = b"".join(self._tail)
        try:
            rest: list[Frame] = [NdjsonLine(parse_json(tail))] if tail.strip() else []
        except InvalidAnswer:
            return [End(False)]
        return [*rest, End(True)]


DECODERS: Final[DecoderFactories] = {
    "application/json": JsonDecoder,
    "text/event-stream": SseDecoder,
    "application/x-ndjson": NdjsonDecoder,
    "application/jsonl": NdjsonDecoder,
}


def decoder_for(content_type: str, extra_decoders: DecoderFactories | None = None) -> BodyDecoder:
    """`more` are of one vendor alone. Raises InvalidAnswer for any other kind of body."""
    kind = content_type.partition(";")[0].strip().lower()
    known = {**DECODERS, **(extra_decoders or {})}
    if kind not in known:
        raise InvalidAnswer("The agent's answer is of another kind than its protocol says", f"content type {kind[:100]!r}")
    return known[kind]()


def parse_json(body: bytes) -> Any:
    """Raises InvalidAnswer for what is no JSON, or nested deeper than anybody reads, or of too many parts."""
    try:
        if len(body) > LARGE:
            count_names(body)
        return msgspec.json.decode(body)
    except (ValueError, RecursionError) as error:
        raise InvalidAnswer(UNREADABLE_TEXT, f"{type(error).__name__}: {error}"[:300]) from error
