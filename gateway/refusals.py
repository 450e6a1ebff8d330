"""Tokens and clients that were refused, in the log: a few lines a minute of each kind, however many come."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import structlog

LINES = 10  # of one reason
WINDOW_SECONDS = 60.0
log = structlog.get_logger()


class Noted(Protocol):
    """Refusals.note."""

    def __call__(self, reason: str, resource: str, shown: str = "") -> None: ...


@dataclass(slots=True)
class _Window:
    began: float
    told: int = 0
    left_out: int = 0


class Refusals:
    """`now` counts seconds. Reasons are ours, so there are few of them."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._windows: dict[str, _Window] = {}

    def note(self, reason: str, resource: str, shown: str = "") -> None:
        """`shown` is what was shown for a proof. Nobody can be told from it, so what it claims is not told: only that it was the same."""
        window = self._windows.get(reason)
        left_out = 0
        if window is None or self._now() - window.began >= WINDOW_SECONDS:
            left_out = window.left_out if window else 0
            window = self._windows[reason] = _Window(self._now())
        if window.told == LINES:
            window.left_out += 1
            return
        window.told += 1
        fingerprint = hashlib.sha256(shown.encode("utf-8", "surrogatepass")).hexdigest()[:16] if shown else ""
        log.warning("refused", reason=reason, resource=resource, fingerprint=fingerprint, left_out=left_out)
