"""Reads the deadline of a request from its `Interlock-Deadline` header."""

import math
import re
from datetime import datetime
from typing import Final

from gateway.calls.limits.deadlines import DEADLINE_HEADER
from gateway.ingress.http.asgi import BadHeader, Scope, header

DEADLINE_HEADER_LOWER: Final = DEADLINE_HEADER.lower()
_HEADER_NAME: Final = DEADLINE_HEADER_LOWER.encode()
_RFC3339_TIME: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|[+-]\d\d:\d\d)")


def read_deadline(scope: Scope) -> float:
    """Returns the deadline of a request in seconds since 1970; infinite without the header. Raises BadHeader."""
    return parse_deadline(header(scope, _HEADER_NAME))


def parse_deadline(text: str | None) -> float:
    """Parses an RFC 3339 time with its zone into seconds since 1970; infinite without a text. Raises BadHeader."""
    if not text:
        return math.inf
    try:
        if _RFC3339_TIME.fullmatch(text):
            return max(0.0, datetime.fromisoformat(text).timestamp())  # some platforms can't convert times before 1970
    except (ValueError, OverflowError):
        pass
    raise BadHeader(f"{DEADLINE_HEADER_LOWER} is no time of RFC 3339, such as 2026-11-21T10:00:00Z")
