"""Retry-After of an upstream's response (RFC 9110 s10.2.3), in seconds."""

from collections.abc import Mapping
from typing import Final

from adapters.contract import Failure, UpstreamFault

RETRY_AFTER_MAX: Final = 3600.0  # seconds


def add_retry_after(fault: UpstreamFault, status: int, headers: Mapping[str, str]) -> UpstreamFault:
    """The fault, with the seconds to wait of a 429 or 503. `headers` have lower-case names."""
    after = parse_retry_after(headers.get("retry-after", "")) if status in (429, 503) else None
    if after is not None:
        fault.retry_after, fault.failure = after, Failure.BUSY
    return fault


def parse_retry_after(text: str) -> float | None:
    """The seconds of a Retry-After (RFC 9110 s10.2.3); None for a date, which would need a shared clock."""
    return min(float(text), RETRY_AFTER_MAX) if text.isascii() and text.isdigit() and len(text) < 10 else None
