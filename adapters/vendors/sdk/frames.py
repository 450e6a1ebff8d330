"""Frames of an agent's response, and the decoders that make them from arbitrary chunks of bytes: no I/O, no clock."""

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
    """The first frame of every response: headers with lower-case names, and a status of 2xx or in `Request.accepted_statuses`."""

    headers: Mapping[str, str]
    status: int = 200


class JsonBody(Struct, frozen=True):
    """A whole response that is one JSON value."""

    value: Any


class SseFrame(Struct, frozen=True):
    """One server-sent event."""

    event: str
    data: str
    id: str = ""

    def json(self) -> Any:
        """The data as JSON. Raises InvalidAnswer."""
        return parse_json(self.data.encode())


class NdjsonLine(Struct, frozen=True):
    """One line of newline-delimited JSON."""

    value: Any


class EventMessage(Struct, frozen=True):
    """One message of `application/vnd.amazon.eventstream`."""

    headers: Mapping[str, Any]
    payload: bytes


class End(Struct, frozen=True):
    """The last frame. `is_clean`: the body ended where one may end, which does not mean that the answer is complete."""

    is_clean: bool


Frame = Head | JsonBody | SseFrame | NdjsonLine | EventMessage | End


class BodyDecoder(Protocol):
    """Decodes one kind of body. Raises InvalidAnswer."""

    def feed(self, chunk: bytes) -> list[Frame]: ...

    def finish(self) -> list[Frame]:
        """The remaining frames at the end of the body; the last one is `End`."""
        ...


DecoderFactories = Mapping[str, Callable[[], BodyDecoder]]


class JsonDecoder:
    """Decodes a JSON body at its end."""

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
    """Decodes server-sent events. Ignores an unfinished event."""

    def __init__(self, limit: int = EVENT_LIMIT) -> None:
        self._reader = SseReader(limit)

    def feed(self, chunk: bytes) -> list[Frame]:
        return [SseFrame(each.event, each.data.decode("utf-8", "replace"), each.id) for each in self._reader.feed(chunk)]

    def finish(self) -> list[Frame]:
        return [End(not self._reader.has_unfinished_event)]


class NdjsonDecoder:
    """Decodes lines of JSON. Skips empty lines; the last line needs no line feed."""

    def __init__(self, limit: int = EVENT_LIMIT) -> None:
        self._limit = limit
        self._tail: list[bytes] = []  # pieces of the incomplete line
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
    """The decoder for a content type. `extra_decoders` are those of one vendor. Raises InvalidAnswer for any other type."""
    kind = content_type.partition(";")[0].strip().lower()
    known = {**DECODERS, **(extra_decoders or {})}
    if kind not in known:
        raise InvalidAnswer("The agent's answer has an unexpected content type", f"content type {kind[:100]!r}")
    return known[kind]()


def parse_json(body: bytes) -> Any:
    """Parses JSON. Raises InvalidAnswer for invalid JSON, deep nesting, or too many members."""
    try:
        if len(body) > LARGE:
            count_names(body)
        return msgspec.json.decode(body)
    except (ValueError, RecursionError) as error:
        raise InvalidAnswer(UNREADABLE_TEXT, f"{type(error).__name__}: {error}"[:300]) from error
