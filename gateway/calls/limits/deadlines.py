"""Interlock-Deadline: until when an agent has time, and until when whoever calls waits. It only ever takes time away."""

import asyncio
import math
import re
from datetime import datetime
from typing import Final

from gateway.ingress.http.asgi import BadHeader, Scope, header

DEADLINE: Final = "Interlock-Deadline"
NAME: Final = DEADLINE.lower()
_NAME: Final = NAME.encode()
_MOMENT: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|[+-]\d\d:\d\d)")


def on_loop(deadline: float, now_us: int) -> float:
    """A moment in seconds since 1970, on the event loop's clock."""
    return deadline if deadline == math.inf else asyncio.get_running_loop().time() + deadline - now_us / 1e6


def from_loop(deadline: float, now_us: int) -> float:
    """The other way round."""
    return now_us / 1e6 + deadline - asyncio.get_running_loop().time()


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
