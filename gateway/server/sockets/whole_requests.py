"""Reads what a refusal needs from a request that arrived in one piece, for less than it costs to parse it as HTTP."""

import string
from typing import Final, NamedTuple

METHODS: Final = frozenset({b"POST", b"GET", b"PUT", b"PATCH", b"DELETE"})
LENGTH_DIGITS: Final = 5
TOKEN: Final = (string.ascii_letters + string.digits + "!#$%&'*+-.^_`|~").encode()  # what names of headers consist of (RFC 9110 s5.6.2)
PARSED: Final = frozenset({b"", b"transfer-encoding", b"expect", b"connection", b"upgrade"})  # requests with such headers are parsed


class WholeRequest(NamedTuple):
    """`path` is without the query. `authorization` and `cookie` are the values of the headers; empty without one."""

    path: bytes
    authorization: bytes
    cookie: bytes


def read_whole_request(data: bytes) -> WholeRequest | None:
    """Returns a request if `data` is exactly one, which every HTTP parser delimits in the same way; else None.

    The caller drops the bytes. If the request ended elsewhere for a proxy, the rest of a body would be taken for the next request. So the
    parser gets all that is unusual: transfer codings, headers that occur twice, bare line ends, folded lines, and names with spaces.
    """
    end = data.find(b"\r\n\r\n")
    head = data[:end]
    lines = head.split(b"\r\n")
    if end < 0 or head.count(b"\n") != len(lines) - 1 or head.count(b"\r") != len(lines) - 1 or b"\0" in head:
        return None
    method, _, rest = lines[0].partition(b" ")
    target, _, version = rest.partition(b" ")
    if method not in METHODS or version != b"HTTP/1.1" or not target.startswith(b"/"):
        return None
    headers = {name.lower(): value for name, _, value in [line.partition(b":") for line in lines[1:]]}
    if len(headers) != len(lines) - 1 or b"".join(headers).translate(None, TOKEN) or not PARSED.isdisjoint(headers):
        return None
    length = headers.get(b"content-length", b"0").strip(b" \t")
    if not length.isdigit() or len(length) > LENGTH_DIGITS or len(data) != end + 4 + int(length):
        return None
    known = (headers.get(name, b"").strip(b" \t") for name in (b"authorization", b"cookie"))
    return WholeRequest(target.partition(b"?")[0], *known)
