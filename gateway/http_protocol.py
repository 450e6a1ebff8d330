"""HTTP/1.1 as the gateway's sockets read it: uvicorn's protocol, in which the request target decides which host is meant."""

import re

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_ABSOLUTE = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]*://([^/?#]*)")  # group 1: the host with its port, and with a user name if there is one


class HttpProtocol(HttpToolsProtocol):
    """A request target with a host of its own (`GET http://host/path`) counts in place of the Host header (RFC 9112 s3.2.2)."""

    def on_headers_complete(self) -> None:
        if not self.url.startswith(b"/") and (found := _ABSOLUTE.match(self.url)) is not None:
            self.headers[:] = [(name, found[1] if name == b"host" else value) for name, value in self.headers]
        super().on_headers_complete()
