"""A threaded loopback server that keeps its mouth shut: a client that hangs up early is no news of the test's own output."""

import sys
from http.server import ThreadingHTTPServer
from typing import Any


class QuietServer(ThreadingHTTPServer):
    """Does not print the traceback of a connection that a client reset."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)
