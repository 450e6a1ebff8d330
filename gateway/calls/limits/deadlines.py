"""Interlock-Deadline: until when an agent has time, and until when whoever calls waits. It only ever takes time away."""

import asyncio
import math
from typing import Final

DEADLINE_HEADER: Final = "Interlock-Deadline"


def to_loop_clock(deadline: float, now_us: int) -> float:
    """A moment in seconds since 1970, on the event loop's clock."""
    return deadline if deadline == math.inf else asyncio.get_running_loop().time() + deadline - now_us / 1e6


def to_wall_clock(deadline: float, now_us: int) -> float:
    """The other way round."""
    return now_us / 1e6 + deadline - asyncio.get_running_loop().time()
