"""Server-sent events (WHATWG HTML s9.2): read from arbitrary chunks, and written."""

from typing import Final, NamedTuple

from adapters.contract import InvalidAnswer

EVENT_LIMIT: Final = 8 << 20  # bytes of one event
_BOM: Final = b"\xef\xbb\xbf"


class ServerSentEvent(NamedTuple):
    """A dispatched event. `id` is the last one seen on the stream, as the standard defines."""

    data: bytes
    event: str = ""
    id: str = ""


class SseReader:
    """Converts chunks to events. Lines end at LF, CRLF or CR; comments and unfinished events are ignored."""

    def __init__(self, limit: int = EVENT_LIMIT) -> None:
        self._limit = limit
        self._tail: list[bytes] = []  # pieces of the incomplete line
        self._data: list[bytes] = []
        self._size = 0
        self._event = ""
        self._id = ""
        self._after_cr = False
        self._at_start = True
        self.retry: int | None = None  # milliseconds before the stream is resumed, if the server sent them

    @property
    def has_unfinished_event(self) -> bool:
        """Whether an event has begun and not ended: at the end of a body it means that the stream was cut."""
        return bool(self._data or self._tail)

    def feed(self, chunk: bytes) -> list[ServerSentEvent]:
        """The events that `chunk` completes. Raises UpstreamFault when one event exceeds the limit."""
        if self._after_cr and chunk:
            chunk = chunk.removeprefix(b"\n")
            self._after_cr = False
        if not chunk:
            return []
        self._size += len(chunk)
        events = list[ServerSentEvent]()
        lines = self._lines(chunk)
        left = sum(map(len, self._tail))  # bytes behind the last line
        for line in lines:
            if line.startswith(b"data:"):
                self._data.append(line[5:].removeprefix(b" "))
            elif line:
                self._read_field(line)
            else:
                if self._data:
                    events.append(ServerSentEvent(b"\n".join(self._data), self._event, self._id))
                    self._data = []
                self._event, self._size = "", left
        if self._size > self._limit:
            raise InvalidAnswer("The agent's stream has an event that is too large", f"an event of more than {self._limit} bytes")
        return events

    def _lines(self, chunk: bytes) -> list[bytes]:
        """The lines that `chunk` completes, without their ends."""
        if b"\n" not in chunk and b"\r" not in chunk:
            self._tail.append(chunk)
            return []
        self._after_cr = chunk.endswith(b"\r")
        lines = (b"".join(self._tail) + chunk).splitlines() if self._tail else chunk.splitlines()
        self._tail = [] if chunk.endswith((b"\n", b"\r")) else [lines.pop()]
        if self._at_start:
            lines[0] = lines[0].removeprefix(_BOM)
            self._at_start = False
        return lines

    def _read_field(self, line: bytes) -> None:
        """Reads a line other than `data:`."""
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._data.append(value)
        elif name == b"event":
            self._event = value.decode("utf-8", "replace")
        elif name == b"retry" and value.isdigit() and len(value) < 10:
            self.retry = int(value)
        elif name == b"id" and b"\0" not in value:
            self._id = value.decode("utf-8", "replace")


def one_line(data: bytes) -> bytes:
    """UTF-8 JSON with NEL, U+2028 and U+2029 escaped, which can only occur in its strings.

    SSE ends lines at CR and LF only, but clients that split decoded text into lines also split at these characters.
    """
    if data.isascii():
        return data
    return data.replace(b"\xe2\x80\xa8", b"\\u2028").replace(b"\xe2\x80\xa9", b"\\u2029").replace(b"\xc2\x85", b"\\u0085")
