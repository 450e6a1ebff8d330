"""Parses requests of HTTP/1.1 by httptools, and goes on where a client offers another protocol."""

from collections.abc import Iterable
from typing import Protocol

import httptools

from gateway.ingress.http.asgi import Header


class RequestReader(Protocol):
    """What the parser calls. `headers` are those of the last request whose head was complete."""

    @property
    def headers(self) -> Iterable[Header]: ...

    def on_message_begin(self) -> None: ...

    def on_url(self, url: bytes) -> None: ...

    def on_header(self, name: bytes, value: bytes) -> None: ...

    def on_headers_complete(self) -> None: ...

    def on_body(self, body: bytes) -> None: ...

    def on_message_complete(self) -> None: ...


class RequestParser:
    """The parser of one connection. `http` is that of httptools, which knows the method, the version, and whether the client goes on."""

    __slots__ = ("_reader", "http")

    def __init__(self, reader: RequestReader) -> None:
        self._reader = reader
        self.http = _parser_for(reader)

    def feed(self, data: bytes) -> None:
        """Parses what the client has sent. Raises httptools.HttpParserError.

        The offer of another protocol is ignored (RFC 9110 s7.8). httptools stops behind its head, and takes all that follows for the other
        protocol, so a new parser goes on with the body.
        """
        try:
            self.http.feed_data(data)
            return
        except httptools.HttpParserUpgrade as upgrade:
            end = upgrade.args[0]
        # Outside of the handler: there, an error of the parser would lose its context, which is the reason of a refusal.
        self.http = _parser_for(self._reader)
        if framing := _framing_of(self._reader.headers):
            self.http = _parser_for(_HeadSkipper(self._reader))
            self.http.feed_data(b"POST / HTTP/1.1\r\n%b\r\n" % framing)
        if rest := data[end:]:
            self.feed(rest)

    def has_stopped_before_body(self) -> bool:
        """Returns, when a request is said to be complete, whether its body follows: its client offers another protocol."""
        return self.http.should_upgrade() and bool(_framing_of(self._reader.headers))


class _HeadSkipper:
    """Passes what a parser finds on to a reader, apart from the first head, which the reader knows already."""

    def __init__(self, reader: RequestReader) -> None:
        self._reader = reader
        self._has_skipped = False

    def on_message_begin(self) -> None:
        if self._has_skipped:
            self._reader.on_message_begin()

    def on_url(self, url: bytes) -> None:
        if self._has_skipped:
            self._reader.on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._has_skipped:
            self._reader.on_header(name, value)

    def on_headers_complete(self) -> None:
        if self._has_skipped:
            self._reader.on_headers_complete()
        self._has_skipped = True

    def on_body(self, body: bytes) -> None:
        self._reader.on_body(body)

    def on_message_complete(self) -> None:
        self._reader.on_message_complete()


def _framing_of(headers: Iterable[Header]) -> bytes:
    """Returns the lines of a request's headers that say where its body ends; empty for a request without a body."""
    return b"".join(b"%b: %b\r\n" % line for line in headers if line[0] in (b"content-length", b"transfer-encoding"))


def _parser_for(reader: RequestReader | _HeadSkipper) -> httptools.HttpRequestParser:
    parser = httptools.HttpRequestParser(reader)
    parser.set_dangerous_leniencies(lenient_data_after_close=True)  # else such data is an error before the answer is written
    return parser
