"""The deadline that a request brings along, read from its `Interlock-Deadline` header."""

import math
import re
from datetime import datetime
from typing import Final

from gateway.calls.limits.deadlines import DEADLINE
from gateway.ingress.http.asgi import BadHeader, Scope, header

NAME: Final = DEADLINE.lower()
_NAME: Final = NAME.encode()
_MOMENT: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|[+-]\d\d:\d\d)")


def deadline_in(scope: Scope) -> float:
    """What a request says, in seconds since 1970; infinite where it says nothing. Raises BadHeader."""
    return moment(header(scope, _NAME))


def moment(text: str | None) -> float:
    """Of RFC 3339, with its zone. Raises BadHeader."""
    if not text:
        return math.inf
    try:
        if _MOMENT.fullmatch(text):
            return max(0.0, datetime.fromisoformat(text).timestamp())  # over is over, and times of before have no name everywhere
    except (ValueError, OverflowError):
        pass
    raise BadHeader(f"{NAME} is no time of RFC 3339, such as 2026-11-21T10:00:00Z")
