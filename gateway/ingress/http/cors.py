"""CORS: the origins whose pages a browser lets call A2A and MCP here (Fetch standard, s3.2). The gateway uses no cookies."""

from collections.abc import Collection, Mapping, MutableMapping
from typing import Any, Final

from gateway.ingress.http.asgi import Header, Scope, Send, headers_by_name

ANY: Final = "*"
METHODS: Final = b"GET, POST, DELETE"
PREFLIGHT_SECONDS: Final = b"600"
REQUEST_HEADERS: Final = (
    *("accept", "authorization", "content-type", "dpop", "last-event-id", "traceparent", "tracestate"),
    *("a2a-extensions", "a2a-version", "idempotency-key", "interlock-deadline", "x-a2a-extensions"),
    *("mcp-method", "mcp-name", "mcp-protocol-version", "mcp-session-id"),
)
PARAMETER: Final = "mcp-param-"  # prefix of the headers that repeat a tool's arguments (MCP 2026-07-28)
EXPOSED: Final = (
    *("a2a-extensions", "a2a-version", "mcp-protocol-version", "mcp-session-id"),
    *("allow", "dpop-nonce", "etag", "interlock-trace-id", "last-modified", "retry-after", "www-authenticate"),
)


class Cors:
    """Answers preflight requests, and adds CORS headers to answers for the origins that the operator allows. `*` allows every origin."""

    def __init__(self, allowed: Collection[str]) -> None:
        self._allowed = frozenset(allowed)
        self._any = ANY in self._allowed

    def allows(self, origin: str) -> bool:
        """Returns whether pages of this origin may call. Only `*` covers `null`, the origin of sandboxed pages and files."""
        return self._any or origin.lower() in self._allowed

    def preflight(self, scope: Scope) -> list[Header] | None:
        """Returns the headers that answer a preflight request.

        Returns None for any other request, and for an origin that is not allowed.
        """
        headers = headers_by_name(scope)
        if scope["method"] != "OPTIONS" or b"access-control-request-method" not in headers or not self._is_allowed(headers):
            return None
        requested = headers.get(b"access-control-request-headers", b"").decode("latin-1").lower().split(",")
        parameters = [name for each in requested if (name := each.strip()).startswith(PARAMETER) and name.isascii() and name.isprintable()]
        return [
            *self._marks(headers),
            (b"access-control-allow-methods", METHODS),
            (b"access-control-allow-headers", ", ".join((*REQUEST_HEADERS, *parameters)).encode()),
            (b"access-control-max-age", PREFLIGHT_SECONDS),
        ]

    def with_cors_headers(self, scope: Scope, send: Send) -> Send:
        """Wraps `send`: adds the headers that let a page of an allowed origin read the answer, and `Vary: Origin` for caches."""
        headers = headers_by_name(scope)
        more = [] if self._any else [(b"vary", b"Origin")]
        if self._is_allowed(headers):
            more = [*self._marks(headers), (b"access-control-expose-headers", ", ".join(EXPOSED).encode())]

        async def send_with_headers(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], *more]}
            await send(message)

        return send_with_headers

    def _is_allowed(self, headers: Mapping[bytes, bytes]) -> bool:
        origin = headers.get(b"origin")
        return origin is not None and origin.isascii() and self.allows(origin.decode())

    def _marks(self, headers: Mapping[bytes, bytes]) -> list[Header]:
        if self._any:
            return [(b"access-control-allow-origin", b"*")]
        return [(b"access-control-allow-origin", headers[b"origin"]), (b"vary", b"Origin")]
