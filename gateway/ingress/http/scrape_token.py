"""The bearer token of a metrics scraper. It is accepted at /metrics only, and lasts until the operator changes it."""

import hmac
import math
import time
from collections.abc import Callable
from typing import Final

import structlog

from adapters.contract import UpstreamFault
from gateway.ingress.http.asgi import BadHeader, Scope, header
from gateway.storage.outage_log import Outage

SHORTEST: Final = 16  # characters; the gateway accepts no shorter token
READ_SECONDS: Final = 1.0  # for which a token that was read counts, and so does that there was none

log = structlog.get_logger()


class ScrapeToken:
    """Verifies the scraper's token. `read` loads it from its place, so that the operator may replace it while the gateway runs.

    Requests with any bearer token cause at most one read in READ_SECONDS: they need no credential, and must not cost files or log lines.
    """

    def __init__(self, read: Callable[[], str], now: Callable[[], float] = time.monotonic) -> None:
        self._read = read
        self._now = now
        self._outage = Outage(now)
        self._read_at = -math.inf
        self._token = ""

    def is_shown(self, scope: Scope) -> bool:
        """Returns whether the request's `Authorization` is the token, compared in constant time."""
        try:
            scheme, _, shown = (header(scope, b"authorization") or "").partition(" ")
        except BadHeader:
            return False
        if scheme.lower() != "bearer" or not shown:
            return False
        if self._now() - self._read_at >= READ_SECONDS:
            self._read_at, self._token = self._now(), self._read_token()
        return len(self._token) >= SHORTEST and hmac.compare_digest(shown.encode(), self._token.encode())

    def _read_token(self) -> str:
        """The token, or an empty text where it can't be read."""
        try:
            token = self._read()
        except UpstreamFault as fault:
            self._log_failure(fault.detail)
        except (OSError, UnicodeDecodeError) as error:
            self._log_failure(str(error))
        else:
            if (seconds := self._outage.record_success()) is not None:
                log.info("metrics_token_read_again", seconds=round(seconds))
            return token
        return ""

    def _log_failure(self, problem: str) -> None:
        if (left_out := self._outage.record_failure()) is not None:
            log.error("metrics_token_missing", problem=problem, left_out=left_out)
