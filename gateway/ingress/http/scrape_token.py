"""The bearer token of a scraper: it opens /metrics and nothing else, and lasts until the operator changes it."""

import hmac
from collections.abc import Callable
from typing import Final

import structlog

from adapters.contract import UpstreamFault
from gateway.ingress.http.asgi import BadHeader, Scope, header

SHORTEST: Final = 16  # characters of a token that the gateway takes

log = structlog.get_logger()


class ScrapeToken:
    """`read` returns the token from its place at each request, so that the operator may replace it while the gateway runs."""

    def __init__(self, read: Callable[[], str]) -> None:
        self._read = read

    def is_shown(self, scope: Scope) -> bool:
        """Whether `Authorization` of this request is the token, compared in constant time."""
        try:
            scheme, _, shown = (header(scope, b"authorization") or "").partition(" ")
        except BadHeader:
            return False
        if scheme.lower() != "bearer" or not shown:
            return False
        token = self._token()
        return len(token) >= SHORTEST and hmac.compare_digest(shown.encode(), token.encode())

    def _token(self) -> str:
        try:
            return self._read()
        except UpstreamFault as fault:
            log.error("metrics_token_missing", problem=fault.detail)
        except (OSError, UnicodeDecodeError) as error:
            log.error("metrics_token_missing", problem=str(error))
        return ""
