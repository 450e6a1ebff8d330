"""Retry-After of an upstream's answer (RFC 9110 s10.2.3), in seconds."""

from collections.abc import Mapping
from typing import Final

from adapters.contract import Failure, UpstreamFault

RETRY_AFTER_MAX: Final = 3600.0  # seconds


def add_retry_after(fault: UpstreamFault, status: int, headers: Mapping[str, str]) -> UpstreamFault:
    """The fault, with the seconds that a 429 or 503 asks to wait. `headers` have lower-case names."""
    after = parse_retry_after(headers.get("retry-after", "")) if status in (429, 503) else None
    if after is not None:
        fault.retry_after, fault.failure = after, Failure.BUSY
    return fault


def parse_retry_after(text: str) -> float | None:
    """Seconds (RFC 9110 s10.2.3); a date is taken as not said, since it needs a clock that both sides share."""
    return min(float(text), RETRY_AFTER_MAX) if text.isascii() and text.isdigit() and len(text) < 10 else None
