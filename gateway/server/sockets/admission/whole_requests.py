"""Reads what a refusal needs from a request that arrived in one piece, for less than it costs to parse it as HTTP."""

import string
from typing import Final, NamedTuple

from gateway.concurrency.admission import LoopTimers, Timers

METHODS: Final = frozenset({b"POST", b"GET", b"PUT", b"PATCH", b"DELETE"})
LENGTH_DIGITS: Final = 5
TOKEN: Final = (string.ascii_letters + string.digits + "!#$%&'*+-.^_`|~").encode()  # what names of headers consist of (RFC 9110 s5.6.2)
KNOWN_MAX: Final = 1000  # heads that are remembered
KNOWN_BYTES_MAX: Final = 4096  # of a head that is remembered
FORGET_SECONDS: Final = 10.0
PARSED: Final = frozenset({b"", b"transfer-encoding", b"expect", b"connection", b"upgrade"})  # requests with such headers are parsed


class WholeRequest(NamedTuple):
    """`path` is without the query. `authorization` and `cookie` are the values of the headers; empty without one."""

    path: bytes
    authorization: bytes
    cookie: bytes
    length: int  # of the body, in bytes


class WholeRequests:
    """Reads requests that arrived in one piece.

    Clients repeat their heads, so equal ones are read once within FORGET_SECONDS. They are not remembered for longer, since they contain
    tokens.
    """

    def __init__(self, timers: Timers | None = None) -> None:
        self._timers = timers or LoopTimers()
        self._known: dict[bytes, WholeRequest] = {}

    def read(self, data: bytes) -> WholeRequest | None:
        """Returns a request if `data` is exactly one, which every HTTP parser delimits in the same way; else None.

        The caller drops the bytes. If the request ended elsewhere for a proxy, the rest of a body would be taken for the next request. So
        the parser gets all that is unusual: transfer codings, headers that occur twice, bare line ends, folded lines, names with spaces.
        """
        end = data.find(b"\r\n\r\n")
        if end < 0:
            return None
        head = data[:end]
        request = self._known.get(head)
        if request is None:
            request = _read_head(head)
            if request is None:
                return None
            self._remember(head, request)
        return request if len(data) == end + 4 + request.length else None

    def _remember(self, head: bytes, request: WholeRequest) -> None:
        if len(self._known) >= KNOWN_MAX or len(head) > KNOWN_BYTES_MAX:
            return
        if not self._known:
            self._timers.later(FORGET_SECONDS, self._known.clear)
        self._known[head] = request


def _read_head(head: bytes) -> WholeRequest | None:
    """Returns the request that begins with `head`, or None if its head is unusual."""
    lines = head.split(b"\r\n")
    if head.count(b"\n") != len(lines) - 1 or head.count(b"\r") != len(lines) - 1 or b"\0" in head:
        return None
    method, _, rest = lines[0].partition(b" ")
    target, _, version = rest.partition(b" ")
    if method not in METHODS or version != b"HTTP/1.1" or not target.startswith(b"/"):
        return None
    headers = {name.lower(): value for name, colon, value in [line.partition(b":") for line in lines[1:]] if colon}
    if len(headers) != len(lines) - 1 or b"".join(headers).translate(None, TOKEN) or not PARSED.isdisjoint(headers):
        return None
    length = headers.get(b"content-length", b"0").strip(b" \t")
    if not length.isdigit() or len(length) > LENGTH_DIGITS:
        return None
    authorization, cookie = (headers.get(name, b"").strip(b" \t") for name in (b"authorization", b"cookie"))
    return WholeRequest(target.partition(b"?")[0], authorization, cookie, int(length))
