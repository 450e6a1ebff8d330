"""A request that is answered without being parsed ends where the parser would end it."""

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.server.sockets.admission.whole_requests import FORGET_SECONDS, KNOWN_MAX, WholeRequests
from tests.gateway.concurrency.test_admission import Loop

PLAIN = b"POST /mcp/echo?x=1 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer abc\r\nContent-Length: 5\r\n\r\nhello"
PIECES = (
    *(b"GET", b"POST", b"HEAD", b" ", b"/", b"*", b"/a?b", b" HTTP/1.1", b" HTTP/1.0", b"\r\n", b"\n", b"\r", b"\r\n\r\n", b"\0"),
    *(b"Host: x", b"Content-Length: 0", b"content-length:3", b"Content-Length : 3", b"Content-Length: 3, 3", b"Content-Length: +3"),
    *(b"Transfer-Encoding: chunked", b"0\r\n\r\n", b"Expect: 100-continue", b"Connection: close", b" folded", b"\tfolded", b":", b"abc"),
    *(b"Authorization: Bearer abc", b"X-\xff: 1", b"X: \xff"),
)


class Parsed:
    """What llhttp makes of the same bytes."""

    def __init__(self, data: bytes) -> None:
        self.begun = self.complete = 0
        self.url = b""
        self.headers: dict[bytes, bytes] = {}
        self.problem = ""
        parser = httptools.HttpRequestParser(self)
        try:
            parser.feed_data(data)
        except httptools.HttpParserError as error:
            self.problem = str(error)

    def on_message_begin(self) -> None:
        self.begun += 1

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.lower()] = value

    def on_message_complete(self) -> None:
        self.complete += 1


@pytest.fixture
def loop() -> Loop:
    return Loop()


@pytest.fixture
def requests(loop: Loop) -> WholeRequests:
    return WholeRequests(loop)


def test_path_authorization_and_cookie_of_a_plain_request_are_read(requests: WholeRequests) -> None:
    assert requests.read(PLAIN) == (b"/mcp/echo", b"Bearer abc", b"", 5)
    assert requests.read(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n") == (b"/livez", b"", b"", 0)
    assert requests.read(b"GET /console HTTP/1.1\r\nhost: x\r\nCookie: a=b\r\n\r\n") == (b"/console", b"", b"a=b", 0)


def test_an_equal_head_is_read_once_until_it_is_forgotten(requests: WholeRequests, loop: Loop) -> None:
    first = requests.read(PLAIN)
    assert requests.read(PLAIN) is first
    loop.iterate(FORGET_SECONDS)
    assert requests.read(PLAIN) == first and requests.read(PLAIN) is not first


# attack PRO-01
def test_a_known_head_with_another_body_is_left_to_the_parser(requests: WholeRequests) -> None:
    assert requests.read(PLAIN)
    assert requests.read(PLAIN + PLAIN) is None and requests.read(PLAIN[:-1]) is None


def test_what_is_known_of_heads_is_bounded(requests: WholeRequests) -> None:
    heads = [PLAIN.replace(b"Bearer abc", b"Bearer %d" % number) for number in range(KNOWN_MAX + 1)]
    read = [requests.read(head) for head in heads]
    assert requests.read(heads[0]) is read[0] and requests.read(heads[-1]) is not read[-1]
    forgetful = WholeRequests(Loop())
    long = PLAIN.replace(b"Bearer abc", b"Bearer " + b"a" * 5000)
    assert forgetful.read(long) is not forgetful.read(long)


@pytest.mark.parametrize(
    "data",
    [
        PLAIN[:-1],
        PLAIN + b"G",
        PLAIN + PLAIN,
        PLAIN.replace(b"Content-Length: 5", b"Content-Length: 5\r\nContent-Length: 5"),
        PLAIN.replace(b"Content-Length: 5", b"Transfer-Encoding: chunked"),
        PLAIN.replace(b"Content-Length:", b"Content-Length :"),
        PLAIN.replace(b"Host: x\r\n", b"Host: x\n"),
        PLAIN.replace(b"Host: x\r\n", b"Host: x\r\n more\r\n"),
        PLAIN.replace(b"Host: x", b"Host: x\r\nno-colon"),
        PLAIN.replace(b"Host: x", b"Expect: 100-continue"),
        PLAIN.replace(b"Host: x", b"Connection: close"),
        PLAIN.replace(b"HTTP/1.1", b"HTTP/1.0"),
        PLAIN.replace(b"POST", b"HEAD"),
        PLAIN.replace(b" /mcp", b" http://x/mcp"),
        b"",
    ],
)
# attack PRO-01
def test_an_unusual_request_is_left_to_the_parser(requests: WholeRequests, data: bytes) -> None:
    assert requests.read(data) is None


@given(st.lists(st.sampled_from(PIECES), max_size=14), st.integers(0, 3))
# attack PRO-01
def test_the_parser_ends_the_request_where_the_bytes_end(pieces: list[bytes], body: int) -> None:
    for data in (b"".join(pieces), b"POST /a HTTP/1.1\r\n" + b"\r\n".join(pieces) + b"\r\n\r\n" + b"x" * body):
        request = WholeRequests(Loop()).read(data)
        if request is None:
            continue
        parsed = Parsed(data)
        if not parsed.problem:
            assert (parsed.begun, parsed.complete) == (1, 1)
            assert parsed.url.partition(b"?")[0] == request.path
            assert parsed.headers.get(b"authorization", b"") == request.authorization
