"""The bytes of an answer's head: status line, headers of the server, headers of the answer."""

import asyncio
import re
import time
from collections.abc import Callable, Iterable
from email.utils import formatdate
from http import HTTPStatus
from typing import Final

from gateway.ingress.http.asgi import Header

BODILESS: Final = frozenset({204, 304})  # answers with such a status have no body (RFC 9112 s6.3)
_NAME: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # a token (RFC 9110 s5.6.2)
_CONTROL: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")  # in no value (RFC 9110 s5.5)


class AnswerHeads:
    """Status lines with Date (RFC 9110 s6.6.1), each encoded once a second for all answers.

    uvicorn's own Date stands still as soon as the listener has closed.
    """

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        """`now`: seconds since 1970."""
        self._now = now
        self._starts: dict[int, bytes] = {}

    def start_of(self, status: int, loop: asyncio.AbstractEventLoop) -> bytes:
        """Returns the status line with Date. `loop` runs the timer that ends the second."""
        known = self._starts.get(status)
        return known if known is not None else self._encode(status, loop)

    def _encode(self, status: int, loop: asyncio.AbstractEventLoop) -> bytes:
        now = self._now()
        if not self._starts:
            loop.call_later(1.0 - now % 1.0, self._starts.clear)
        date = formatdate(now, usegmt=True).encode()
        encoded = self._starts[status] = b"HTTP/1.1 %d %b\r\ndate: %b\r\n" % (status, _phrase_of(status), date)
        return encoded


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
