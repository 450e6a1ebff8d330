"""Logs refused credentials, and lists that are empty because of the caller's token, at a limited rate for each reason."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import structlog

LINES_PER_WINDOW = 10  # of one reason
WINDOW_SECONDS = 60.0
log = structlog.get_logger()


class LogRejection(Protocol):
    """Type of RejectedCredentialLog.log_rejection."""

    def __call__(self, reason: str, resource: str, credential: str = "", detail: str = "") -> None: ...


@dataclass(slots=True)
class _Window:
    started_at: float
    logged: int = 0
    left_out: int = 0


class RejectedCredentialLog:
    """Logs at most LINES_PER_WINDOW lines of each reason in WINDOW_SECONDS.

    `now` returns seconds. The gateway itself gives the reasons, so there are few of them.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._windows: dict[str, _Window] = {}

    def log_rejection(self, reason: str, resource: str, credential: str = "", detail: str = "") -> None:
        """Logs a refused credential. The log has only a truncated SHA-256 of the credential, from which it can't be recovered.

        `detail` explains a token with a verified signature: its claims, and the setting that refuses it.
        """
        left_out = self._count_left_out(reason)
        if left_out is None:
            return
        fingerprint = hashlib.sha256(credential.encode("utf-8", "surrogatepass")).hexdigest()[:16] if credential else ""
        more = {"detail": detail} if detail else {}
        log.warning("refused", reason=reason, resource=resource, fingerprint=fingerprint, left_out=left_out, **more)

    def log_empty_list(self, reason: str, resource: str, issuer: str) -> None:
        """Logs a list that is empty because a token of `issuer` lacks scopes or roles."""
        left_out = self._count_left_out(reason)
        if left_out is not None:
            log.warning("list_empty", reason=reason, resource=resource, issuer=issuer, left_out=left_out)

    def _count_left_out(self, reason: str) -> int | None:
        """Returns how many lines of this reason were suppressed before this one, or None when this one is suppressed too."""
        window = self._windows.get(reason)
        left_out = 0
        if window is None or self._now() - window.started_at >= WINDOW_SECONDS:
            left_out = window.left_out if window else 0
            window = self._windows[reason] = _Window(self._now())
        if window.logged == LINES_PER_WINDOW:
            window.left_out += 1
            return None
        window.logged += 1
        return left_out
