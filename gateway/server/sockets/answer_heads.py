"""The bytes of an answer's head: status line, headers of the server, headers of the answer."""

import re
from collections.abc import Iterable, Sequence
from http import HTTPStatus
from typing import Final

from gateway.ingress.http.asgi import Header

BODILESS: Final = frozenset({204, 304})  # answers with such a status have no body (RFC 9112 s6.3)
_NAME: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # a token (RFC 9110 s5.6.2)
_CONTROL: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")  # in no value (RFC 9110 s5.5)


class AnswerHeads:
    """Status lines with the headers of the server, such as Date, which uvicorn renews every second, encoded once for all answers."""

    def __init__(self) -> None:
        self._server_headers: Sequence[Header] = ()
        self._starts: dict[int, bytes] = {}

    def start_of(self, status: int, server_headers: Sequence[Header]) -> bytes:
        """Returns the status line and the headers of the server. `server_headers` is another object whenever its headers change."""
        if server_headers is not self._server_headers:
            self._server_headers = server_headers
            self._starts.clear()
        known = self._starts.get(status)
        if known is None:
            known = self._starts[status] = b"HTTP/1.1 %d %b\r\n%b" % (status, _phrase_of(status), encode_headers(server_headers))
        return known


def encode_headers(headers: Iterable[Header]) -> bytes:
    """Returns the lines of headers, with names in lower case. Raises ValueError for a name or a value that HTTP does not allow."""
    lines = list[bytes]()
    for name, value in headers:
        if _NAME.fullmatch(name) is None or _CONTROL.search(value) is not None:
            raise ValueError(f"the header {name!r} of an answer has characters that HTTP does not allow")
        lines.append(b"%b: %b\r\n" % (name.lower(), value))
    return b"".join(lines)


def closes_connection(headers: Iterable[Header]) -> bool:
    """Returns whether the headers of an answer say `Connection: close`."""
    return any(name.lower() == b"connection" and b"close" in value.lower().replace(b" ", b"").split(b",") for name, value in headers)


def _phrase_of(status: int) -> bytes:
    try:
        return HTTPStatus(status).phrase.encode()
    except ValueError:  # a status without a registered phrase
        return b""
